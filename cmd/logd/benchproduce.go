package main

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/internal/cli"
	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/client"
)

// load is what bench produce sends.
type load struct {
	extent
	timeout     time.Duration // of a call
	connections int
	inFlight    int
	size        config.Size
	rate        float64 // 0: as fast as it goes
	stream      bool
}

func (l *load) validate() error {
	switch {
	case l.inFlight < 1 || l.connections < 1 || l.rate < 0 || l.time < 0:
		return cli.Usagef("-in-flight, -connections, -rate and -for: more than nothing")
	case l.size < 0 || l.size > config.MaxRecordSize:
		return cli.Usagef("-size %d: a record has at most %d bytes", l.size, config.MaxRecordSize)
	}
	return nil
}

// turns hands out the records to send: which is the next, and when it is due.
type turns struct {
	load  *load
	start time.Time
	taken atomic.Uint64
}

// next waits until the next record is due, and answers since when its time counts;
// false: there is no other.
func (t *turns) next(ctx context.Context) (time.Time, bool) {
	i := t.taken.Add(1) - 1
	if t.load.records > 0 && i >= t.load.records {
		return time.Time{}, false
	}
	if t.load.rate == 0 {
		return time.Now(), ctx.Err() == nil
	}
	due := t.start.Add(time.Duration(float64(i) / t.load.rate * float64(time.Second)))
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-timer.C:
		return due, ctx.Err() == nil
	case <-ctx.Done():
		return due, false
	}
}

// produce sends the load over the connections, and has m know each answer. What is
// under way at the end is waited for.
func (l *load) produce(ctx context.Context, conns []*client.Client, m *measure) {
	ctx, cancel := l.limited(ctx)
	defer cancel()
	value := make([]byte, l.size)
	_, _ = rand.Read(value) // never fails; what cannot be compressed is the honest case
	record := &logv1.Record{Value: value}
	t := &turns{load: l, start: time.Now()}
	if l.stream {
		spread(len(conns), func(i int) { l.sendStream(ctx, conns[i], record, t, m) })
		return
	}
	spread(l.inFlight, func(i int) { l.sendCalls(ctx, conns[i%len(conns)], record, t, m) })
}

// sendCalls makes a call for each record, one after the other.
func (l *load) sendCalls(ctx context.Context, c *client.Client, record *logv1.Record, t *turns, m *measure) {
	for {
		since, ok := t.next(ctx)
		if !ok || m.hopeless() {
			return
		}
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.timeout)
		_, err := c.Produce(call, record)
		cancel()
		m.done(since, len(record.GetValue()), err)
	}
}

// sendStream sends records on one stream, with its share of those under way.
func (l *load) sendStream(ctx context.Context, c *client.Client, record *logv1.Record, t *turns, m *measure) {
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stream, err := logv1.NewLogClient(c.Conn()).ProduceStream(sending)
	if err != nil {
		m.done(time.Now(), 0, err)
		return
	}
	waiting := make(chan time.Time, max(1, l.inFlight/l.connections)) // since when each counts, in order; its capacity is the window
	ended := make(chan struct{})
	go func() { // takes the answers; sendStream waits for it
		defer close(ended)
		for {
			_, err := stream.Recv()
			if errors.Is(err, io.EOF) && len(waiting) == 0 {
				return
			}
			if err != nil {
				m.done(time.Now(), 0, err)
				return
			}
			m.done(<-waiting, len(record.GetValue()), nil)
		}
	}()
	l.fill(ctx, stream, record, t, waiting, ended)
	_ = stream.CloseSend() // a broken stream is the receiver's to tell
	late := time.AfterFunc(l.timeout, cancel)
	defer late.Stop()
	<-ended
}

// fill sends until the turns are over or the receiver has ended.
func (l *load) fill(ctx context.Context, stream logv1.Log_ProduceStreamClient, record *logv1.Record, t *turns, waiting chan<- time.Time, ended <-chan struct{}) {
	for {
		since, ok := t.next(ctx)
		if !ok {
			return
		}
		select {
		case waiting <- since:
		case <-ended:
			return
		}
		if stream.Send(&logv1.ProduceRequest{Record: record}) != nil {
			return
		}
	}
}
