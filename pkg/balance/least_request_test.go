package balance_test

import (
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/balance"
	"github.com/logd-io/logd/pkg/balance/balancetest"
)

func load(c balance.Candidate) *atomic.Int64 { return c.(balancetest.Candidate).Load }

// seeded is least_request with a chance that is the same in every run.
func seeded() balance.Policy {
	return balance.NewLeastRequestBy(rand.NewPCG(1, 2).Uint64)
}

func TestLeastRequestOfTwoTakesTheLessLoaded(t *testing.T) {
	cs := balancetest.Candidates(2)
	p := seeded().Build(cs)
	load(cs[0]).Store(1)
	require.Equal(t, []int{0, 100}, counts(t, p, 2, 100, nil))
	load(cs[1]).Store(2)
	require.Equal(t, []int{100, 0}, counts(t, p, 2, 100, nil))
}

func TestLeastRequestOfManyAvoidsTheMostLoaded(t *testing.T) {
	cs := balancetest.Candidates(5)
	p := seeded().Build(cs)
	load(cs[2]).Store(7)
	got := counts(t, p, 5, 1000, nil)
	require.Zero(t, got[2], "it loses against whomever it is drawn with")
	require.Zero(t, counts(t, p, 5, 1000, func(id string) bool { return id == "n0" })[2])
}

func TestLeastRequestIsEvenAmongEquals(t *testing.T) {
	for n := 2; n <= 5; n++ {
		p := seeded().Build(balancetest.Candidates(n))
		for _, c := range counts(t, p, n, 10_000, nil) {
			require.InDelta(t, 10_000/n, c, 300)
		}
		got := counts(t, p, n, 10_000, func(id string) bool { return id == "n0" })
		require.Zero(t, got[0])
		for _, c := range got[1:] {
			require.InDelta(t, 10_000/(n-1), c, 300)
		}
	}
}

// queues is a model of followers that each serve one read after the other, and of
// proxies in front of them that know of their own reads only. Its time is its own.
type queues struct {
	service []time.Duration // mean time of a read on each follower
	proxies int
	every   time.Duration // mean time between two reads, of all proxies together
}

// run lets n reads come in and answers how long the slowest of a hundred took, and
// how many each follower got.
func (q queues) run(n int, policy func() balance.Policy) (p99 time.Duration, got []int) {
	rnd := rand.New(rand.NewPCG(3, 4))
	type read struct {
		leaves time.Duration
		load   *atomic.Int64
	}
	nodes := make([][]read, len(q.service)) // what each has to do, in order
	free := make([]time.Duration, len(q.service))
	loads := make([][]balance.Candidate, q.proxies)
	pickers := make([]balance.Picker, q.proxies)
	for i := range pickers {
		loads[i] = balancetest.Candidates(len(q.service))
		pickers[i] = policy().Build(loads[i])
	}
	got = make([]int, len(q.service))
	took := make([]time.Duration, n)
	var now time.Duration
	for k := range n {
		now += time.Duration(rnd.ExpFloat64() * float64(q.every))
		for i := range nodes {
			for len(nodes[i]) > 0 && nodes[i][0].leaves <= now {
				nodes[i][0].load.Add(-1)
				nodes[i] = nodes[i][1:]
			}
		}
		proxy := rnd.IntN(q.proxies)
		i, _ := pickers[proxy].Pick("", nil)
		free[i] = max(free[i], now) + time.Duration(rnd.ExpFloat64()*float64(q.service[i]))
		l := load(loads[proxy][i])
		l.Add(1)
		nodes[i] = append(nodes[i], read{free[i], l})
		got[i]++
		took[k] = free[i] - now
	}
	slices.Sort(took)
	return took[n*99/100], got
}

// One follower of the usual two, or of more, has become slow: it still keeps up,
// narrowly, with the share that round robin gives it.
func TestLeastRequestHasAShorterTailThanRoundRobin(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name  string
		q     queues
		times time.Duration // how often the tail of round robin is longer, at least
	}{
		{"two followers", queues{[]time.Duration{ms, 4 * ms}, 1, 2222 * time.Microsecond}, 4},
		{"three followers", queues{[]time.Duration{ms, ms, 4 * ms}, 1, 1481 * time.Microsecond}, 4},
		{"three, and four proxies", queues{[]time.Duration{ms, ms, 4 * ms}, 4, 1481 * time.Microsecond}, 4},
		{"all are quick, and no harm is done", queues{[]time.Duration{ms, ms, ms}, 1, 500 * time.Microsecond}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := c.q
			const n = 60_000
			turns, evenly := q.run(n, func() balance.Policy { return balance.NewRoundRobin() })
			least, spread := q.run(n, func() balance.Policy { return seeded() })
			t.Logf("p99: round_robin %v %v, least_request %v %v", turns, evenly, least, spread)
			require.Less(t, c.times*least, turns)
		})
	}
}
