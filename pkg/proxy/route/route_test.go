package route_test

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/logd-io/logd/pkg/balance"
	"github.com/logd-io/logd/pkg/proxy/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type node string

func (n node) ID() string                     { return string(n) }
func (n node) InFlight() int64                { return 0 }
func (n node) Addr() string                   { return string(n) + ":8400" }
func (n node) Conn() grpc.ClientConnInterface { return nil }
func (n node) Acquire() func()                { return func() {} }
func (n node) Answered()                      {}

func skipping(ids ...string) func(string) bool {
	return func(id string) bool {
		for _, s := range ids {
			if s == id {
				return true
			}
		}
		return false
	}
}

func TestPickReader(t *testing.T) {
	lead, f1, f2 := node("lead"), node("f1"), node("f2")
	for _, c := range []struct {
		name      string
		leader    route.Upstream
		followers []route.Upstream
		policy    balance.Policy
		skip      func(string) bool
		want      []string // any of them; none: nobody
	}{
		{"a follower", lead, []route.Upstream{f1, f2}, balance.NewRoundRobin(), nil, []string{"f1", "f2"}},
		{"the other follower", lead, []route.Upstream{f1, f2}, balance.NewRoundRobin(), skipping("f1"), []string{"f2"}},
		{"the leader when all followers are skipped", lead, []route.Upstream{f1, f2}, balance.NewRoundRobin(), skipping("f1", "f2"), []string{"lead"}},
		{"the leader when there is no follower", lead, nil, balance.NewRoundRobin(), nil, []string{"lead"}},
		{"the leader by policy", lead, []route.Upstream{f1, f2}, balance.Leader{}, nil, []string{"lead"}},
		{"the leader without a policy", lead, []route.Upstream{f1, f2}, nil, nil, []string{"lead"}},
		{"a follower while there is no leader", nil, []route.Upstream{f1}, balance.NewRoundRobin(), nil, []string{"f1"}},
		{"nobody when all are skipped", lead, []route.Upstream{f1, f2}, balance.NewRoundRobin(), skipping("f1", "f2", "lead"), nil},
		{"nobody when there is nobody", nil, nil, balance.NewRoundRobin(), nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			tab := route.New(route.Spec{Leader: c.leader, Followers: c.followers, Policy: c.policy})
			for range 4 {
				u, ok := tab.PickReader("", c.skip)
				require.Equal(t, c.want != nil, ok)
				if ok {
					require.Contains(t, c.want, u.ID())
				}
			}
		})
	}
}

func TestHolderBeginsWithAnEmptyTable(t *testing.T) {
	var h route.Holder
	first := h.Load()
	require.NotNil(t, first)
	require.Nil(t, first.Leader)
	require.Same(t, first, h.Load())

	h.Publish(route.New(route.Spec{Term: 1}))
	<-first.Superseded()
	require.EqualValues(t, 1, h.Load().Term)
}

func TestPublishSupersedesOnlyTheOldTable(t *testing.T) {
	var h route.Holder
	a, b := route.New(route.Spec{Term: 1}), route.New(route.Spec{Term: 2})
	h.Publish(a)
	require.Same(t, a, h.Load())
	h.Publish(b)
	<-a.Superseded()
	select {
	case <-b.Superseded():
		t.Fatal("the newest table is superseded")
	default:
	}
	h.Publish(b)
	select {
	case <-b.Superseded():
		t.Fatal("a table superseded itself")
	default:
	}
}

// A waiter that follows Load's advice sees the last table, however publishing
// and waiting interleave.
func TestNoPublishIsMissed(t *testing.T) {
	const last = 500
	var h route.Holder
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				tab := h.Load()
				if tab.Term == last {
					return
				}
				<-tab.Superseded()
			}
		})
	}
	for term := range uint64(last) {
		h.Publish(route.New(route.Spec{Term: term + 1}))
	}
	wg.Wait()
}
