package autopilot_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/autopilot"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/membership"
	"github.com/logd-io/logd/pkg/replica"
)

func TestMain(m *testing.M) { testutil.VerifyMain(m) }

const (
	idA = "a.00000001"
	idB = "b.00000002"
	idC = "c.00000003"
	idD = "d.00000004"
)

// noState is a state machine that keeps nothing.
type noState struct{}

func (noState) Apply(*raft.Log) any                 { return nil }
func (noState) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("no snapshots") }
func (noState) Restore(r io.ReadCloser) error       { return r.Close() }

// group is one leader and a real second server, in memory.
type group struct {
	t             *testing.T
	leader        *raft.Raft
	grace         time.Duration // of the dead; 0: autopilot's default
	stabilization time.Duration // 0: short
	servers       map[string]*raft.Raft

	mu      sync.Mutex
	members []membership.Member
	behind  map[string]bool // says it is behind, whatever is true
	silent  map[string]bool // does not answer
	asked   map[string]int
}

func newGroup(t *testing.T, voters []string, running ...string) *group {
	g := &group{t: t, servers: make(map[string]*raft.Raft), behind: make(map[string]bool), silent: make(map[string]bool), asked: make(map[string]int)}
	trans := make(map[string]*raft.InmemTransport)
	for _, id := range running {
		_, trans[id] = raft.NewInmemTransport(raft.ServerAddress(id))
		for other, tr := range trans {
			tr.Connect(raft.ServerAddress(id), trans[id])
			trans[id].Connect(raft.ServerAddress(other), tr)
		}
	}
	for i, id := range running {
		conf := raft.DefaultConfig()
		conf.LocalID = raft.ServerID(id)
		conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = 300*time.Millisecond, 300*time.Millisecond, 300*time.Millisecond
		conf.CommitTimeout = 5 * time.Millisecond
		conf.Logger = hclog.NewNullLogger()
		store, snaps := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
		if i == 0 {
			var servers []raft.Server
			for _, v := range voters {
				servers = append(servers, raft.Server{ID: raft.ServerID(v), Address: raft.ServerAddress(v)})
			}
			require.NoError(t, raft.BootstrapCluster(conf, store, store, snaps, trans[id], raft.Configuration{Servers: servers}))
		}
		r, err := raft.NewRaft(conf, noState{}, store, store, snaps, trans[id])
		require.NoError(t, err)
		g.servers[id] = r
		t.Cleanup(func() { require.NoError(t, r.Shutdown().Error()) })
	}
	g.leader = g.servers[running[0]]
	testutil.Eventually(t, time.Minute, func() error {
		if s := g.leader.State(); s != raft.Leader {
			return fmt.Errorf("the first server is %s", s)
		}
		return nil
	})
	return g
}

// The replica of the leader, as far as a Pilot looks.

func (g *group) View() replica.View {
	f := g.leader.GetConfiguration()
	require.NoError(g.t, f.Error())
	v := replica.View{Term: g.leader.CurrentTerm(), LeaderID: idA, IsLeader: g.leader.State() == raft.Leader}
	for _, s := range f.Configuration().Servers {
		v.Peers = append(v.Peers, replica.Peer{ID: string(s.ID), Voter: s.Suffrage == raft.Voter})
	}
	return v
}
func (g *group) Changes() <-chan struct{} { return make(chan struct{}) }
func (g *group) Raft() *raft.Raft         { return g.leader }
func (g *group) Stats() replica.Stats {
	return replica.Stats{LastIndex: g.leader.LastIndex(), LastTerm: g.leader.CurrentTerm()}
}

func (g *group) RemovePeer(_ context.Context, id string) error {
	return g.leader.RemoveServer(raft.ServerID(id), 0, time.Minute).Error()
}

func (g *group) stats(_ context.Context, id string) (autopilot.Stats, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked[id]++
	r := g.servers[id]
	switch {
	case r == nil || g.silent[id]:
		return autopilot.Stats{}, errors.New("it does not run")
	case g.behind[id]:
		return autopilot.Stats{LastTerm: g.leader.CurrentTerm()}, nil
	}
	return autopilot.Stats{LastContact: time.Since(r.LastContact()), LastIndex: r.LastIndex(), LastTerm: r.CurrentTerm()}, nil
}

func (g *group) Members() []membership.Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.members
}

func (g *group) set(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
}

func (g *group) fly() *autopilot.Pilot {
	stabilization := 100 * time.Millisecond
	if g.stabilization > 0 {
		stabilization = g.stabilization
	}
	p := autopilot.New(autopilot.Config{
		ID: idA, Replica: g, Members: g.Members, Stats: g.stats,
		Update: 20 * time.Millisecond, Reconcile: 20 * time.Millisecond, Stabilization: stabilization,
		Grace: g.grace, MinQuorum: 1,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	g.t.Cleanup(func() {
		cancel()
		require.NoError(g.t, <-done)
	})
	return p
}

func (g *group) peers() map[string]bool {
	m := make(map[string]bool)
	for _, p := range g.View().Peers {
		m[p.ID] = p.Voter
	}
	return m
}

// rounds waits until the pilot has looked at id n more times.
func (g *group) rounds(id string, n int) {
	g.t.Helper()
	var from int
	g.set(func() { from = g.asked[id] })
	testutil.Eventually(g.t, time.Minute, func() error {
		g.mu.Lock()
		defer g.mu.Unlock()
		if got := g.asked[id] - from; got < n {
			return fmt.Errorf("%s was asked %d times", id, got)
		}
		return nil
	})
}

func alive(id string, role membership.Role) membership.Member {
	return membership.Member{ID: id, Role: role, State: membership.Alive}
}

func TestNonVoterIsPromotedWhenItHasCaughtUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, []string{idA}, idA, idB)
		g.set(func() {
			g.members = []membership.Member{alive(idA, membership.RoleStorage), alive(idB, membership.RoleStorage)}
			g.behind[idB] = true
		})
		for range 300 { // more than a healthy node may lack
			require.NoError(t, g.leader.Apply([]byte("x"), time.Minute).Error())
		}
		require.NoError(t, g.leader.AddNonvoter(idB, idB, 0, time.Minute).Error())
		g.fly()
		g.rounds(idB, 20)
		require.Equal(t, map[string]bool{idA: true, idB: false}, g.peers(), "it is behind")

		g.set(func() { g.behind[idB] = false })
		testutil.Eventually(t, time.Minute, func() error {
			if !g.peers()[idB] {
				return errors.New("not promoted")
			}
			return nil
		})
	})
}

// Defect 6 of the prior art: a failed member lost its vote at once.
func TestDefect06FailedMemberIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, []string{idA, idB}, idA, idB)
		require.NoError(t, g.leader.AddNonvoter(idC, idC, 0, time.Minute).Error())
		require.NoError(t, g.leader.AddNonvoter(idD, idD, 0, time.Minute).Error())
		before := g.peers()
		failed := membership.Member{ID: idB, Role: membership.RoleStorage, State: membership.Failed}
		left := membership.Member{ID: idC, Role: membership.RoleStorage, State: membership.Left}
		// d was never seen in gossip, and the leader's own event is late. A live
		// member that does not run Raft shows that rounds go on.
		g.set(func() { g.members = []membership.Member{failed, left} })
		g.fly()
		g.set(func() { g.members = []membership.Member{failed, left, alive(idD, membership.RoleStorage)} })
		g.rounds(idD, 30)
		require.Equal(t, before, g.peers())
	})
}

// A dead server leaves once its grace is over and another is promoted in its place.
func TestADeadServerIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, []string{idA, idB}, idA, idB, idC)
		g.grace = 100 * time.Millisecond
		all := []membership.Member{alive(idA, membership.RoleStorage), alive(idB, membership.RoleStorage), alive(idC, membership.RoleStorage)}
		g.set(func() { g.members = all })
		g.fly()
		g.rounds(idB, 30)
		for range 300 { // more than a healthy node may lack
			require.NoError(t, g.leader.Apply([]byte("x"), time.Minute).Error())
		}
		all = slices.Clone(all)
		all[1].State = membership.Failed
		g.set(func() { g.members = all; g.behind[idC] = true; g.silent[idB] = true })
		require.NoError(t, g.leader.AddNonvoter(idC, idC, 0, time.Minute).Error())
		g.rounds(idC, 30)
		require.Equal(t, map[string]bool{idA: true, idB: true, idC: false}, g.peers(), "nobody does its part")

		g.set(func() { g.behind[idC] = false })
		testutil.Eventually(t, time.Minute, func() error {
			if got := g.peers(); !maps.Equal(got, map[string]bool{idA: true, idC: true}) {
				return fmt.Errorf("%v", got)
			}
			return nil
		})
	})
}

// Gossip sees a voter fail that answers all the same, and does its part in Raft: it
// stays, though another could do its part, until it does not answer either.
func TestAServerThatAnswersIsNotDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, []string{idA, idB, idC, idD}, idA, idB, idC, idD)
		g.grace = 50 * time.Millisecond
		all := []membership.Member{
			alive(idA, membership.RoleStorage), alive(idB, membership.RoleStorage),
			alive(idC, membership.RoleStorage), alive(idD, membership.RoleStorage),
		}
		all[1].State = membership.Failed
		g.set(func() { g.members = all })
		g.fly()
		g.rounds(idB, 30)
		g.rounds(idC, 30)
		require.Equal(t, map[string]bool{idA: true, idB: true, idC: true, idD: true}, g.peers())

		g.set(func() { g.silent[idB] = true })
		testutil.Eventually(t, time.Minute, func() error {
			if got := g.peers(); !maps.Equal(got, map[string]bool{idA: true, idC: true, idD: true}) {
				return fmt.Errorf("%v", got)
			}
			return nil
		})
	})
}

// Those who have restarted since a voter died do not know it in gossip, and hear nothing of
// it: it is removed all the same once it has been silent for the whole grace, since this
// node leads and without a break. While it answers it is one that gossip is late with, and
// stays however long that takes.
func TestADeadServerThatGossipDoesNotKnowIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := []string{idA, idB, idC, idD}
		g := newGroup(t, all, all...)
		g.grace = time.Minute
		g.set(func() {
			g.members = []membership.Member{alive(idA, membership.RoleStorage), alive(idC, membership.RoleStorage), alive(idD, membership.RoleStorage)}
			g.silent[idB] = true
		})
		voters := map[string]bool{idA: true, idB: true, idC: true, idD: true}
		p := g.fly()
		dead := func() time.Duration {
			for _, s := range p.State().Servers {
				if s.ID == idB {
					require.Equal(t, "unknown", s.Gossip)
					return s.Dead
				}
			}
			return -1
		}
		// The leader was elected a moment ago, and knows nothing of what was before.
		time.Sleep(g.grace - time.Second)
		require.Equal(t, voters, g.peers())
		require.Positive(t, dead())
		for _, s := range p.State().Servers {
			require.Equal(t, s.ID == idB, s.LastContact < 0, "who never answered has no last contact, and none is not 0: %+v", s)
		}
		require.LessOrEqual(t, dead(), g.grace-time.Second)

		g.set(func() { g.silent[idB] = false })
		time.Sleep(3 * g.grace)
		require.Equal(t, voters, g.peers(), "it answers")
		require.Zero(t, dead())

		g.set(func() { g.silent[idB] = true })
		time.Sleep(g.grace - time.Second)
		require.Equal(t, voters, g.peers(), "its grace has begun again")
		time.Sleep(2 * time.Second)
		require.Equal(t, map[string]bool{idA: true, idC: true, idD: true}, g.peers())
	})
}

// A non-voter that is healthy again and again, and never for long, is not promoted
// however long that goes on; once it is healthy for long enough, it is.
func TestANonVoterThatComesAndGoesIsNotPromoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, []string{idA}, idA, idB)
		g.stabilization = 5 * time.Second
		g.set(func() {
			g.members = []membership.Member{alive(idA, membership.RoleStorage), alive(idB, membership.RoleStorage)}
		})
		for range 300 { // more than a healthy node may lack
			require.NoError(t, g.leader.Apply([]byte("x"), time.Minute).Error())
		}
		g.set(func() { g.behind[idB] = true })
		g.fly()
		require.NoError(t, g.leader.AddNonvoter(idB, idB, 0, time.Minute).Error())
		for range 20 {
			g.set(func() { g.behind[idB] = false })
			time.Sleep(4 * time.Second)
			require.Equal(t, map[string]bool{idA: true, idB: false}, g.peers())
			g.set(func() { g.behind[idB] = true })
			time.Sleep(time.Second)
		}
		g.set(func() { g.behind[idB] = false })
		time.Sleep(6 * time.Second)
		require.Equal(t, map[string]bool{idA: true, idB: true}, g.peers())
	})
}

// Defect 5 of the prior art: whoever was in gossip with an address got a vote.
func TestDefect05ProxyInGossipBecomesVoter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, []string{idA}, idA, idB)
		require.NoError(t, g.leader.AddNonvoter(idB, idB, 0, time.Minute).Error())
		proxy := alive("proxy1.0000000f", membership.RoleProxy)
		proxy.RPCAddr = "127.0.0.1:8410"
		g.set(func() {
			g.members = []membership.Member{alive(idA, membership.RoleStorage), alive(idB, membership.RoleStorage), proxy}
		})
		g.fly()
		testutil.Eventually(t, time.Minute, func() error {
			if !g.peers()[idB] {
				return errors.New("not promoted")
			}
			return nil
		})
		g.rounds(idB, 10)
		require.Equal(t, map[string]bool{idA: true, idB: true}, g.peers())
		g.mu.Lock()
		defer g.mu.Unlock()
		require.Zero(t, g.asked[proxy.ID])
	})
}
