package benchkit

import (
	"context"
	"slices"
	"time"
)

// warmUp is how long each contender runs before the first round.
const warmUp = time.Second

// Interleave measures each of n contenders once a round, in turn, since nothing
// but neighbouring measurements can be compared on a machine that is shared.
// Every round begins with the next contender; what came out of the warm-up is
// thrown away. The result is by contender, then by round.
func Interleave[T any](ctx context.Context, s Settings, n int, measure func(ctx context.Context, i int, d time.Duration) (T, error)) ([][]T, error) {
	got := make([][]T, n)
	for i := range n {
		if _, err := measure(ctx, i, min(s.Time, warmUp)); err != nil {
			return nil, err
		}
	}
	for round := range s.Rounds {
		for turn := range n {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			i := (round + turn) % n
			v, err := measure(ctx, i, s.Time)
			if err != nil {
				return nil, err
			}
			got[i] = append(got[i], v)
		}
	}
	return got, nil
}

// Median is the median of what of makes of each x, of two in the middle the
// higher one.
func Median[T any](xs []T, of func(T) float64) float64 {
	v := make([]float64, len(xs))
	for i, x := range xs {
		v[i] = of(x)
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// Ratio is the median of the ratios that the rounds gave, which moves less than
// the ratio of the medians while the machine gets faster and slower.
func Ratio[T any](as, bs []T, of func(T) float64) float64 {
	v := make([]float64, len(as))
	for i := range as {
		v[i] = of(as[i]) / of(bs[i])
	}
	return Median(v, func(f float64) float64 { return f })
}
