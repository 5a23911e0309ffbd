package balance_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/logd-io/logd/pkg/balance"
	"github.com/logd-io/logd/pkg/balance/balancetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	for _, name := range balance.Names() {
		t.Run(name, func(t *testing.T) {
			balancetest.Suite{
				New: func() balance.Policy {
					p, err := balance.ByName(name)
					require.NoError(t, err)
					return p
				},
				Empty: name == balance.NameLeader,
			}.Run(t)
		})
	}
}

func TestEveryNamedPolicyExists(t *testing.T) {
	for _, name := range balance.Names() {
		p, err := balance.ByName(name)
		require.NoError(t, err)
		require.Equal(t, name, p.Name())
	}
	_, err := balance.ByName("astrology")
	var unknown *balance.UnknownPolicyError
	require.ErrorAs(t, err, &unknown)
	require.Equal(t, "astrology", unknown.Name)
	require.ErrorContains(t, err, "consistent_hash, leader, least_request, round_robin")
}

// counts picks n times and tells how often each candidate was chosen.
func counts(t *testing.T, p balance.Picker, of, n int, skip func(string) bool) []int {
	t.Helper()
	got := make([]int, of)
	for range n {
		i, ok := p.Pick("", skip)
		require.True(t, ok)
		got[i]++
	}
	return got
}

func TestRoundRobinIsEven(t *testing.T) {
	p := balance.NewRoundRobin().Build(balancetest.Candidates(3))
	require.Equal(t, []int{100, 100, 100}, counts(t, p, 3, 300, nil))
}

// A new table comes with a new picker several times a second while a cluster
// changes; the round must not begin again each time.
func TestRoundRobinGoesOnOverNewPickers(t *testing.T) {
	pol := balance.NewRoundRobin()
	got := make([]int, 3)
	for range 300 {
		i, ok := pol.Build(balancetest.Candidates(3)).Pick("", nil)
		require.True(t, ok)
		got[i]++
	}
	require.Equal(t, []int{100, 100, 100}, got)
}

// A candidate that every call skips, a follower that is behind for instance, does
// not double the load of the one next to it.
func TestRoundRobinIsEvenOverThoseThatAreLeft(t *testing.T) {
	for _, c := range []struct {
		skip []string
		want []int
	}{
		{[]string{"n0"}, []int{0, 400, 400, 400}},
		{[]string{"n3"}, []int{400, 400, 400, 0}},
		{[]string{"n0", "n1"}, []int{0, 0, 600, 600}},
		{[]string{"n0", "n2"}, []int{0, 600, 0, 600}},
		{[]string{"n0", "n2", "n3"}, []int{0, 1200, 0, 0}},
	} {
		p := balance.NewRoundRobin().Build(balancetest.Candidates(4))
		got := counts(t, p, 4, 1200, func(id string) bool {
			for _, s := range c.skip {
				if s == id {
					return true
				}
			}
			return false
		})
		require.Equal(t, c.want, got, "%v are skipped", c.skip)
	}
}

func BenchmarkPick(b *testing.B) {
	for _, name := range balance.Names() {
		b.Run(name, func(b *testing.B) {
			pol, err := balance.ByName(name)
			require.NoError(b, err)
			p := pol.Build(balancetest.Candidates(4))
			skip := func(string) bool { return false }
			b.ReportAllocs()
			for b.Loop() {
				p.Pick("a key of some length", skip)
			}
		})
	}
}
