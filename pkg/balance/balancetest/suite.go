package balancetest

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/balance"
)

// Candidate is a candidate with a fixed load.
type Candidate struct {
	Name string
	Load int64
}

// ID implements balance.Candidate.
func (c Candidate) ID() string { return c.Name }

// InFlight implements balance.Candidate.
func (c Candidate) InFlight() int64 { return c.Load }

// Candidates makes n of them: n0, n1, …
func Candidates(n int) []balance.Candidate {
	cs := make([]balance.Candidate, n)
	for i := range cs {
		cs[i] = Candidate{Name: fmt.Sprintf("n%d", i)}
	}
	return cs
}

// Suite describes the policy under test.
type Suite struct {
	New func() balance.Policy
	// Empty is set for a policy whose pickers never choose anybody.
	Empty bool
}

// Run runs the suite.
func (s Suite) Run(t *testing.T) {
	t.Run("has the name it is found by", func(t *testing.T) {
		p := s.New()
		again, err := balance.ByName(p.Name())
		require.NoError(t, err)
		require.IsType(t, p, again)
		require.Contains(t, balance.Names(), p.Name())
	})
	t.Run("nobody to choose from", func(t *testing.T) {
		for _, c := range [][]balance.Candidate{nil, {}} {
			_, ok := s.New().Build(c).Pick("key", nil)
			require.False(t, ok)
		}
	})
	t.Run("everybody skipped", func(t *testing.T) {
		_, ok := s.New().Build(Candidates(4)).Pick("key", func(string) bool { return true })
		require.False(t, ok)
	})
	t.Run("chooses one that is not skipped, whenever there is one", func(t *testing.T) {
		for n := 1; n <= 5; n++ {
			cs := Candidates(n)
			p := s.New().Build(cs)
			for mask := range 1 << n { // bit i set: candidate i is skipped
				skip := func(id string) bool {
					for i := range cs {
						if cs[i].ID() == id {
							return mask&(1<<i) != 0
						}
					}
					t.Errorf("skip was asked about %q, which is no candidate", id)
					return true
				}
				for range 2 * n {
					i, ok := p.Pick("key", skip)
					require.Equal(t, !s.Empty && mask != 1<<n-1, ok, "n %d mask %b", n, mask)
					if ok {
						require.Zero(t, mask&(1<<i), "n %d mask %b: chose %d", n, mask, i)
					}
				}
			}
		}
	})
	t.Run("a picker is used by many while others are built", func(t *testing.T) {
		pol, cs := s.New(), Candidates(3)
		p := pol.Build(cs)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 200 {
					if i, ok := p.Pick("key", nil); ok == s.Empty || i < 0 || i >= len(cs) {
						t.Errorf("picked %d, %v", i, ok)
						return
					}
					pol.Build(Candidates(2)).Pick("", nil)
				}
			})
		}
		wg.Wait()
	})
}
