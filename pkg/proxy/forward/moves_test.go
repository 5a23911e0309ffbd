package forward_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/proxy/forward"
)

// byWho has the principal from metadata, so that some streams share and some do not.
func byWho(cfg *forward.Config) {
	cfg.Principal = func(ctx context.Context) (string, error) {
		return metadata.ValueFromIncomingContext(ctx, "who")[0], nil
	}
}

// A thousand moves of streams that share a fetch and of streams that do not, for
// every reason there is: no gap, no duplicate, no error, and none takes longer than
// the stall timeout and a retry. (DESIGN.md F5; P8) In virtual time.
func TestThousandMoves(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(seed, 1))
		ids := []string{"a", "b", "c", "d"}
		c := newCluster(t, ids...)
		c.lead("a")
		c.fill(10)
		p := newProxy(t, c, byWho)
		defer p.stop()
		var streams []stream
		for i := range 10 { // four share a fetch, two another, four have their own
			who := []string{"x", "x", "x", "x", "y", "y", "1", "2", "3", "4"}[i]
			s := p.tailFrom(t, ctxFor(t, 24*time.Hour, "who", who), uint64(i))
			expect(t, s, i, 10-i)
			streams = append(streams, s)
		}
		p.until(t, "tail_fetches", 6)
		at, kinds := 10, map[string]int{}
		grow := func(n int) {
			c.fill(n)
			for _, s := range streams {
				expect(t, s, at, n)
			}
			at += n
		}
		leader := "a"
		for p.metric("stream_resumes_total") < 1000 {
			var busy []*fakeNode
			for _, id := range ids {
				if c.nodes[id].InFlight() > 0 {
					busy = append(busy, c.nodes[id])
				}
			}
			n := busy[rng.IntN(len(busy))]
			moves := map[string]func(){
				"killed":     n.kill,
				"stopped":    n.freeze,
				"silent":     func() { n.set(func() { n.noBeat = true }); time.Sleep(forwardStall + time.Second) },
				"closed":     func() { n.endTails(nil) },
				"draining":   func() { n.endTails(apierr.Draining{}) },
				"overloaded": func() { n.endTails(apierr.Overloaded{}) },
				"damaged":    func() { n.endTails(status.Error(codes.DataLoss, "")) },
				"aged":       func() { n.endTails(status.Error(codes.Unavailable, "the connection is closing")) },
				"behind": func() {
					n.set(func() { n.lag = 100 })
					n.endTails(nil)
				},
				"leader changes": func() {
					leader = ids[rng.IntN(len(ids))]
					c.lead(leader)
					n.kill()
				},
			}
			names := []string{"killed", "stopped", "silent", "closed", "draining", "overloaded", "damaged", "aged", "behind", "leader changes"}
			name := names[rng.IntN(len(names))]
			before := p.metric("stream_resumes_total")
			began := time.Now()
			moves[name]()
			grow(1 + rng.IntN(9))
			if name != "silent" {
				require.LessOrEqual(t, time.Since(began), forwardStall+50*time.Millisecond, name)
			}
			kinds[name] += int(p.metric("stream_resumes_total") - before)
			n.thaw()
			n.revive()
			n.set(func() { n.noBeat, n.lag = false, 0 })
		}
		require.Zero(t, p.metric("stream_resume_failed_total"))
		t.Logf("%d records, moves: %v", at, kinds)
		for _, name := range []string{"killed", "stopped", "silent", "closed", "draining", "overloaded", "damaged", "aged", "behind", "leader changes"} {
			require.Positive(t, kinds[name], name)
		}
	})
}

// forwardStall is the default of Config.StallTimeout.
const forwardStall = time.Second

// A node that says nothing more is left within a second of the last it said, and one
// that only sends heartbeats is not. In virtual time, so exactly.
func TestSilentNodeIsLeftInASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a", "b", "c")
		c.lead("a")
		c.fill(5)
		p := newProxy(t, c, nil)
		defer p.stop()
		s := p.tailFrom(t, ctxFor(t, time.Hour), 0)
		expect(t, s, 0, 5)
		time.Sleep(10 * time.Minute) // quiet, and still there
		require.Zero(t, p.metric("stream_stalls_total"))
		asked, _ := c.fetched()
		require.Equal(t, 1, asked)
		require.EqualValues(t, 1, c.reading().answers.Load(), "the records, and no heartbeat")
		for _, n := range c.nodes {
			if n.InFlight() > 0 {
				n.freeze()
			}
		}
		frozen := time.Now()
		c.fill(5)
		expect(t, s, 5, 5)
		require.LessOrEqual(t, time.Since(frozen), time.Second)
		require.EqualValues(t, 1, p.metric("stream_stalls_total"))
		for _, n := range c.nodes {
			n.thaw()
		}
	})
}

// A node that is cut off from the cluster, and not from the proxy, goes on with
// heartbeats. Once it is out of the table its streams go on at another, at the next of
// them; while there is no other they stay. In virtual time, so exactly.
func TestNodeOutOfTheTableIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a", "b", "c")
		c.lead("a")
		c.fill(5)
		p := newProxy(t, c, nil)
		defer p.stop()
		s := p.tailFrom(t, ctxFor(t, time.Hour), 0)
		expect(t, s, 0, 5)
		on := c.reading()
		without := func(ids ...string) {
			order := c.order
			c.order = slices.DeleteFunc(slices.Clone(order), func(id string) bool { return slices.Contains(ids, id) })
			c.publish()
			c.order = order
		}
		// It is left alone for as long as nobody is better.
		without("a", "b", "c")
		c.fill(5)
		expect(t, s, 5, 5)
		require.Same(t, on, c.reading())
		require.Zero(t, p.metric("stream_resumes_total"))
		c.publish()

		on.set(func() { on.lag = 1000 })
		c.fill(1000)
		without(on.id)
		began := time.Now()
		expect(t, s, 10, 1000)
		require.LessOrEqual(t, time.Since(began), 250*time.Millisecond)
		require.NotSame(t, on, c.reading())
		require.EqualValues(t, 1, p.metric("stream_resumes_total"))
		_, failed := p.hints.all()
		require.Empty(t, failed, "it has done nothing wrong")
	})
}

// Headers come at once: before there is a record, before a node answers, before there
// is a node.
func TestIdleTailHasHeaders(t *testing.T) {
	for name, prepare := range map[string]func(c *fakeCluster){
		"nothing to read": func(c *fakeCluster) { c.lead("a") },
		"nobody answers": func(c *fakeCluster) {
			c.lead("a")
			for _, n := range c.nodes {
				n.freeze()
			}
		},
		"nobody is there": func(*fakeCluster) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, "a", "b")
				if prepare(c); c.leader == "" {
					c.order = nil
					c.publish()
				}
				p := newProxy(t, c, nil)
				defer p.stop()
				began := time.Now()
				s := p.tailFrom(t, ctxFor(t, time.Minute), 0)
				require.Zero(t, time.Since(began))
				for _, n := range c.nodes {
					n.thaw()
				}
				c.order = []string{"a", "b"}
				c.lead("a")
				c.fill(3)
				expect(t, s, 0, 3)
			})
		})
	}
}
