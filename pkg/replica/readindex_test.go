package replica_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
)

// gate is one node's connections: a test holds what its peers answer, and what
// either side asks.
type gate struct {
	mu      sync.Mutex
	hold    func() bool    // whether an answer that has come is kept back; nil: none; guarded by mu
	shut    bool           // nobody asks anything; guarded by mu
	held    map[string]int // answers kept back, by peer; guarded by mu
	free    map[string]int // how many more may pass, by peer; guarded by mu
	changed chan struct{}  // closed and replaced, under mu, when any of it changes
}

func newGate() *gate {
	return &gate{changed: make(chan struct{}), held: map[string]int{}, free: map[string]int{}}
}

func (g *gate) set(change func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change()
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *gate) holdIf(f func() bool) { g.set(func() { g.hold = f }) }

// open lets everything through.
func (g *gate) open() { g.set(func() { g.hold, g.shut = nil, false }) }

// letOne lets one held answer of that peer through.
func (g *gate) letOne(peer string) { g.set(func() { g.free[peer]++ }) }

func (g *gate) heldOf(peer string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.held[peer]
}

// gated is a connection to peer through a gate.
type gated struct {
	net.Conn
	g      *gate
	peer   string // "" when it is the node's own, dialled by a peer
	once   sync.Once
	closed chan struct{}
}

func (g *gate) conn(peer string, c net.Conn) net.Conn {
	return &gated{Conn: c, g: g, peer: peer, closed: make(chan struct{})}
}

func (c *gated) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// until waits while blocked says so, which is asked under the gate's mu.
func (c *gated) until(blocked func() bool) error {
	for {
		c.g.mu.Lock()
		wait, changed := blocked(), c.g.changed
		c.g.mu.Unlock()
		if !wait {
			return nil
		}
		select {
		case <-changed:
		case <-c.closed:
			return net.ErrClosed
		}
	}
}

// Read keeps an answer back that has come: a peer's answer is one Read.
func (c *gated) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	counted := false
	gone := c.until(func() bool {
		g := c.g
		hold := err == nil && c.peer != "" && g.hold != nil && g.hold()
		if hold && g.free[c.peer] > 0 {
			g.free[c.peer]--
			hold = false
		}
		if hold != counted {
			counted = hold
			if g.held[c.peer]--; hold {
				g.held[c.peer] += 2
			}
		}
		return hold
	})
	if gone != nil {
		return 0, gone
	}
	return n, err
}

func (c *gated) Write(b []byte) (int, error) {
	if err := c.until(func() bool { return c.g.shut }); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// slowLeader boots three nodes of which n1 has a lease of ten virtual seconds and
// the others one of 300 ms, makes n1 the leader, and gives its connections.
func slowLeader(t *testing.T, off ...replica.Switch) (*cluster, *node, *gate) {
	c := newCluster(t, func(cfg *replica.Config) {
		cfg.Heartbeat = 300 * time.Millisecond
		if cfg.ID == nodeID(1) {
			cfg.Heartbeat = 10 * time.Second
		}
	}, off...)
	g := newGate()
	c.wrap = func(from, to string, conn net.Conn) net.Conn {
		if from == nodeID(1) {
			return g.conn(to, conn)
		}
		if to == nodeID(1) {
			return g.conn("", conn)
		}
		return conn
	}
	ids := []string{nodeID(1), nodeID(2), nodeID(3)}
	for _, id := range ids {
		c.add(id).start()
	}
	require.NoError(t, c.node(ids[0]).r.Bootstrap(context.Background(), testCluster, ids))
	for _, id := range ids[1:] {
		require.NoError(t, c.node(id).r.Bind(testCluster))
	}
	c.produce([16]byte{1}, 0, "first")
	n1 := c.node(nodeID(1))
	for {
		l := c.leader()
		if l == n1 {
			c.produce([16]byte{1}, 1, "second")
			for _, n := range c.up() {
				n.visible(2) // from here on they answer every AppendEntries with success
			}
			return c, n1, g
		}
		if err := l.r.Transfer(context.Background(), n1.id); err == nil {
			n1.await("leads", func(v replica.View) bool { return v.IsLeader || v.LeaderID != n1.id && v.LeaderID != "" })
		}
	}
}

// leaderBut waits until a node other than that one leads.
func (c *cluster) leaderBut(old *node) *node {
	for {
		for _, n := range c.up() {
			if n != old && n.r.View().IsLeader {
				return n
			}
		}
		time.Sleep(10 * time.Millisecond) // of virtual time
	}
}

// I16: a leader that was replaced and has not noticed answers no linearizable read.
// Its followers' answers to what it sent before the read come late; counted, they
// make a majority, and the read misses an acknowledged record. raft.VerifyLeader by
// itself does count them.
func TestADeposedLeaderAnswersNoLinearizableRead(t *testing.T) {
	for _, off := range [][]replica.Switch{nil, {replica.OlderAnswers}} {
		t.Run(fmt.Sprint("without ", off), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := context.Background()
				c, old, g := slowLeader(t, off...)
				defer c.close()
				defer g.open()
				at, err := old.r.ReadIndex(ctx)
				require.NoError(t, err)
				require.Equal(t, uint64(2), at)

				g.holdIf(func() bool { return true })
				time.Sleep(100 * time.Millisecond) // an AppendEntries is sent to each peer every 10 ms
				require.NotZero(t, g.heldOf(nodeID(2)))
				require.NotZero(t, g.heldOf(nodeID(3)))
				g.set(func() { g.shut = true })

				l := c.leaderBut(old)
				p, err := l.r.Submit(one("acknowledged"))
				require.NoError(t, err)
				_, err = p.Wait(ctx)
				require.NoError(t, err)
				require.Equal(t, uint64(3), l.r.Log().Visible())
				require.True(t, old.r.View().IsLeader, "it does not know")

				type answer struct {
					at  uint64
					err error
				}
				answers := make(chan answer, 1)
				go func() {
					at, err := old.r.ReadIndex(ctx)
					answers <- answer{at, err}
				}()
				verified := make(chan error, 1)
				go func() { verified <- old.r.Raft().VerifyLeader().Error() }()
				synctest.Wait()
				g.letOne(nodeID(2))
				synctest.Wait()
				require.NoError(t, <-verified, "so much for raft.VerifyLeader")
				if off != nil {
					a := <-answers
					require.NoError(t, a.err)
					require.Equal(t, uint64(2), a.at, "this is what counting only newer answers prevents")
					return
				}
				require.Empty(t, answers)
				g.letOne(nodeID(3))
				synctest.Wait()
				require.Empty(t, answers)
				bounded, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				_, err = old.r.ReadIndex(bounded)
				require.ErrorIs(t, err, context.DeadlineExceeded)

				// A position it does not have is not called unknown on its word either.
				var behind *replica.BehindError
				require.ErrorAs(t, old.r.WaitPosition(ctx, 3, 50*time.Millisecond), &behind)

				g.open()
				var notLeader *replica.NotLeaderError
				require.ErrorAs(t, (<-answers).err, &notLeader)
				at, err = l.r.ReadIndex(ctx)
				require.NoError(t, err)
				require.Equal(t, uint64(3), at)
			})
		})
	}
}

// A leader that has not applied an entry of its own term yet does not know
// what was acknowledged before it. It waits.
func TestAReadWaitsForTheLeadersFirstEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, func(cfg *replica.Config) { cfg.Heartbeat = 10 * time.Second })
		defer c.close()
		g := newGate()
		c.wrap = func(from, to string, conn net.Conn) net.Conn {
			if from == nodeID(2) {
				return g.conn(to, conn)
			}
			return conn
		}
		defer g.open()
		ids := []string{nodeID(1), nodeID(2), nodeID(3)}
		for _, id := range ids {
			c.add(id).start()
		}
		require.NoError(t, c.node(ids[0]).r.Bootstrap(context.Background(), testCluster, ids))
		for _, id := range ids[1:] {
			require.NoError(t, c.node(id).r.Bind(testCluster))
		}
		c.produce([16]byte{1}, 0, "first")
		next := c.node(nodeID(2))
		next.await("ready", func(v replica.View) bool { return v.Ready })
		elected := func() bool {
			r := next.r.Raft()
			return r != nil && r.State() == raft.Leader
		}
		g.holdIf(elected)
		if l := c.leader(); l != next {
			require.NoError(t, l.r.Transfer(context.Background(), next.id))
		}
		for !elected() {
			time.Sleep(time.Millisecond)
		}
		answered := make(chan error, 1)
		go func() {
			at, err := next.r.ReadIndex(context.Background())
			if err == nil && at != 1 {
				err = fmt.Errorf("position %d", at)
			}
			answered <- err
		}()
		time.Sleep(time.Second)
		require.Equal(t, replica.StateLeader, next.r.View().State)
		require.False(t, next.r.View().IsLeader)
		require.Empty(t, answered)
		g.open()
		require.NoError(t, <-answered)
	})
}

// Only voters count, and whoever loses leadership meanwhile says so.
func TestNonVotersConfirmNoRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := boot(t, 3, nil)
		defer c.close()
		c.produce([16]byte{1}, 0, "first")
		l := c.leader()
		voters := c.up()
		for _, id := range []string{nodeID(4), nodeID(5)} {
			n := c.add(id)
			n.start()
			require.NoError(t, n.r.Bind(testCluster))
			require.NoError(t, l.r.AddNonvoter(context.Background(), id))
			n.visible(1)
		}
		at, err := l.r.ReadIndex(context.Background())
		require.NoError(t, err)
		require.Equal(t, uint64(1), at)
		for _, n := range voters {
			if n != l {
				require.NoError(t, n.stop())
			}
		}
		require.True(t, l.r.View().IsLeader)
		var notLeader *replica.NotLeaderError
		_, err = l.r.ReadIndex(context.Background())
		require.ErrorAs(t, err, &notLeader)
	})
}

// A read sees what was acknowledged before it and what any node has shown, on
// one node as on three. Followers name the leader. Concurrent reads share rounds.
func TestReadIndex(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 3} {
		t.Run(fmt.Sprint(size, " nodes"), func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			registries := map[string]*prometheus.Registry{}
			c := boot(t, size, func(cfg *replica.Config) {
				registries[cfg.ID] = prometheus.NewRegistry()
				cfg.Registerer = registries[cfg.ID]
			})
			l := c.leader()
			for i := range uint64(50) {
				c.produce([16]byte{1}, i, "x")
				at, err := l.r.ReadIndex(ctx)
				require.NoError(t, err)
				require.Equal(t, i+1, at)
			}
			var wg sync.WaitGroup
			stop := make(chan struct{})
			wg.Go(func() {
				for i := uint64(50); ; i++ {
					select {
					case <-stop:
						return
					default:
						c.produce([16]byte{1}, i, "x")
					}
				}
			})
			for range 4 {
				wg.Go(func() {
					for range 100 {
						var seen uint64
						for _, n := range c.up() {
							seen = max(seen, n.r.Log().Visible())
						}
						at, err := l.r.ReadIndex(ctx)
						if err != nil || at < seen {
							t.Errorf("position %d, %v: another reader has seen %d", at, err, seen)
						}
					}
				})
			}
			gone, cancel := context.WithCancelCause(ctx)
			cancel(errors.New("client went away"))
			_, err := l.r.ReadIndex(gone)
			if err != nil { // or it was answered as fast
				require.EqualError(t, err, "client went away")
			}
			var many sync.WaitGroup
			for range 300 {
				many.Go(func() {
					if _, err := l.r.ReadIndex(ctx); err != nil {
						t.Error(err)
					}
				})
			}
			many.Wait()
			close(stop)
			wg.Wait()
			for _, n := range c.up() {
				if n == l {
					continue
				}
				n.await("knows the leader", func(v replica.View) bool { return v.LeaderID == l.id })
				var notLeader *replica.NotLeaderError
				_, err := n.r.ReadIndex(ctx)
				require.ErrorAs(t, err, &notLeader)
				require.Equal(t, l.id, notLeader.LeaderID)
			}
			families, err := registries[l.id].Gather()
			require.NoError(t, err)
			for _, f := range families {
				if f.GetName() == "logd_replica_read_index_calls" {
					h := f.GetMetric()[0].GetHistogram()
					t.Logf("%.0f reads in %d rounds", h.GetSampleSum(), h.GetSampleCount())
					require.Less(t, float64(h.GetSampleCount()), h.GetSampleSum())
					require.GreaterOrEqual(t, h.GetSampleSum(), 749.0) // one may have gone away
				}
			}
			require.NoError(t, l.stop())
			_, err = l.openAgain().ReadIndex(ctx)
			var notLeader *replica.NotLeaderError
			require.ErrorAs(t, err, &notLeader, "raft does not run")
		})
	}
}

// openAgain opens a stopped node's replica and does not run it.
func (n *node) openAgain() *replica.Replica {
	r := n.open()
	n.c.t.Cleanup(func() { require.NoError(n.c.t, r.Close()) })
	return r
}

// What is committed and not applied on the leader yet, a follower may have shown
// already: the read waits for it.
func TestAReadSeesWhatAFollowerHasShown(t *testing.T) {
	t.Parallel()
	c := boot(t, 3, nil)
	c.produce([16]byte{1}, 0, "first")
	l := c.leader()
	release := sync.OnceFunc(l.r.HoldApply())
	defer release()
	p, err := l.r.Submit(one("second"))
	require.NoError(t, err)
	for _, n := range c.up() {
		if n != l {
			n.visible(2)
		}
	}
	require.Equal(t, uint64(1), l.r.Log().Visible())
	bounded, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	_, err = l.r.ReadIndex(bounded)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	release()
	at, err := l.r.ReadIndex(context.Background())
	require.NoError(t, err)
	require.Equal(t, uint64(2), at)
	_, err = p.Result()
	require.NoError(t, err)
}
