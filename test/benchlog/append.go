package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/logd-io/logd/test/benchkit"
)

// slice is how long a store appends before it is the next one's turn.
const slice = 100 * time.Millisecond

// records makes n different records, which no disk compresses.
func records(n, size int) [][]byte {
	r := rand.NewChaCha8([32]byte{})
	out := make([][]byte, n)
	for i := range out {
		out[i] = make([]byte, size)
		_, _ = r.Read(out[i]) // never fails
	}
	return out
}

// append measures durable appends: the records of a call are entries of their own.
func (b *bench) append(ctx context.Context) error {
	cases := []struct {
		size, batch int
		target      float64
	}{{100, 1, 0.95}, {100, 64, 0.85}, {1024, 64, 0.85}}
	for _, c := range cases {
		fmt.Printf("\nappend and sync, %d records of %d B a call    records/s    × raw\n", c.batch, c.size)
		rates := make([][]float64, len(contenders))
		ratios := make([][]float64, len(contenders))
		for range b.Rounds {
			round, err := b.appendRound(ctx, c.size, c.batch)
			if err != nil {
				return err
			}
			for i, r := range round {
				rates[i] = append(rates[i], r)
				ratios[i] = append(ratios[i], r/round[theRaw])
			}
		}
		for i := range contenders {
			fmt.Printf("  %-42s %11.0f %8.2f\n", contenders[i].name, median(rates[i]), median(ratios[i]))
		}
		benchkit.Goal.AtLeast(fmt.Sprintf("append-%dBx%d/raw", c.size, c.batch), median(ratios[theOurs]), c.target, "")
	}
	return nil
}

// appendRound gives every store slices in turn and returns their rates.
func (b *bench) appendRound(ctx context.Context, size, batch int) (rates []float64, err error) {
	dir, remove, err := b.temp()
	if err != nil {
		return nil, err
	}
	defer remove()
	stores := make([]store, len(contenders))
	for i := range stores {
		if stores[i], err = fresh(dir, i); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, stores[i].Close()) }()
	}
	in := records(batch, size)
	took := make([]time.Duration, len(stores))
	calls := make([]int, len(stores))
	for began := time.Now(); time.Since(began) < b.Time && ctx.Err() == nil; {
		for i, s := range stores {
			for turn := time.Now(); time.Since(turn) < slice; {
				call := time.Now()
				if err := s.append(in); err != nil {
					return nil, fmt.Errorf("%s: %w", contenders[i].name, err)
				}
				took[i] += time.Since(call)
				calls[i]++
			}
		}
	}
	rates = make([]float64, len(stores))
	for i := range rates {
		rates[i] = float64(calls[i]*batch) / took[i].Seconds()
	}
	return rates, context.Cause(ctx)
}
