package balancetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/balance"
)

// Candidate is a candidate with a load that a test sets.
type Candidate struct {
	Name string
	Load *atomic.Int64
}

// ID implements balance.Candidate.
func (c Candidate) ID() string { return c.Name }

// InFlight implements balance.Candidate.
func (c Candidate) InFlight() int64 { return c.Load.Load() }

// Candidates makes n of them: n0, n1, … without load.
func Candidates(n int) []balance.Candidate {
	cs := make([]balance.Candidate, n)
	for i := range cs {
		cs[i] = Candidate{Name: fmt.Sprintf("n%d", i), Load: new(atomic.Int64)}
	}
	return cs
}

// Suite describes the policy under test.
type Suite struct {
	New func() balance.Policy
	// Empty is set for a policy whose pickers never choose anybody.
	Empty bool
}

// bound is how long a Pick may hang before a test gives up; no claim about speed.
const bound = 30 * time.Second

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
			for _, key := range keys {
				_, ok := s.New().Build(c).Pick(key, nil)
				require.False(t, ok)
			}
		}
	})
	t.Run("everybody skipped", func(t *testing.T) {
		for _, key := range keys {
			_, ok := s.New().Build(Candidates(4)).Pick(key, func(string) bool { return true })
			require.False(t, ok)
		}
	})
	t.Run("chooses one that is not skipped, whenever there is one", s.skips)
	t.Run("leaves nobody out", s.everybody)
	t.Run("a picker keeps to the list it was built from", s.changing)
	t.Run("a picker is used by many while others are built and loads change", s.concurrent)
	t.Run("nobody waits for another's pick", s.blocks)
	t.Run("a pick allocates nothing", s.allocates)
}

// keys are what every policy has to cope with.
var keys = []string{"", "key"}

func (s Suite) skips(t *testing.T) {
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
			for k := range 4 * n {
				i, ok := p.Pick(keys[k%len(keys)], skip)
				require.Equal(t, !s.Empty && mask != 1<<n-1, ok, "n %d mask %b", n, mask)
				if ok {
					require.True(t, 0 <= i && i < n, "n %d mask %b: chose %d", n, mask, i)
					require.Zero(t, mask&(1<<i), "n %d mask %b: chose %d", n, mask, i)
				}
			}
		}
	}
}

// everybody holds that of equals each is chosen, also of those that a skip leaves.
func (s Suite) everybody(t *testing.T) {
	if s.Empty {
		t.Skip("it chooses nobody")
	}
	for n := 1; n <= 5; n++ {
		for refused := range n + 1 { // n: nobody
			p := s.New().Build(Candidates(n))
			skip := func(id string) bool { return id == "n"+strconv.Itoa(refused) }
			seen := make([]int, n)
			for k := range 500 {
				if i, ok := p.Pick(fmt.Sprint("key ", k), skip); ok {
					seen[i]++
				}
			}
			for i, count := range seen {
				require.Equal(t, i != refused, count > 0, "n %d, %d refused: %v", n, refused, seen)
			}
		}
	}
}

func (s Suite) changing(t *testing.T) {
	pol, all := s.New(), Candidates(6)
	rnd := rand.New(rand.NewPCG(1, 2))
	type built struct {
		p          balance.Picker
		list, copy []balance.Candidate
	}
	var pickers []built
	for range 100 {
		list := slices.Clone(all)
		rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		list = list[:rnd.IntN(len(list)+1)]
		pickers = append(pickers, built{pol.Build(list), list, slices.Clone(list)})
		for _, b := range pickers {
			i, ok := b.p.Pick(keys[rnd.IntN(len(keys))], func(id string) bool {
				require.True(t, slices.ContainsFunc(b.list, func(c balance.Candidate) bool { return c.ID() == id }),
					"skip was asked about %q, which is no candidate", id)
				return false
			})
			require.Equal(t, !s.Empty && len(b.list) > 0, ok)
			require.True(t, !ok || 0 <= i && i < len(b.list), "chose %d of %d", i, len(b.list))
		}
	}
	for _, b := range pickers {
		require.Equal(t, b.copy, b.list, "the list was changed, and the caller's indexes with it")
	}
}

func (s Suite) concurrent(t *testing.T) {
	pol, cs := s.New(), Candidates(3)
	p := pol.Build(cs)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			refused := fmt.Sprint("n", g%3)
			for k := range 200 {
				cs[k%3].(Candidate).Load.Add(int64(k%5 - 2))
				i, ok := p.Pick(keys[k%2], func(id string) bool { return id == refused })
				if ok == s.Empty || i < 0 || i >= len(cs) || ok && cs[i].ID() == refused {
					t.Errorf("picked %d, %v; %s was refused", i, ok, refused)
					return
				}
				pol.Build(Candidates(2)).Pick("", nil)
			}
		})
	}
	wg.Wait()
}

// stuck is a candidate that takes as long to tell its load as a test wants.
type stuck struct {
	Candidate
	asked func()
}

func (c stuck) InFlight() int64 { c.asked(); return 0 }

// blocks holds that a pick which is held up in its caller's code, at every place
// where it calls that, holds up nobody else.
func (s Suite) blocks(t *testing.T) {
	for _, where := range []string{"skip", "load"} {
		for _, key := range keys {
			entered, release, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
			hold := sync.OnceFunc(func() { close(entered); <-release })
			asked := func(at string) {
				if at == where {
					hold()
				}
			}
			pol := s.New()
			cs := Candidates(3)
			for i := range cs {
				cs[i] = stuck{cs[i].(Candidate), func() { asked("load") }}
			}
			p := pol.Build(cs)
			go func() { // joined by done
				defer close(done)
				p.Pick(key, func(string) bool { asked("skip"); return false })
			}()
			select {
			case <-entered: // held up
				others := make(chan struct{})
				go func() { // joined by others
					defer close(others)
					for range 8 { // the other callers' own code is quick
						pol.Build(Candidates(3)).Pick(key, nil)
						if where == "skip" {
							p.Pick(key, nil)
						}
					}
				}()
				select {
				case <-others:
				case <-time.After(bound):
					t.Errorf("a pick held up in %s holds up others", where)
				}
				close(release)
				<-others
			case <-done: // it asks nothing there
				close(release)
			case <-time.After(bound):
				t.Errorf("a pick hangs")
				close(release)
			}
			<-done
		}
	}
}

func (s Suite) allocates(t *testing.T) {
	p := s.New().Build(Candidates(4))
	skip := func(id string) bool { return id == "n1" }
	for _, key := range keys {
		for _, skip := range []func(string) bool{nil, skip} {
			require.Zero(t, testing.AllocsPerRun(200, func() { p.Pick(key, skip) }), "key %q", key)
		}
	}
}
