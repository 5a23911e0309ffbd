package main

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/benchkit"
)

// unary measures naive clients that produce one record a call.
func (b *bench) unary(ctx context.Context, w *world) error {
	targets, err := b.open(ctx, w, w.leader, b.conns)
	if err != nil {
		return err
	}
	fmt.Printf("\nunary Produce over %d connections a target; CPU in µs a record\n", b.conns)
	for _, size := range benchkit.Sizes {
		for _, n := range []int{1, 64, 256} {
			title := fmt.Sprintf("%s, %d at once", benchkit.SizeName(size), n)
			results, err := b.Compare(ctx, title, columns, w.contenders(targets, func(ctx context.Context, t *target, d time.Duration) (benchkit.Load, error) {
				return w.produceUnary(ctx, targets[0], t, n, size, d)
			}))
			if err != nil {
				return err
			}
			bound := func(kind benchkit.Kind, what string, of func(benchkit.Result) float64, beside string, least, most float64) {
				results.Hold(benchkit.Bound{
					Kind: kind, Name: fmt.Sprintf("unary-%s-%d-%s", benchkit.SizeName(size), n, what),
					Of: of, Us: logproxy, Them: beside, AtLeast: least, AtMost: most,
				})
			}
			switch n {
			case 1:
				bound(benchkit.Goal, "p50", benchkit.P50, haproxy, 0, 1)
			case 64:
				bound(benchkit.Goal, "rate", benchkit.PerSecond, direct, 1, 0)
				bound(benchkit.Next, "rate", benchkit.PerSecond, direct, 1.3, 0)
				bound(benchkit.Goal, "rate", benchkit.PerSecond, haproxy, 1.2, 0)
				bound(benchkit.Goal, "leader-cpu", benchkit.CPU(leaderCPU), direct, 0, 0.5)
				bound(benchkit.Next, "leader-cpu", benchkit.CPU(leaderCPU), direct, 0, 0.35)
				bound(benchkit.Goal, "proxy-cpu", benchkit.CPU(proxyCPU), nginx, 0, 1)
				bound(benchkit.Next, "proxy-cpu", benchkit.CPU(proxyCPU), haproxy, 0, 1)
			}
		}
	}
	return nil
}

// client is one that makes a call at a time.
type client struct {
	logv1.LogClient
	record benchkit.Record
	req    *logv1.ProduceRequest // of record
	offset uint64                // of the last record that was acknowledged
	acked  int
}

func newClients(conns []grpc.ClientConnInterface, n, size int) []*client {
	clients := make([]*client, n)
	for i := range clients {
		record := benchkit.NewRecord(i, size)
		clients[i] = &client{
			LogClient: logv1.NewLogClient(conns[i%len(conns)]),
			record:    record,
			req:       &logv1.ProduceRequest{Record: &logv1.Record{Value: record}},
		}
	}
	return clients
}

func (c *client) produce(ctx context.Context) error {
	c.record.Next()
	resp, err := c.Produce(ctx, c.req)
	if err != nil {
		return err
	}
	if c.acked > 0 && resp.GetOffset() <= c.offset {
		return fmt.Errorf("a record got offset %d after one that got %d", resp.GetOffset(), c.offset)
	}
	c.acked++
	c.offset = resp.GetOffset()
	return nil
}

// produceUnary lets n clients of t produce for d. way leads straight to the
// leader, to look into the log.
func (w *world) produceUnary(ctx context.Context, way, t *target, n, size int, d time.Duration) (benchkit.Load, error) {
	from, err := w.next(ctx, way)
	if err != nil {
		return benchkit.Load{}, err
	}
	clients := newClients(t.conns, n, size)
	load, err := benchkit.Run(ctx, n, d, func(ctx context.Context, i int) error { return clients[i].produce(ctx) })
	if err != nil {
		return load, err
	}
	if err := w.counted(ctx, way, from, load.Count); err != nil {
		return load, err
	}
	for _, c := range clients {
		if c.acked == 0 {
			continue
		}
		resp, err := logv1.NewLogClient(way.conns[0]).Consume(ctx, &logv1.ConsumeRequest{Offset: c.offset})
		if err != nil {
			return load, fmt.Errorf("read what was acknowledged: %w", err)
		}
		if !bytes.Equal(resp.GetRecord().GetValue(), c.record) {
			return load, fmt.Errorf("at offset %d is not what was acknowledged there", c.offset)
		}
	}
	return load, nil
}

// counted makes sure that since from the log grew by what was acknowledged.
func (w *world) counted(ctx context.Context, way *target, from uint64, acked int) error {
	next, err := w.next(ctx, way)
	if err != nil {
		return err
	}
	if next-from != uint64(acked) {
		return fmt.Errorf("%d records were acknowledged, and the log grew by %d", acked, next-from)
	}
	return nil
}
