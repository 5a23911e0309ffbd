package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/benchkit"
	"github.com/logd-io/logd/test/harness"
)

// produceStream measures one client with one ProduceStream.
func (b *bench) produceStream(ctx context.Context, w *world) error {
	targets, err := b.open(ctx, w, w.leader, 1)
	if err != nil {
		return err
	}
	fmt.Print("\none ProduceStream, 1,024 records in flight; CPU in µs a record\n")
	for _, size := range benchkit.Sizes {
		results, err := b.Compare(ctx, benchkit.SizeName(size), columns, w.contenders(targets, func(ctx context.Context, t *target, d time.Duration) (benchkit.Load, error) {
			from, err := w.next(ctx, targets[0])
			if err != nil {
				return benchkit.Load{}, err
			}
			begun := time.Now()
			acked, err := harness.Produce(ctx, t.conns[0], size, func(int) bool { return time.Since(begun) < d })
			if err != nil {
				return benchkit.Load{}, err
			}
			return benchkit.Done(acked, begun), w.counted(ctx, targets[0], from, acked)
		}))
		if err != nil {
			return err
		}
		holdStream(results, "produce-stream-"+benchkit.SizeName(size))
	}
	return nil
}

// readRate is roughly how many records a second a consumer reads; with it the
// log is long enough for a measurement.
var readRate = map[int]int{100: 600_000, 1024: 250_000}

// consumeStream measures one consumer that reads a part of the log over and
// over, from the same follower in every case: the other one is killed, so that
// logproxy has no choice.
func (b *bench) consumeStream(ctx context.Context, w *world) error {
	follower, other := w.followers[0], w.followers[1]
	targets, err := b.open(ctx, w, follower, 1)
	if err != nil {
		return err
	}
	leader, err := w.Dial("client", w.leader)
	if err != nil {
		return err
	}
	defer leader.Close()
	parts := make(map[int]part)
	next := uint64(0)
	for _, size := range benchkit.Sizes {
		n := int(float64(readRate[size]) * b.Time.Seconds())
		if _, err := harness.Produce(ctx, leader, size, func(sent int) bool { return sent < n }); err != nil {
			return fmt.Errorf("fill the log: %w", err)
		}
		parts[size] = part{next, next + uint64(n)}
		next += uint64(n)
	}
	err = harness.Until(ctx, func() error {
		s, err := w.Stats(ctx, follower)
		if err == nil && s.GetVisible() < next {
			err = errors.New("the follower is behind")
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := other.Kill(); err != nil {
		return err
	}
	before, err := w.readers(ctx, w.leader)
	if err != nil {
		return err
	}
	fmt.Print("\none ConsumeStream from the same follower, nginx and haproxy in front of it too; CPU in µs a record\n")
	for _, size := range benchkit.Sizes {
		results, err := b.Compare(ctx, benchkit.SizeName(size), columns, w.contenders(targets, func(ctx context.Context, t *target, _ time.Duration) (benchkit.Load, error) {
			return parts[size].read(ctx, t)
		}))
		if err != nil {
			return err
		}
		holdStream(results, "consume-stream-"+benchkit.SizeName(size))
	}
	after, err := w.readers(ctx, w.leader)
	if err == nil && after != before {
		err = errors.New("some of that was read from the leader, so it compares nothing")
	}
	return err
}

// part is a part of the log: [from, next).
type part struct{ from, next uint64 }

func (p part) read(ctx context.Context, t *target) (benchkit.Load, error) {
	begun := time.Now()
	err := harness.Tail(ctx, t.conns[0], p.from, func(rec *logv1.Record) bool { return rec.GetOffset()+1 < p.next })
	return benchkit.Done(int(p.next-p.from), begun), err
}

func holdStream(results benchkit.Results, name string) {
	results.Hold(
		benchkit.Bound{Kind: benchkit.Goal, Name: name, Of: benchkit.PerSecond, Us: logproxy, Them: direct, AtLeast: 0.9},
		benchkit.Bound{Kind: benchkit.Next, Name: name, Of: benchkit.PerSecond, Us: logproxy, Them: haproxy, AtLeast: 1},
	)
}
