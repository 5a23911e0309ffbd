package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/harness"
)

// consume compares a ConsumeStream through the proxy with one straight from the
// only follower that is left, so that both read from the same node.
func (b *bench) consume(ctx context.Context, w *world) error {
	var follower, other *harness.Node
	for _, n := range w.Nodes {
		switch {
		case n == w.leader:
		case follower == nil:
			follower = n
		default:
			other = n
		}
	}
	direct, err := w.Dial("client", follower)
	if err != nil {
		return err
	}
	defer direct.Close()
	proxied, err := harness.Naive(w.proxy.Addr)
	if err != nil {
		return err
	}
	defer proxied.Close()

	fmt.Printf("\n%-34s %12s\n", "streams", "records/s")
	var next uint64
	for _, size := range []int{100, 1024} {
		records := b.records * 100 / size
		from := next
		begun := time.Now()
		if err := fill(ctx, proxied, records, size); err != nil {
			return fmt.Errorf("fill: %w", err)
		}
		fmt.Printf("%-34s %12.0f\n", fmt.Sprintf("  ProduceStream, proxy, %d B", size), float64(records)/time.Since(begun).Seconds())
		next += uint64(records)
		if other.Running() {
			if err := other.Kill(); err != nil {
				return err
			}
		}
		var ds, ps []float64
		for round := range b.rounds + 1 {
			d, err := drain(ctx, direct, from, next)
			if err != nil {
				return fmt.Errorf("straight from the follower: %w", err)
			}
			p, err := drain(ctx, proxied, from, next)
			if err != nil {
				return fmt.Errorf("through the proxy: %w", err)
			}
			if round > 0 {
				ds, ps = append(ds, d), append(ps, p)
			}
		}
		same := func(f float64) float64 { return f }
		d, p := median(ds, same), median(ps, same)
		fmt.Printf("%-34s %12.0f\n", fmt.Sprintf("  ConsumeStream, follower, %d B", size), d)
		fmt.Printf("%-34s %12.0f\n", fmt.Sprintf("  ConsumeStream, proxy, %d B", size), p)
		goal(fmt.Sprintf("consume-stream-%d-proxy/direct", size), p/d, 0.7, "", +1)
	}
	return nil
}

// fill writes n records on one ProduceStream, with at most 1,024 unanswered.
func fill(ctx context.Context, conn grpc.ClientConnInterface, n, size int) error {
	g, ctx := errgroup.WithContext(ctx)
	stream, err := logv1.NewLogClient(conn).ProduceStream(ctx)
	if err != nil {
		return err
	}
	window := make(chan struct{}, 1024) // a place a record that is not answered
	g.Go(func() error {
		req := &logv1.ProduceRequest{Record: &logv1.Record{Value: make([]byte, size)}}
		for range n {
			select {
			case window <- struct{}{}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			if err := stream.Send(req); err != nil {
				if errors.Is(err, io.EOF) {
					return nil // the reader has the reason
				}
				return err
			}
		}
		return stream.CloseSend()
	})
	g.Go(func() error {
		for range n {
			if _, err := stream.Recv(); err != nil {
				return err
			}
			<-window
		}
		return nil
	})
	return g.Wait()
}

// drain reads [from, next) on one stream and tells the records a second.
func drain(ctx context.Context, conn grpc.ClientConnInterface, from, next uint64) (float64, error) {
	begun := time.Now()
	err := harness.Tail(ctx, conn, from, func(rec *logv1.Record) bool { return rec.GetOffset()+1 < next })
	return float64(next-from) / time.Since(begun).Seconds(), err
}
