package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/logd-io/logd/test/benchkit"
	"github.com/logd-io/logd/test/harness"
)

// contender is one way to a replicated log.
type contender struct {
	name    string
	servers []*harness.Process // whose CPU time its records cost
	// written is how many records were ever written.
	written func(context.Context) (uint64, error)
	// write writes a record, for a client that waits for its answer. Clients
	// with different numbers write at once.
	write func(ctx context.Context, client int, record []byte) error
	// stream writes records of size bytes as long as more says so, with at most
	// 1,024 unanswered, and tells how many were acknowledged. nil: it cannot.
	stream func(ctx context.Context, size int, more func(sent int) bool) (acked int, err error)
	// read reads n records in order, the first one being the from-th that was
	// ever written. nil: it cannot.
	read func(ctx context.Context, from uint64, n int) error
}

// The columns of CPU time.
var columns = []string{"servers", "clients"}

func (c *contender) cpu() ([]time.Duration, error) {
	used := make([]time.Duration, len(columns))
	for _, p := range c.servers {
		cpu, err := p.CPU()
		if err != nil {
			return nil, err
		}
		used[0] += cpu
	}
	var err error
	used[1], err = harness.CPU(os.Getpid())
	return used, err
}

// counted runs f, which tells how many records were acknowledged, and makes sure
// that so many were written.
func (c *contender) counted(ctx context.Context, f func() (benchkit.Load, error)) (benchkit.Load, error) {
	before, err := c.written(ctx)
	if err != nil {
		return benchkit.Load{}, err
	}
	load, err := f()
	if err != nil {
		return load, err
	}
	after, err := c.written(ctx)
	if err == nil && after-before != uint64(load.Count) {
		err = fmt.Errorf("%d records were acknowledged, and %d were written", load.Count, after-before)
	}
	return load, err
}

// compare measures those of the contenders that can.
func (b *bench) compare(ctx context.Context, title string, can func(*contender) bool, measure func(context.Context, *contender, time.Duration) (benchkit.Load, error)) (benchkit.Results, error) {
	var cs []benchkit.Contender
	for _, c := range b.contenders {
		if !can(c) {
			continue
		}
		cs = append(cs, benchkit.Contender{
			Name: c.name,
			CPU:  c.cpu,
			Measure: func(ctx context.Context, d time.Duration) (benchkit.Load, error) {
				return measure(ctx, c, d)
			},
		})
	}
	return b.Compare(ctx, title, columns, cs)
}
