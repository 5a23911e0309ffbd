package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/harness"
)

// rate is what one window of naive unary produces gave.
type rate struct {
	perSecond float64
	p50, p99  time.Duration
	leaderCPU float64 // microseconds a record
	proxyCPU  float64
}

func (b *bench) produce(ctx context.Context, w *world) error {
	var direct, proxied []grpc.ClientConnInterface
	for range b.conns {
		d, err := w.Dial("client", w.leader)
		if err != nil {
			return err
		}
		defer d.Close()
		p, err := harness.Naive(w.proxy.Addr)
		if err != nil {
			return err
		}
		defer p.Close()
		direct, proxied = append(direct, d), append(proxied, p)
	}
	fmt.Printf("\n%-34s %12s %10s %10s %14s %14s\n", "naive unary produce, 100 B", "records/s", "p50", "p99", "leader µs/rec", "proxy µs/rec")
	for _, n := range []int{1, 64, 256} {
		var ds, ps []rate
		// The first round warms up connections, caches and the processor.
		for round := range b.rounds + 1 {
			d, err := b.unary(ctx, w, direct, n)
			if err != nil {
				return fmt.Errorf("straight to the leader: %w", err)
			}
			p, err := b.unary(ctx, w, proxied, n)
			if err != nil {
				return fmt.Errorf("through the proxy: %w", err)
			}
			if round > 0 {
				ds, ps = append(ds, d), append(ps, p)
			}
		}
		d, p := medianRate(ds), medianRate(ps)
		row := func(name string, r rate) {
			fmt.Printf("%-34s %12.0f %10s %10s %14.1f %14.1f\n", fmt.Sprintf("  %s, %d at once", name, n), r.perSecond,
				r.p50.Round(10*time.Microsecond), r.p99.Round(10*time.Microsecond), r.leaderCPU, r.proxyCPU)
		}
		row("straight to the leader", d)
		row("through the proxy", p)
		if n == 64 {
			goal("unary-64-proxy/direct", p.perSecond/d.perSecond, 0.8, "", +1)
		}
	}
	return nil
}

// unary produces for one window with n producers, each waiting for its answer.
func (b *bench) unary(ctx context.Context, w *world, conns []grpc.ClientConnInterface, n int) (rate, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	value := make([]byte, 100)
	took := make([][]time.Duration, n)
	errs := make(chan error, n) // one a producer
	leader0, err := w.leader.CPU()
	if err != nil {
		return rate{}, err
	}
	proxy0, err := w.proxy.CPU()
	if err != nil {
		return rate{}, err
	}
	begun := time.Now()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			client := logv1.NewLogClient(conns[i%len(conns)])
			for time.Since(begun) < b.window {
				t := time.Now()
				if _, err := client.Produce(ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: value}}); err != nil {
					errs <- err
					cancel()
					return
				}
				took[i] = append(took[i], time.Since(t))
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(begun)
	select {
	case err := <-errs:
		return rate{}, err
	default:
	}
	leader1, err := w.leader.CPU()
	if err != nil {
		return rate{}, err
	}
	proxy1, err := w.proxy.CPU()
	if err != nil {
		return rate{}, err
	}
	all := slices.Concat(took...)
	slices.Sort(all)
	count := float64(len(all))
	return rate{
		perSecond: count / elapsed.Seconds(),
		p50:       all[len(all)/2],
		p99:       all[len(all)*99/100],
		leaderCPU: float64((leader1 - leader0).Microseconds()) / count,
		proxyCPU:  float64((proxy1 - proxy0).Microseconds()) / count,
	}, nil
}

func medianRate(rs []rate) rate {
	return rate{
		perSecond: median(rs, func(r rate) float64 { return r.perSecond }),
		p50:       time.Duration(median(rs, func(r rate) float64 { return float64(r.p50) })),
		p99:       time.Duration(median(rs, func(r rate) float64 { return float64(r.p99) })),
		leaderCPU: median(rs, func(r rate) float64 { return r.leaderCPU }),
		proxyCPU:  median(rs, func(r rate) float64 { return r.proxyCPU }),
	}
}

func median[T any](xs []T, of func(T) float64) float64 {
	v := make([]float64, len(xs))
	for i, x := range xs {
		v[i] = of(x)
	}
	slices.Sort(v)
	return v[len(v)/2]
}
