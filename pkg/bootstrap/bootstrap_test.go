package bootstrap_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/bootstrap"
	"github.com/logd-io/logd/pkg/internal/testutil"
)

// raft is a node's Raft as far as bootstrap sees it, in memory.
type raft struct {
	mu       sync.Mutex
	bound    string
	state    bool
	servers  []string
	bindFail error
	changed  chan struct{}
}

func newRaft() *raft { return &raft{changed: make(chan struct{})} }

func (r *raft) HasState() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

func (r *raft) Bound() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bound
}

func (r *raft) Bind(uuid string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bindFail == nil {
		r.bound = uuid
	}
	return r.bindFail
}

func (r *raft) Bootstrap(_ context.Context, uuid string, servers []string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bound, r.servers, r.state = uuid, servers, true
	return nil
}

func (r *raft) Changes() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// replicated has state arrive from elsewhere.
func (r *raft) replicated() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state = true
	close(r.changed)
	r.changed = make(chan struct{})
}

type fixedPeers []bootstrap.Peer

func (p fixedPeers) Peers() []bootstrap.Peer  { return p }
func (p fixedPeers) Changes() <-chan struct{} { return nil }

type asker func(id string, p bootstrap.Promise) error

func (a asker) Promise(_ context.Context, id string, p bootstrap.Promise) error { return a(id, p) }

func candidate(id string) bootstrap.Peer { return bootstrap.Peer{ID: id, Expect: 3, Alive: true} }

// begin returns node id with three expected, and its parts for a test to change.
func begin(t *testing.T, id string, peers ...bootstrap.Peer) (bootstrap.Config, *raft) {
	t.Helper()
	store, err := bootstrap.Open(newFS(t), dir)
	require.NoError(t, err)
	r := newRaft()
	return bootstrap.Config{
		ID: id, Expect: 3, Store: store, Replica: r, Bound: r.Bound, Peers: fixedPeers(peers),
		Asker:   asker(func(string, bootstrap.Promise) error { return nil }),
		NewUUID: func() string { return u1 },
		Retry:   time.Millisecond, Settle: 10 * time.Millisecond,
	}, r
}

func run(t *testing.T, cfg bootstrap.Config) error {
	t.Helper()
	return bootstrap.New(cfg).Run(testutil.Context(t, time.Minute))
}

func TestInitiatorBootstrapsWhenAllHavePromised(t *testing.T) {
	cfg, r := begin(t, "a", candidate("c"), candidate("b"), bootstrap.Peer{ID: "joiner", Alive: true},
		bootstrap.Peer{ID: "dead", Expect: 3})
	var mu sync.Mutex
	asks := map[string]int{}
	cfg.Asker = asker(func(id string, p bootstrap.Promise) error {
		mu.Lock()
		defer mu.Unlock()
		require.Equal(t, promise(u1, "a", "b", "c"), p)
		own, ok := cfg.Store.Promised()
		require.True(t, ok, "its own promise comes first")
		require.Equal(t, p, own)
		require.False(t, r.HasState())
		asks[id]++
		if id == "c" && asks[id] < 5 {
			return errors.New("the network is down")
		}
		return nil
	})
	require.NoError(t, run(t, cfg))
	require.True(t, r.HasState())
	require.Equal(t, u1, r.Bound())
	require.Equal(t, []string{"a", "b", "c"}, r.servers)
	require.Equal(t, map[string]int{"b": 1, "c": 5}, asks)
}

func TestOneNodeBootstrapsItself(t *testing.T) {
	cfg, r := begin(t, "a")
	cfg.Expect = 1
	require.NoError(t, run(t, cfg))
	require.Equal(t, []string{"a"}, r.servers)
}

// A promise is carried out after a restart whatever gossip says by then.
func TestPromiseIsCarriedOutAfterARestart(t *testing.T) {
	for name, peers := range map[string][]bootstrap.Peer{
		"nobody seen": nil,
		"others seen": {candidate("x"), candidate("y")},
		"too many":    {candidate("b"), candidate("c"), candidate("d")},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, r := begin(t, "a", peers...)
			require.NoError(t, cfg.Store.Make(promise(u2, "a", "b", "c")))
			require.NoError(t, run(t, cfg))
			require.Equal(t, u2, r.Bound())
			require.Equal(t, []string{"a", "b", "c"}, r.servers)
		})
	}
}

func TestOthersWaitForState(t *testing.T) {
	cfg, r := begin(t, "b", candidate("a"), candidate("c"))
	b := bootstrap.New(cfg)
	ended := make(chan error, 1)
	ctx := testutil.Context(t, time.Minute)
	go func() { ended <- b.Run(ctx) }()
	require.NoError(t, b.Grant(ctx, u1, "a", []string{"a", "b", "c"}))
	require.Equal(t, u1, r.Bound())
	require.Empty(t, ended)
	r.replicated()
	require.NoError(t, <-ended)
	require.Nil(t, r.servers, "it bootstrapped nothing")
}

// A crash between promise and bind is made good at the next start.
func TestBindIsRepeated(t *testing.T) {
	cfg, r := begin(t, "b")
	r.bindFail = errors.New("crash")
	require.ErrorIs(t, bootstrap.New(cfg).Grant(t.Context(), u1, "a", []string{"a", "b", "c"}), r.bindFail)
	r.bindFail = nil
	ended := make(chan error, 1)
	ctx := testutil.Context(t, time.Minute)
	go func() { ended <- bootstrap.New(cfg).Run(ctx) }()
	testutil.Eventually(t, time.Minute, func() error {
		if r.Bound() != u1 {
			return errors.New("not bound")
		}
		return nil
	})
	r.replicated()
	require.NoError(t, <-ended)
}

func TestGrantRefuses(t *testing.T) {
	servers := []string{"a", "b", "c"}
	cfg, r := begin(t, "b")
	b := bootstrap.New(cfg)
	grant := func(cluster, initiator string, servers ...string) error {
		return b.Grant(t.Context(), cluster, initiator, servers)
	}
	var (
		invalid  *bootstrap.InvalidError
		expect   *bootstrap.ExpectError
		promised *bootstrap.PromisedError
		state    *bootstrap.HasStateError
	)
	require.ErrorAs(t, grant(u1, "a", "a", "c", "d"), &invalid, "we are not on it")
	require.ErrorAs(t, grant(u1, "b", "b", "c", "d"), &invalid, "in our own name")
	require.ErrorAs(t, grant("x", "a", servers...), &invalid)
	require.ErrorAs(t, grant(u1, "a", "a", "b"), &expect)
	_, ok := cfg.Store.Promised()
	require.False(t, ok, "a refusal promises nothing")

	require.NoError(t, grant(u1, "a", servers...))
	require.NoError(t, grant(u1, "a", servers...), "identical: granted again")
	require.ErrorAs(t, grant(u2, "a", servers...), &promised)
	require.Equal(t, promise(u1, servers...), promised.To)
	require.ErrorAs(t, grant(u1, "0", "0", "b", "c"), &promised)

	r.replicated()
	require.ErrorAs(t, grant(u1, "a", servers...), &state, "with state: not even the same")
	require.Equal(t, u1, state.Cluster)

	t.Run("bound by a join", func(t *testing.T) {
		cfg, r := begin(t, "b")
		require.NoError(t, r.Bind(u2))
		require.ErrorAs(t, bootstrap.New(cfg).Grant(t.Context(), u1, "a", servers), &state)
		_, ok := cfg.Store.Promised()
		require.False(t, ok)
		require.NoError(t, run(t, cfg), "it needs no bootstrap")
	})
	t.Run("a node that only joins", func(t *testing.T) {
		cfg, r := begin(t, "b", candidate("a"), candidate("c"))
		cfg.Expect = 0
		require.ErrorAs(t, bootstrap.New(cfg).Grant(t.Context(), u1, "a", servers), &expect)
		require.NoError(t, run(t, cfg))
		require.False(t, r.HasState())
	})
}

// What only an operator can mend is said, and ends nothing: it may be mended.
func TestRunSaysWhatItWaitsFor(t *testing.T) {
	refusing := asker(func(id string, _ bootstrap.Promise) error {
		if id == "c" {
			return &bootstrap.RefusedError{Peer: id, Err: &bootstrap.PromisedError{To: promise(u2, "0", "c", "d")}}
		}
		return nil
	})
	silent := asker(func(id string, _ bootstrap.Promise) error {
		if id == "c" {
			return errors.New("no route")
		}
		return nil
	})
	all := []bootstrap.Peer{candidate("b"), candidate("c")}
	for name, tc := range map[string]struct {
		id     string
		peers  []bootstrap.Peer
		asker  bootstrap.Asker
		before func(*testing.T, *bootstrap.Config)
		says   []string
	}{
		"one missing": {id: "a", peers: []bootstrap.Peer{candidate("b")},
			says: []string{"bootstrap_expect is 3", "2 without state", "a, b"}},
		"not the first": {id: "b", peers: []bootstrap.Peer{candidate("a"), candidate("c")},
			says: []string{"all of bootstrap_expect are here", "waiting for a to ask"}},
		"too many": {id: "a", peers: []bootstrap.Peer{candidate("b"), candidate("c"), candidate("d")},
			says: []string{"bootstrap_expect is 3", "4 nodes", "a, b, c, d"}},
		"told another number": {id: "a", peers: []bootstrap.Peer{candidate("b"), {ID: "c", Expect: 5, Alive: true}},
			says: []string{"bootstrap_expect is 5 on c", "3 here"}},
		"a promise missing": {id: "a", peers: all, asker: silent,
			says: []string{"the promise of c", "stop all of a, b, c", "bootstrap forget"}},
		"a refused promise": {id: "a", peers: all, asker: refusing,
			says: []string{"c refused", u2, "bootstrap forget", "promised itself to cluster " + u1}},
		"promised": {id: "b", before: func(t *testing.T, c *bootstrap.Config) {
			require.NoError(t, c.Store.Make(promise(u1, "a", "b", "c")))
		}, says: []string{u1, "waiting for it to begin", "If a will never come back", "stop all of a, b, c", "bootstrap forget"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, r := begin(t, tc.id, tc.peers...)
			if tc.asker != nil {
				cfg.Asker = tc.asker
			}
			if tc.before != nil {
				tc.before(t, &cfg)
			}
			said := make(chan string, 64)
			cfg.Say = func(what string) { said <- what }
			ctx, cancel := context.WithCancelCause(testutil.Context(t, time.Minute))
			ended := make(chan error, 1)
			go func() { ended <- bootstrap.New(cfg).Run(ctx) }()
			got := <-said
			for _, part := range tc.says {
				require.Contains(t, got, part)
			}
			require.Empty(t, ended)
			require.False(t, r.HasState())
			why := errors.New("enough")
			cancel(why)
			require.ErrorIs(t, <-ended, why)
			require.Empty(t, said, "the same is said once")
		})
	}
}

// changingPeers is gossip that a test changes.
type changingPeers struct {
	mu      sync.Mutex
	peers   []bootstrap.Peer
	changed chan struct{}
}

func (p *changingPeers) Peers() []bootstrap.Peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.peers
}

func (p *changingPeers) Changes() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

func (p *changingPeers) set(peers ...bootstrap.Peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.peers = peers
	close(p.changed)
	p.changed = make(chan struct{})
}

// When what was wrong has been mended, nobody has to start anything again.
func TestRunGoesOnWhenItIsMended(t *testing.T) {
	gossip := &changingPeers{changed: make(chan struct{})}
	cfg, r := begin(t, "a")
	cfg.Peers = gossip
	said := make(chan string, 64)
	cfg.Say = func(what string) { said <- what }
	var refused sync.Once
	cfg.Asker = asker(func(id string, _ bootstrap.Promise) (err error) {
		refused.Do(func() { err = &bootstrap.RefusedError{Peer: id, Err: errors.New("not yet")} })
		return err
	})
	ended := make(chan error, 1)
	ctx := testutil.Context(t, time.Minute)
	go func() { ended <- bootstrap.New(cfg).Run(ctx) }()
	require.Contains(t, <-said, "1 without state")
	gossip.set(candidate("b"), bootstrap.Peer{ID: "c", Expect: 5, Alive: true})
	require.Contains(t, <-said, "bootstrap_expect is 5 on c")
	gossip.set(candidate("b"), candidate("c"), candidate("d"))
	require.Contains(t, <-said, "4 nodes without state")
	gossip.set(candidate("b"), candidate("c"))
	require.Contains(t, <-said, "not yet")
	require.NoError(t, <-ended)
	require.Equal(t, []string{"a", "b", "c"}, r.servers)
}

func TestRunEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		peers []bootstrap.Peer
		says  []string
	}{
		"a peer with state": {[]bootstrap.Peer{candidate("b"), {ID: "c", Expect: 3, HasState: true, Cluster: u2, Alive: true}},
			[]string{"c", u2, "only join"}},
		"a dead peer with state": {[]bootstrap.Peer{candidate("b"), candidate("c"), {ID: "d", HasState: true}},
			[]string{"d"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, r := begin(t, "a", tc.peers...)
			err := run(t, cfg)
			var state *bootstrap.PeerStateError
			require.ErrorAs(t, err, &state)
			for _, part := range tc.says {
				require.ErrorContains(t, err, part)
			}
			require.False(t, r.HasState())
			_, ok := cfg.Store.Promised()
			require.False(t, ok)
		})
	}
	t.Run("its context", func(t *testing.T) {
		cfg, _ := begin(t, "a")
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("enough")
		cancel(why)
		require.ErrorIs(t, bootstrap.New(cfg).Run(ctx), why)
	})
	t.Run("a promise that could not be written", func(t *testing.T) {
		cfg, r := begin(t, "a", candidate("b"), candidate("c"))
		fs := &failing{FS: newFS(t), failSyncDir: true}
		var err error
		cfg.Store, err = bootstrap.Open(fs, dir)
		require.NoError(t, err)
		require.ErrorContains(t, run(t, cfg), "no disk today")
		require.False(t, r.HasState())
	})
}

// A node that is to begin alone has nobody whose promise could keep it from beginning a
// second cluster. So it first hears from everybody it was told of.
func TestWhoBeginsAloneHearsFromAllFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRaft()
		store, err := bootstrap.Open(newFS(t), dir)
		require.NoError(t, err)
		var mu sync.Mutex
		unheard, said := []string{"node2:8401"}, ""
		b := bootstrap.New(bootstrap.Config{
			ID: "n1", Expect: 1, Store: store, Replica: r, Peers: fixedPeers{{ID: "n1", Expect: 1, Alive: true}},
			Unheard: func() []string {
				mu.Lock()
				defer mu.Unlock()
				return unheard
			},
			Say: func(what string) { said = what },
		})
		done := make(chan error, 1) // 1: Run's result
		go func() { done <- b.Run(t.Context()) }()
		time.Sleep(time.Hour)
		require.False(t, r.HasState())
		require.Contains(t, said, "node2:8401")
		mu.Lock()
		unheard = nil
		mu.Unlock()
		require.NoError(t, <-done)
		require.Equal(t, []string{"n1"}, r.servers)
	})
}
