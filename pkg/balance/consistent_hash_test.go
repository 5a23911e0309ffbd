package balance_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/balance"
	"github.com/logd-io/logd/pkg/balance/balancetest"
)

const keys = 10_000

// places tells for each of keys the candidate that it goes to.
func places(t *testing.T, cs []balance.Candidate, skip func(string) bool) (ids []string) {
	t.Helper()
	p := balance.NewConsistentHash().Build(cs)
	for k := range keys {
		i, ok := p.Pick(fmt.Sprint("customer-", k), skip)
		if !ok {
			t.Fatal("nobody was chosen")
		}
		ids = append(ids, cs[i].ID())
	}
	return ids
}

func shares(ids []string) map[string]float64 {
	got := map[string]float64{}
	for _, id := range ids {
		got[id] += 1 / float64(len(ids))
	}
	return got
}

// around says that each of n has its share of the keys, up to four standard
// deviations of as many coins thrown.
func around(t *testing.T, n int, got map[string]float64) {
	t.Helper()
	require.Len(t, got, n)
	p := 1 / float64(n)
	for id, share := range got {
		require.InDelta(t, p, share, 1e-9+4*math.Sqrt(p*(1-p)/keys), id)
	}
}

func TestConsistentHashIsEvenOverKeys(t *testing.T) {
	for n := 1; n <= 7; n++ {
		around(t, n, shares(places(t, balancetest.Candidates(n), nil)))
	}
}

// When a node leaves, the keys that it had move, and no other; when it comes, it
// takes the like from all. That is 1/N of the keys.
func TestConsistentHashMovesTheKeysOfTheNodeThatLeft(t *testing.T) {
	for n := 2; n <= 5; n++ {
		all := balancetest.Candidates(n)
		before := places(t, all, nil)
		for gone := range n {
			rest := slices.Delete(slices.Clone(all), gone, gone+1)
			after := places(t, rest, nil)
			moved := 0
			var to []string
			for k := range before {
				if before[k] == all[gone].ID() {
					moved++
					to = append(to, after[k])
					continue
				}
				if before[k] != after[k] {
					t.Fatalf("key %d moved from %s to %s when %s left", k, before[k], after[k], all[gone].ID())
				}
			}
			require.InDelta(t, 1/float64(n), float64(moved)/keys, 0.02)
			for id, share := range shares(to) { // and they burden the others alike
				require.InDelta(t, 1/float64(n-1), share, 0.05, id)
			}
		}
	}
}

// One that is only skipped, because it is behind, is as if it had left: a key's
// second choice is the same either way.
func TestConsistentHashSkipsLikeLeaving(t *testing.T) {
	all := balancetest.Candidates(4)
	require.Equal(t,
		places(t, slices.Delete(slices.Clone(all), 1, 2), nil),
		places(t, all, func(id string) bool { return id == "n1" }))
}

// Proxies that know of the nodes in another order agree; and so will the next
// version, or every cache is cold after an upgrade.
func TestConsistentHashIsTheSameEverywhere(t *testing.T) {
	all := balancetest.Candidates(5)
	turned := slices.Clone(all)
	slices.Reverse(turned)
	require.Equal(t, places(t, all, nil), places(t, turned, nil))

	p := balance.NewConsistentHash().Build(all)
	var got []int
	for k := range 12 {
		i, _ := p.Pick(fmt.Sprint("customer-", k), nil)
		got = append(got, i)
	}
	require.Equal(t, []int{2, 0, 0, 3, 2, 1, 0, 2, 2, 4, 2, 0}, got)
}

func TestConsistentHashTakesTurnsWithoutAKey(t *testing.T) {
	pol := balance.NewConsistentHash()
	got := make([]int, 3)
	for range 300 {
		i, ok := pol.Build(balancetest.Candidates(3)).Pick("", nil)
		require.True(t, ok)
		got[i]++
	}
	require.Equal(t, []int{100, 100, 100}, got)
}
