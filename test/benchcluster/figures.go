package main

import (
	"context"
	"fmt"
	"time"

	"github.com/logd-io/logd/test/benchkit"
)

// The contenders.
const (
	direct    = "logd"
	proxied   = "logd-by-proxy"
	jetStream = "jetstream"
	etcd      = "etcd"
)

// unary measures clients that write one record at a time.
func (b *bench) unary(ctx context.Context) error {
	fmt.Printf("\none record a call over %d connections; CPU in µs a record\n", b.conns)
	for _, size := range benchkit.Sizes {
		for _, n := range []int{1, 64, 256} {
			title := fmt.Sprintf("%s, %d at once", benchkit.SizeName(size), n)
			all := func(*contender) bool { return true }
			results, err := b.compare(ctx, title, all, func(ctx context.Context, c *contender, d time.Duration) (benchkit.Load, error) {
				return c.counted(ctx, func() (benchkit.Load, error) { return c.calls(ctx, n, size, d) })
			})
			if err != nil {
				return err
			}
			bound := func(kind benchkit.Kind, what string, of func(benchkit.Result) float64, us, them string, least, most float64) {
				results.Hold(benchkit.Bound{
					Kind: kind, Name: fmt.Sprintf("unary-%s-%d-%s", benchkit.SizeName(size), n, what),
					Of: of, Us: us, Them: them, AtLeast: least, AtMost: most,
				})
			}
			if n == 1 {
				bound(benchkit.Goal, "p50", benchkit.P50, direct, jetStream, 0, 1)
				bound(benchkit.Next, "p50", benchkit.P50, proxied, jetStream, 0, 1)
				continue
			}
			bound(benchkit.Goal, "rate", benchkit.PerSecond, proxied, jetStream, 1, 0)
			bound(benchkit.Goal, "rate", benchkit.PerSecond, proxied, etcd, 2, 0)
		}
	}
	return nil
}

func (c *contender) calls(ctx context.Context, n, size int, d time.Duration) (benchkit.Load, error) {
	records := make([]benchkit.Record, n)
	for i := range records {
		records[i] = benchkit.NewRecord(i, size)
	}
	return benchkit.Run(ctx, n, d, func(ctx context.Context, i int) error {
		records[i].Next()
		return c.write(ctx, i, records[i])
	})
}

// produceStream measures one client that does not wait for each answer.
func (b *bench) produceStream(ctx context.Context) error {
	fmt.Print("\none client with 1,024 records in flight; CPU in µs a record\n")
	for _, size := range benchkit.Sizes {
		streams := func(c *contender) bool { return c.stream != nil }
		results, err := b.compare(ctx, benchkit.SizeName(size), streams, func(ctx context.Context, c *contender, d time.Duration) (benchkit.Load, error) {
			return c.counted(ctx, func() (benchkit.Load, error) {
				begun := time.Now()
				acked, err := c.stream(ctx, size, func(int) bool { return time.Since(begun) < d })
				return benchkit.Done(acked, begun), err
			})
		})
		if err != nil {
			return err
		}
		name := "produce-stream-" + benchkit.SizeName(size)
		results.Hold(
			benchkit.Bound{Kind: benchkit.Goal, Name: name, Of: benchkit.PerSecond, Us: direct, Them: jetStream, AtLeast: 2},
			benchkit.Bound{Kind: benchkit.Goal, Name: name, Of: benchkit.PerSecond, Us: proxied, Them: jetStream, AtLeast: 2},
		)
	}
	return nil
}

// readRate is roughly how many records a second a consumer reads; with it the
// logs are long enough for a measurement.
var readRate = map[int]int{100: 400_000, 1024: 200_000}

// consumeStream measures one client that reads in order, over and over.
func (b *bench) consumeStream(ctx context.Context) error {
	fmt.Print("\none client that reads in order, logd's from a follower; CPU in µs a record\n")
	for _, size := range benchkit.Sizes {
		n := int(float64(readRate[size]) * b.Time.Seconds())
		from := make(map[string]uint64)
		filled := make(map[string]bool) // by the cluster's first server: two ways lead to logd's
		for _, c := range b.contenders {
			if c.read == nil {
				continue
			}
			cluster := c.servers[0].Name
			if !filled[cluster] {
				if _, err := c.stream(ctx, size, func(sent int) bool { return sent < n }); err != nil {
					return fmt.Errorf("fill the log of %s: %w", c.name, err)
				}
				filled[cluster] = true
			}
			end, err := c.written(ctx)
			if err != nil {
				return err
			}
			from[c.name] = end - uint64(n)
		}
		reads := func(c *contender) bool { return c.read != nil }
		results, err := b.compare(ctx, benchkit.SizeName(size), reads, func(ctx context.Context, c *contender, _ time.Duration) (benchkit.Load, error) {
			begun := time.Now()
			err := c.read(ctx, from[c.name], n)
			return benchkit.Done(n, begun), err
		})
		if err != nil {
			return err
		}
		name := "consume-stream-" + benchkit.SizeName(size)
		for _, us := range []string{direct, proxied} {
			results.Hold(
				benchkit.Bound{Kind: benchkit.Goal, Name: name, Of: benchkit.PerSecond, Us: us, Them: jetStream, AtLeast: 1},
				benchkit.Bound{Kind: benchkit.Next, Name: name, Of: benchkit.PerSecond, Us: us, Them: jetStream, AtLeast: 2},
			)
		}
	}
	return nil
}
