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
	t.Run(balance.NameRoundRobin, func(t *testing.T) {
		balancetest.Suite{New: func() balance.Policy { return balance.NewRoundRobin() }}.Run(t)
	})
	t.Run(balance.NameLeader, func(t *testing.T) {
		balancetest.Suite{New: func() balance.Policy { return balance.Leader{} }, Empty: true}.Run(t)
	})
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
	require.ErrorContains(t, err, "leader, round_robin")
}

func TestRoundRobinIsEven(t *testing.T) {
	p := balance.NewRoundRobin().Build(balancetest.Candidates(3))
	got := make([]int, 3)
	for range 300 {
		i, ok := p.Pick("", nil)
		require.True(t, ok)
		got[i]++
	}
	require.Equal(t, []int{100, 100, 100}, got)
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

func BenchmarkRoundRobinPick(b *testing.B) {
	p := balance.NewRoundRobin().Build(balancetest.Candidates(4))
	b.ReportAllocs()
	for b.Loop() {
		p.Pick("", nil)
	}
}
