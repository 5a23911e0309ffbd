package main

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/benchkit"
	"github.com/logd-io/logd/test/harness"
)

const (
	idleMiB      = 25
	busyMiB      = 64
	manyClients  = 64
	memoryRecord = 1024
)

// memory measures what logproxy has resident: before it has a client, and at
// most with 64 of them, each with a connection of its own.
func (b *bench) memory(ctx context.Context, w *world) error {
	mib := func(bytes int64) float64 { return float64(bytes) / (1 << 20) }
	idle, err := w.proxy.Memory()
	if err != nil {
		return err
	}
	fmt.Printf("\nmemory of logproxy\n  idle %.1f MiB\n", mib(idle))
	var conns []grpc.ClientConnInterface
	for range manyClients {
		conn, err := harness.Naive(w.proxy.Addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	clients := newClients(conns, manyClients, memoryRecord)
	load, err := benchkit.Run(ctx, manyClients, 2*b.Time, func(ctx context.Context, i int) error { return clients[i].produce(ctx) })
	if err != nil {
		return err
	}
	producing, err := w.proxy.PeakMemory()
	if err != nil {
		return err
	}
	fmt.Printf("  %d clients that produce %s a call, at most %.1f MiB, %.0f records/s\n", manyClients, benchkit.SizeName(memoryRecord), mib(producing), load.PerSecond)

	next := uint64(load.Count)
	g, gctx := errgroup.WithContext(ctx)
	for _, conn := range conns {
		g.Go(func() error {
			return harness.Tail(gctx, conn, 0, func(rec *logv1.Record) bool { return rec.GetOffset()+1 < next })
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	consuming, err := w.proxy.PeakMemory()
	if err != nil {
		return err
	}
	fmt.Printf("  the same clients, each reading the log, at most %.1f MiB\n", mib(consuming))
	benchkit.Goal.AtMost("logproxy-memory-idle", mib(idle), idleMiB, "MiB")
	benchkit.Goal.AtMost("logproxy-memory-64-producers", mib(producing), busyMiB, "MiB")
	benchkit.Next.AtMost("logproxy-memory-64-consumers", mib(consuming), busyMiB, "MiB")
	return nil
}
