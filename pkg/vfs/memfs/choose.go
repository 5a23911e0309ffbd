package memfs

import "math/rand/v2"

// A Chooser makes the decisions that a crash leaves open: which of n things
// happened, 0 to n-1. Of what may be lost, 0 is that all of it was.
type Chooser interface {
	Choose(n int) int
}

// Random chooses by chance. The seed decides all of it.
func Random(seed uint64) Chooser { return &random{rand.NewPCG(seed, 0x6c6f6764)} }

type random struct{ pcg *rand.PCG }

func (r *random) Choose(n int) int {
	if n <= 1 {
		return 0
	}
	return int((r.pcg.Uint64() >> 32) * uint64(n) >> 32)
}

// Every chooses everything in turn: a caller that makes one crash with it
// after each Next that is true makes every crash there is.
type Every struct {
	chosen, of []int // the decisions of this round, and how many ways each could go
	at         int   // decisions made in this round
	begun      bool
}

// Next moves on to the next round; false when there was every one.
func (e *Every) Next() bool {
	e.at = 0
	if !e.begun {
		e.begun = true
		return true
	}
	for i := len(e.chosen) - 1; i >= 0; i-- {
		if e.chosen[i]++; e.chosen[i] < e.of[i] {
			e.chosen, e.of = e.chosen[:i+1], e.of[:i+1]
			return true
		}
	}
	return false
}

// Choose implements [Chooser].
func (e *Every) Choose(n int) int {
	if n <= 1 {
		return 0
	}
	if e.at == len(e.chosen) {
		e.chosen, e.of = append(e.chosen, 0), append(e.of, n)
	}
	e.at++
	return e.chosen[e.at-1]
}
