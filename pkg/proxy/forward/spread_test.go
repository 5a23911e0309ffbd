package forward_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/balance"
	"github.com/logd-io/logd/pkg/proxy/forward"
	"github.com/logd-io/logd/pkg/proxy/route"
)

// How reads come to lie on the nodes, seen from a client's end, for each policy.
// The streams here are of different principals, so that none is shared.

// spreading is a cluster with leader a, n records, a proxy that reads by the named
// policy, and a first read behind it: that one asks the leader where the log ends.
func spreading(t *testing.T, n int, policy string, followers ...string) (c *fakeCluster, p *proxy, publish func(followers ...string)) {
	t.Helper()
	c = newCluster(t, append([]string{"a"}, followers...)...)
	c.elect("a")
	c.fill(n)
	pol, err := balance.ByName(policy)
	require.NoError(t, err)
	publish = func(followers ...string) {
		s := route.Spec{ClusterID: clusterID, Term: 1, Leader: c.nodes["a"], Policy: pol, Nodes: map[string]route.Upstream{}}
		for _, id := range c.order {
			s.Nodes[id] = c.nodes[id]
			if slices.Contains(followers, id) {
				s.Followers = append(s.Followers, c.nodes[id])
			}
		}
		c.holder.Publish(route.New(s))
	}
	publish(followers...)
	p = newProxy(t, c, func(cfg *forward.Config) {
		cfg.Principal = func(ctx context.Context) (string, error) {
			if v := metadata.ValueFromIncomingContext(ctx, "who"); len(v) > 0 {
				return v[0], nil
			}
			return "local", nil
		}
		cfg.AttemptTimeout, cfg.StallTimeout = time.Minute, time.Minute // a node that a test holds up is no failure
	})
	_, err = p.Consume(ctxFor(t, time.Minute), &logv1.ConsumeRequest{})
	require.NoError(t, err)
	for _, n := range c.nodes {
		n.set(func() { n.fetches = nil })
	}
	return c, p, publish
}

// reads are the offsets that a node was asked for by unary calls, and by streams.
func (n *fakeNode) reads() (unary, streams []uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range n.fetches {
		if f.HeartbeatMs > 0 {
			streams = append(streams, f.Offset)
		} else {
			unary = append(unary, f.Offset)
		}
	}
	return unary, streams
}

// counted is how many reads each node got.
func (c *fakeCluster) counted() (unary, streams map[string]int) {
	unary, streams = map[string]int{}, map[string]int{}
	for id, n := range c.nodes {
		u, s := n.reads()
		if len(u) > 0 {
			unary[id] = len(u)
		}
		if len(s) > 0 {
			streams[id] = len(s)
		}
	}
	return unary, streams
}

// consume reads the offsets [0, n) at once with many, one call each.
func (p *proxy) consume(t *testing.T, n int, md func(i int) []string) {
	t.Helper()
	const clients = 8
	var wg sync.WaitGroup
	for g := range clients {
		wg.Go(func() {
			for i := g; i < n; i += clients {
				var kv []string
				if md != nil {
					kv = md(i)
				}
				if _, err := p.Consume(ctxFor(t, time.Minute, kv...), &logv1.ConsumeRequest{Offset: uint64(i)}); err != nil {
					t.Errorf("offset %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
}

// tails opens n streams that stay open, stream i of a principal of its own at
// offset i, and waits until each has delivered.
func (p *proxy) tails(t *testing.T, n int, md func(i int) []string) {
	t.Helper()
	for i := range n {
		kv := []string{"who", "tail-" + strconv.Itoa(i)}
		if md != nil {
			kv = append(kv, md(i)...)
		}
		s, err := p.ConsumeStream(ctxFor(t, time.Minute, kv...), &logv1.ConsumeRequest{Offset: uint64(i)})
		require.NoError(t, err)
		_, err = s.Recv()
		require.NoError(t, err)
	}
}

// even says that each of the nodes has its share within a hundredth.
func even(t *testing.T, got map[string]int, nodes ...string) {
	t.Helper()
	sum := 0
	for _, n := range got {
		sum += n
	}
	share := float64(sum) / float64(len(nodes))
	for _, id := range nodes {
		require.InDelta(t, share, got[id], share/100, "%s: %v", id, got)
	}
	require.Len(t, got, len(nodes), "%v", got)
}

func TestRoundRobinSpreadsWithinAHundredth(t *testing.T) {
	for _, followers := range [][]string{{"b", "c"}, {"b", "c", "d"}} {
		t.Run(fmt.Sprint(len(followers)), func(t *testing.T) {
			t.Run("unary", func(t *testing.T) {
				c, p, _ := spreading(t, 1200, balance.NameRoundRobin, followers...)
				p.consume(t, 1200, nil)
				unary, streams := c.counted()
				even(t, unary, followers...)
				require.Empty(t, streams)
			})
			t.Run("streams", func(t *testing.T) {
				c, p, _ := spreading(t, 300, balance.NameRoundRobin, followers...)
				p.tails(t, 300, nil)
				unary, streams := c.counted()
				even(t, streams, followers...)
				require.Empty(t, unary)
			})
		})
	}
}

// A newer table, of which there are several a second in a cluster that is busy,
// does not begin the round anew.
func TestRoundRobinSpreadsOverNewTables(t *testing.T) {
	c, p, publish := spreading(t, 300, balance.NameRoundRobin, "b", "c", "d")
	for i := range 300 {
		publish("b", "c", "d")
		_, err := p.Consume(ctxFor(t, time.Minute), &logv1.ConsumeRequest{Offset: uint64(i)})
		require.NoError(t, err)
	}
	unary, _ := c.counted()
	even(t, unary, "b", "c", "d")
}

// placed tells for each offset who was asked for it; each was asked for once.
func (c *fakeCluster) placed(t *testing.T, streams bool) map[uint64]string {
	t.Helper()
	at := map[uint64]string{}
	for id, n := range c.nodes {
		offsets, s := n.reads()
		if streams {
			offsets = s
		}
		for _, off := range offsets {
			require.Empty(t, at[off], "offset %d was asked for twice", off)
			at[off] = id
		}
		n.set(func() { n.fetches = nil })
	}
	return at
}

// When a follower leaves, the keys that it served move, and no others, and it makes
// no difference what kind of read a key comes with.
func TestConsistentHashKeepsAKeyAtItsNode(t *testing.T) {
	const n = 900
	c, p, publish := spreading(t, n, balance.NameConsistentHash, "b", "c", "d")
	key := func(i int) []string { return []string{"logd-routing-key", "customer " + strconv.Itoa(i)} }
	p.consume(t, n, key)
	before := c.placed(t, false)
	require.Len(t, before, n)
	p.consume(t, n, key)
	require.Equal(t, before, c.placed(t, false))

	const few = 60 // streams, which stay open
	p.tails(t, few, key)
	for off, id := range c.placed(t, true) {
		require.Equal(t, before[off], id, "the stream with key %d", off)
	}

	publish("b", "c")
	p.consume(t, n, key)
	after := c.placed(t, false)
	moved := 0
	for off, id := range before {
		if id == "d" {
			moved++
			require.NotEqual(t, "d", after[off])
		} else {
			require.Equal(t, id, after[off], "key %d", off)
		}
	}
	require.InDelta(t, 1./3, float64(moved)/n, 0.05)
	publish("b", "c", "d")
	p.consume(t, n, key)
	require.Equal(t, before, c.placed(t, false), "it is back")
}

func TestConsistentHashTakesTurnsWithoutAKey(t *testing.T) {
	c, p, _ := spreading(t, 600, balance.NameConsistentHash, "b", "c", "d")
	p.consume(t, 600, func(i int) []string { // an empty key is none
		if i%2 == 0 {
			return nil
		}
		return []string{"logd-routing-key", ""}
	})
	unary, _ := c.counted()
	even(t, unary, "b", "c", "d")
}

func TestLeaderPolicyReadsFromTheLeader(t *testing.T) {
	c, p, _ := spreading(t, 30, balance.NameLeader, "b", "c")
	p.consume(t, 30, nil)
	p.tails(t, 30, nil)
	unary, streams := c.counted()
	require.Equal(t, map[string]int{"a": 30}, unary)
	require.Equal(t, map[string]int{"a": 30}, streams)
}

// A follower that does not get on with what it has gets nothing more.
func TestLeastRequestAvoidsAFollowerThatHangs(t *testing.T) {
	c, p, _ := spreading(t, 100, balance.NameLeastRequest, "b", "c")
	c.nodes["b"].freeze()
	c.nodes["c"].freeze()
	var wg sync.WaitGroup
	held := func() (n int) { return int(c.nodes["b"].InFlight() + c.nodes["c"].InFlight()) }
	for k := range 6 { // three each: of two, the one with less is next
		wg.Go(func() {
			_, err := p.Consume(ctxFor(t, time.Minute), &logv1.ConsumeRequest{})
			if err != nil {
				t.Error(err)
			}
		})
		waitUntil(t, func() bool { return held() == k+1 })
	}
	require.EqualValues(t, 3, c.nodes["b"].InFlight())
	c.nodes["c"].thaw()
	waitUntil(t, func() bool { return c.nodes["c"].InFlight() == 0 })
	p.consume(t, 2, nil) // at most two at a time, so never more than b has
	for i := range 50 {
		_, err := p.Consume(ctxFor(t, time.Minute), &logv1.ConsumeRequest{Offset: uint64(i)})
		require.NoError(t, err)
	}
	require.EqualValues(t, 3, c.nodes["b"].InFlight())
	c.nodes["b"].thaw()
	wg.Wait()
	unary, _ := c.counted()
	require.Equal(t, map[string]int{"b": 3, "c": 3 + 2 + 50}, unary)
}

// A stream is one open call for as long as it lives. So streams lie evenly, and a
// follower without any, which has just come back, gets the next ones; and with
// them the unary reads, until the others have no more than it has.
func TestLeastRequestCountsStreamsAsOpenCalls(t *testing.T) {
	// In virtual time nothing comes while c is out of the table, so its streams stay.
	synctest.Test(t, func(t *testing.T) {
		c, p, publish := spreading(t, 100, balance.NameLeastRequest, "b", "c")
		p.tails(t, 40, nil)
		_, streams := c.counted()
		require.Equal(t, map[string]int{"b": 20, "c": 20}, streams, "of two, the one with fewer is next")

		synctest.Wait() // all have read what there is
		publish("b")
		var open []context.CancelFunc
		for i := range 10 {
			ctx, cancel := context.WithCancel(ctxFor(t, time.Minute, "who", "more-"+strconv.Itoa(i)))
			open = append(open, cancel)
			s, err := p.ConsumeStream(ctx, &logv1.ConsumeRequest{Offset: 50})
			require.NoError(t, err)
			_, err = s.Recv()
			require.NoError(t, err)
		}
		publish("b", "c")
		p.consume(t, 40, nil) // at most eight at a time
		unary, _ := c.counted()
		require.Equal(t, map[string]int{"c": 40}, unary, "b has ten streams more")

		for _, end := range open {
			end()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		require.EqualValues(t, 20, c.nodes["b"].InFlight())
		for i := range 200 {
			_, err := p.Consume(ctxFor(t, time.Minute), &logv1.ConsumeRequest{Offset: uint64(i % 100)})
			require.NoError(t, err)
		}
		unary, _ = c.counted()
		require.InDelta(t, 100, unary["b"], 50, "%v", unary) // seven deviations of a coin
	})
}

// waitUntil waits for what no channel tells.
func waitUntil(t *testing.T, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, time.Minute, time.Millisecond)
}

// A node that hangs is told of, also when its clients never wait for as long as the
// proxy would; that they give it no time to answer is not its fault.
func TestANodeThatLetsDeadlinesPassIsToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p, _ := spreading(t, 10, balance.NameRoundRobin, "b")
		c.nodes["b"].freeze()
		defer c.nodes["b"].thaw()
		for _, patience := range []time.Duration{time.Millisecond, 20 * time.Millisecond} {
			_, err := p.Consume(ctxFor(t, patience), &logv1.ConsumeRequest{})
			require.Error(t, err)
		}
		ctx, cancel := context.WithCancel(ctxFor(t, time.Minute))
		time.AfterFunc(400*time.Millisecond, cancel)
		_, err := p.Consume(ctx, &logv1.ConsumeRequest{})
		require.Error(t, err)
		waitUntil(t, func() bool { return c.nodes["b"].InFlight() == 0 })
		_, failed := p.hints.all()
		require.Empty(t, failed, "impatience, and a client that went away")

		_, err = p.Consume(ctxFor(t, time.Second), &logv1.ConsumeRequest{})
		require.Error(t, err)
		waitUntil(t, func() bool { _, failed := p.hints.all(); return len(failed) == 1 && failed[0] == "b" })
	})
}

// What speaks for a node after failures is an answer alone: not a call that its client
// did not wait for, and not another failure.
func TestWhatIsAnAnswer(t *testing.T) {
	cut := func(*nodev1.FetchRequest) error { return errCut }
	for name, tc := range map[string]struct {
		onFetch         func(*nodev1.FetchRequest) error
		frozen          bool
		offset          uint64
		patience        time.Duration
		answers, failed int // failed: at least
	}{
		"a record":                      {patience: time.Minute, answers: 1},
		"the end of the log":            {offset: 5, patience: time.Minute, answers: 1},
		"a refusal":                     {onFetch: func(*nodev1.FetchRequest) error { return status.Error(codes.PermissionDenied, "no") }, patience: time.Minute, answers: 1},
		"a broken connection":           {onFetch: cut, patience: 100 * time.Millisecond, failed: 1},
		"silence":                       {frozen: true, patience: 900 * time.Millisecond, failed: 1},
		"silence to the impatient":      {frozen: true, patience: 200 * time.Millisecond},
		"silence, and a change of mind": {frozen: true, patience: -1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, "a")
				c.lead("a")
				c.fill(5)
				p := newProxy(t, c, nil)
				defer p.stop()
				ctx, cancel := context.WithTimeout(context.Background(), max(tc.patience, 0)+time.Hour)
				defer cancel()
				// The session of the proxy learns where the log ends.
				_, err := p.Consume(ctx, &logv1.ConsumeRequest{Offset: 0})
				require.NoError(t, err)
				a := c.nodes["a"]
				before := a.answers.Load()
				a.set(func() { a.onFetch = tc.onFetch })
				if tc.frozen {
					a.freeze()
				}
				if tc.patience > 0 {
					ctx, cancel = context.WithTimeout(context.Background(), tc.patience)
					defer cancel()
				} else {
					time.AfterFunc(500*time.Millisecond, cancel)
				}
				_, _ = p.Consume(ctx, &logv1.ConsumeRequest{Offset: tc.offset})
				synctest.Wait()
				require.EqualValues(t, tc.answers, a.answers.Load()-before)
				_, failed := p.hints.all()
				if tc.failed == 0 {
					require.Empty(t, failed)
				} else {
					require.GreaterOrEqual(t, len(failed), tc.failed)
				}
				a.thaw()
			})
		})
	}
}
