package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/test/harness"
)

// How many there are of each kind of client.
const (
	producers = 16 // unary, each with a connection
	streamers = 4  // each one ProduceStream at a time
	tails     = 3  // ConsumeStreams that last as long as the load
	slow      = 4  // ConsumeStreams read a record at a time
	deaf      = 10 // ConsumeStreams that nobody reads
	churners  = 2  // a new connection for every two calls
	leavers   = 4  // calls given up at any moment
)

// ledger is what was produced. A number is produced once.
type ledger struct {
	next atomic.Uint64

	mu      sync.Mutex
	acked   map[uint64]uint64 // number → offset; guarded by mu
	highest uint64            // the offset after the last one acknowledged; guarded by mu
}

func (l *ledger) ack(number, offset uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.acked == nil {
		l.acked = make(map[uint64]uint64)
	}
	l.acked[number] = offset
	l.highest = max(l.highest, offset+1)
}

func (l *ledger) end() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.highest
}

// counts are for the line of progress.
type counts struct {
	unary, streamed, read, churned, left, hostile, troubles atomic.Uint64
	longest                                                 atomic.Int64 // of one unary produce, in ns
}

func (c *counts) String() string {
	return fmt.Sprintf("produced %d + %d in streams, read %d, %d connections, %d calls left, %d attacks, %d nodes taken away",
		c.unary.Load(), c.streamed.Load(), c.read.Load(), c.churned.Load(), c.left.Load(), c.hostile.Load(), c.troubles.Load())
}

type client func(ctx, load context.Context) error

// clients starts those who behave.
func (s *soak) clients(do func(string, func(ctx, load context.Context) error)) {
	var producing sync.WaitGroup
	quiet := make(chan struct{}) // closed when nothing is produced any more
	counted := func(run client) client {
		producing.Add(1)
		return func(ctx, load context.Context) error {
			defer producing.Done()
			return run(ctx, load)
		}
	}
	for range producers {
		do("unary producer", counted(s.produce))
	}
	for range streamers {
		do("producer of a stream", counted(s.produceStream))
	}
	for range churners {
		do("client with a connection for two calls", counted(s.churn))
	}
	do("end of producing", func(context.Context, context.Context) error {
		producing.Wait()
		close(quiet)
		return nil
	})
	for range tails {
		do("tail", func(ctx, _ context.Context) error { return s.tail(ctx, quiet) })
	}
	for range slow {
		do("slow reader", s.slow)
	}
	for range deaf {
		do("reader that does not read", s.deaf)
	}
	for range leavers {
		do("client that leaves", s.leave)
	}
}

// paced calls f n times a second in all of the workers of its kind, until load ends.
func (s *soak) paced(load context.Context, workers, each int, f func() error) error {
	tick := time.NewTicker(time.Second * time.Duration(workers*each) / time.Duration(max(s.rate/2, 1)))
	defer tick.Stop()
	for {
		select {
		case <-load.Done():
			return nil
		case <-tick.C:
		}
		if err := f(); err != nil {
			return err
		}
	}
}

func (s *soak) record() (number uint64, req *logv1.ProduceRequest) {
	number = s.next.Add(1) - 1
	return number, &logv1.ProduceRequest{Record: &logv1.Record{Value: harness.Value(number, nil)}}
}

func (s *soak) one(ctx context.Context, client logv1.LogClient) (offset uint64, err error) {
	n, req := s.record()
	begun := time.Now()
	resp, err := client.Produce(ctx, req)
	took := time.Since(begun)
	if err != nil {
		return 0, fmt.Errorf("record %d, after %s: %w", n, took.Round(time.Millisecond), err)
	}
	for {
		old := s.counts.longest.Load()
		if int64(took) <= old || s.counts.longest.CompareAndSwap(old, int64(took)) {
			break
		}
	}
	s.ack(n, resp.GetOffset())
	s.counts.unary.Add(1)
	return resp.GetOffset(), nil
}

func (s *soak) produce(ctx, load context.Context) error {
	conn, err := harness.Naive(s.proxy.Addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	client := logv1.NewLogClient(conn)
	return s.paced(load, producers, 1, func() error {
		_, err := s.one(ctx, client)
		return err
	})
}

// produceStream opens streams of some hundred records, sent a few at a time.
func (s *soak) produceStream(ctx, load context.Context) error {
	const ahead, life = 8, 50
	conn, err := harness.Naive(s.proxy.Addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	var stream grpc.BidiStreamingClient[logv1.ProduceRequest, logv1.ProduceResponse]
	used := 0 // rounds
	return s.paced(load, streamers, ahead, func() (err error) {
		if stream == nil {
			if stream, err = logv1.NewLogClient(conn).ProduceStream(ctx); err != nil {
				return err
			}
		}
		var numbers [ahead]uint64
		for i := range numbers {
			n, req := s.record()
			numbers[i] = n
			if err := stream.Send(req); err != nil {
				_, err = stream.Recv()
				return fmt.Errorf("record %d: %w", n, err)
			}
		}
		for _, n := range numbers {
			resp, err := stream.Recv()
			if err != nil {
				return fmt.Errorf("record %d: %w", n, err)
			}
			s.ack(n, resp.GetOffset())
			s.counts.streamed.Add(1)
		}
		if used++; used == life {
			used = 0
			if err := stream.CloseSend(); err != nil {
				return err
			}
			if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
				return fmt.Errorf("a stream that was closed: %w", err)
			}
			stream = nil
		}
		return nil
	})
}

// churn is a client that connects, writes, reads what it wrote, and goes.
func (s *soak) churn(ctx, load context.Context) error {
	return s.paced(load, churners*30, 1, func() error {
		conn, err := harness.Naive(s.proxy.Addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		client := logv1.NewLogClient(conn)
		off, err := s.one(ctx, client)
		if err != nil {
			return err
		}
		resp, err := client.Consume(ctx, &logv1.ConsumeRequest{Offset: off})
		if err != nil {
			return fmt.Errorf("reading what was just written, at %d: %w", off, err)
		}
		if got := resp.GetRecord().GetOffset(); got != off {
			return fmt.Errorf("asked for offset %d, got %d", off, got)
		}
		s.counts.churned.Add(1)
		return nil
	})
}

// tail reads everything from the first record on, in order, on one stream.
func (s *soak) tail(ctx context.Context, quiet <-chan struct{}) error {
	conn, err := harness.Naive(s.proxy.Addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	reading, stop := context.WithCancel(ctx)
	defer stop()
	var next atomic.Uint64
	ended := make(chan error, 1)
	go func() { // joined below
		ended <- harness.Tail(reading, conn, 0, func(rec *logv1.Record) bool {
			next.Store(rec.GetOffset() + 1)
			s.counts.read.Add(1)
			return true
		})
	}()
	err = every(ctx, 100*time.Millisecond, func() (bool, error) {
		select {
		case err := <-ended:
			ended <- err
			return true, fmt.Errorf("ended at %d: %w", next.Load(), err)
		case <-quiet:
			return next.Load() >= s.end(), nil
		default:
			return false, nil
		}
	})
	stop()
	<-ended //nolint:errcheck // it was told already, or is of our stopping it
	return err
}

// stream gives f streams from somewhere in the log, each for a while.
func (s *soak) stream(ctx, load context.Context, f func(context.Context, uint64, grpc.ServerStreamingClient[logv1.ConsumeResponse]) error) error {
	for load.Err() == nil {
		err := func() error {
			conn, err := harness.Naive(s.proxy.Addr)
			if err != nil {
				return err
			}
			defer conn.Close()
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			from := rand.Uint64N(s.end() + 1)
			stream, err := logv1.NewLogClient(conn).ConsumeStream(ctx, &logv1.ConsumeRequest{Offset: from})
			if err != nil {
				return err
			}
			while, done := context.WithTimeout(load, time.Duration(10+rand.IntN(20))*time.Second)
			defer done()
			return f(while, from, stream)
		}()
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *soak) slow(ctx, load context.Context) error {
	return s.stream(ctx, load, func(while context.Context, next uint64, stream grpc.ServerStreamingClient[logv1.ConsumeResponse]) error {
		for while.Err() == nil {
			resp, err := stream.Recv()
			if err != nil {
				return fmt.Errorf("at %d: %w", next, err)
			}
			if got := resp.GetRecord().GetOffset(); got != next {
				return &harness.GapError{Want: next, Got: got}
			}
			next++
			s.counts.read.Add(1)
			wait(while, 20*time.Millisecond)
		}
		return nil
	})
}

func (s *soak) deaf(ctx, load context.Context) error {
	return s.stream(ctx, load, func(while context.Context, _ uint64, _ grpc.ServerStreamingClient[logv1.ConsumeResponse]) error {
		<-while.Done()
		return nil
	})
}

// leave makes calls that it gives up at a moment that it does not choose.
func (s *soak) leave(ctx, load context.Context) error {
	conn, err := harness.Naive(s.proxy.Addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	client := logv1.NewLogClient(conn)
	for load.Err() == nil {
		call, gone := context.WithTimeout(ctx, rand.N(30*time.Millisecond))
		var err error
		switch rand.IntN(3) {
		case 0:
			_, err = client.Consume(call, &logv1.ConsumeRequest{Offset: rand.Uint64N(s.end() + 1)})
		case 1:
			var stream grpc.ServerStreamingClient[logv1.ConsumeResponse]
			if stream, err = client.ConsumeStream(call, &logv1.ConsumeRequest{Offset: rand.Uint64N(s.end() + 1)}); err == nil {
				for err == nil {
					_, err = stream.Recv()
				}
			}
		case 2:
			_, err = client.GetOffsets(call, &logv1.GetOffsetsRequest{})
		}
		gone()
		switch status.Code(err) {
		case codes.OK, codes.Canceled, codes.DeadlineExceeded, codes.OutOfRange:
		default:
			// Nobody who could answer was found in the little time there was.
			switch apierr.ReasonOf(err) {
			case apierr.ReasonNotSent, apierr.ReasonBehind, apierr.ReasonDraining:
			default:
				return fmt.Errorf("not what comes of leaving: %w", err)
			}
		}
		s.counts.left.Add(1)
		wait(load, 50*time.Millisecond)
	}
	return nil
}

// wait is a pause that ends with ctx.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
