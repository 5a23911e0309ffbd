package serf_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/discovery"
	"github.com/logd-io/logd/pkg/discovery/discoverytest"
	"github.com/logd-io/logd/pkg/discovery/serf"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/membership"
)

func TestMain(m *testing.M) { testutil.VerifyMain(m) }

var _ serf.Gossip = (*membership.Gossip)(nil)

// gossip is a membership that a test writes.
type gossip struct {
	mu      sync.Mutex
	members []membership.Member
	changed chan struct{}
}

func newGossip(ms ...membership.Member) *gossip {
	return &gossip{members: ms, changed: make(chan struct{})}
}

func (g *gossip) Members() []membership.Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.members
}

func (g *gossip) Changes() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

func (g *gossip) set(ms ...membership.Member) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.members = ms
	close(g.changed)
	g.changed = make(chan struct{})
}

func storage(id string, s membership.State) membership.Member {
	return membership.Member{ID: id, Role: membership.RoleStorage, State: s, RPCAddr: id + ".example:8400"}
}

func TestConformance(t *testing.T) {
	discoverytest.Suite{
		New: func(*testing.T) discovery.Source {
			return serf.New(newGossip(storage("b", membership.Alive), storage("a", membership.Alive)))
		},
		First: []discovery.Node{{ID: "a", RPCAddr: "a.example:8400"}, {ID: "b", RPCAddr: "b.example:8400"}},
	}.Run(t)
}

func TestWhoIsANode(t *testing.T) {
	mute := storage("mute", membership.Alive)
	mute.RPCAddr = "" // not able to serve
	g := newGossip()  // nobody yet: nothing is said
	ctx, cancel := context.WithCancel(context.Background())
	up, done := make(chan []discovery.Node), make(chan error, 1)
	go func() { done <- serf.New(g).Run(ctx, up) }()
	next := func() []discovery.Node {
		select {
		case set := <-up:
			return set
		case <-time.After(30 * time.Second):
			t.Fatal("nothing is said")
			return nil
		}
	}

	g.set(
		storage("alive", membership.Alive),
		storage("failed", membership.Failed),
		storage("left", membership.Left),
		membership.Member{ID: "proxy", Role: membership.RoleProxy, State: membership.Alive, RPCAddr: "proxy.example:8410"},
		mute,
	)
	want := []discovery.Node{{ID: "alive", RPCAddr: "alive.example:8400"}, {ID: "failed", RPCAddr: "failed.example:8400"}}
	require.Equal(t, want, next())

	// Gossip that has lost everybody says nothing rather than nobody, and what is
	// as it was is not said again.
	g.set()
	g.set(storage("alive", membership.Failed), storage("failed", membership.Alive))
	g.set(storage("alive", membership.Alive))
	require.Equal(t, want[:1], next())
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
}
