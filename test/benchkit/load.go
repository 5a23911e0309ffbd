package benchkit

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// Load is what workers got done.
type Load struct {
	Count     int
	PerSecond float64
	P50, P99  time.Duration // of one call
}

// Run lets workers make calls for d, each one at a time, and waits for the last
// answer. The first error of a call ends all of them, and is the error.
func Run(ctx context.Context, workers int, d time.Duration, call func(ctx context.Context, worker int) error) (Load, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	took := make([][]time.Duration, workers)
	begun := time.Now()
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			for t := time.Now(); t.Sub(begun) < d; {
				if err := call(ctx, i); err != nil {
					cancel(err)
					return
				}
				now := time.Now()
				took[i] = append(took[i], now.Sub(t))
				t = now
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(begun)
	if ctx.Err() != nil {
		return Load{}, context.Cause(ctx)
	}
	all := slices.Concat(took...)
	if len(all) == 0 {
		return Load{}, errors.New("nothing was done in the time")
	}
	slices.Sort(all)
	return Load{
		Count:     len(all),
		PerSecond: float64(len(all)) / elapsed.Seconds(),
		P50:       all[len(all)/2],
		P99:       all[len(all)*99/100],
	}, nil
}

// Done is what count records that were handled since begun make, when their
// single times say nothing.
func Done(count int, begun time.Time) Load {
	return Load{Count: count, PerSecond: float64(count) / time.Since(begun).Seconds()}
}
