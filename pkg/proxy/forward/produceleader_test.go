package forward_test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/proxy/forward"
)

// A leader that dies at any point of a batch's life costs a pause, no record and
// no duplicate. (DESIGN.md F1, F2)
func TestLeaderDeath(t *testing.T) {
	for name, tc := range map[string]func(c *fakeCluster, n *fakeNode){
		"before the batch is sent": func(c *fakeCluster, n *fakeNode) { n.kill(); c.elect("b") },
		"after it was sent, before it was appended": func(c *fakeCluster, n *fakeNode) {
			n.onAppend = func(*nodev1.AppendRequest) error { n.kill(); c.elect("b"); return errCut }
		},
		"after it was appended, before it was acknowledged": func(c *fakeCluster, n *fakeNode) {
			n.onAcked = func(*nodev1.AppendRequest) error { n.kill(); c.elect("b"); return errCut }
		},
		"appended, answered OUTCOME_UNKNOWN": func(c *fakeCluster, n *fakeNode) {
			n.onAcked = func(*nodev1.AppendRequest) error { n.kill(); c.elect("b"); return apierr.OutcomeUnknown{} }
		},
		"deposed, answered NOT_LEADER without a name": func(c *fakeCluster, n *fakeNode) {
			n.onAppend = func(*nodev1.AppendRequest) error { c.elect("b"); return apierr.NotLeader{Term: 2} }
		},
		"draining": func(c *fakeCluster, n *fakeNode) {
			n.onAppend = func(*nodev1.AppendRequest) error { c.elect("b"); return apierr.Draining{} }
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "a", "b")
			c.lead("a")
			p := newProxy(t, c, nil)
			_, err := p.Produce(ctxFor(t, 20*time.Second), rec("first"))
			require.NoError(t, err)
			n := c.nodes["a"]
			n.mu.Lock()
			before := n.appends
			n.mu.Unlock()
			if strings.HasPrefix(name, "before") {
				tc(c, n)
			} else {
				n.set(func() { tc(c, n) })
			}
			got := make(chan uint64, 1)
			go func() {
				resp, err := p.Produce(ctxFor(t, 20*time.Second), rec("second"))
				if err == nil {
					got <- resp.Offset
				}
				close(got)
			}()
			if !strings.HasPrefix(name, "before") {
				require.Eventually(t, func() bool { n.mu.Lock(); defer n.mu.Unlock(); return n.appends > before }, 10*time.Second, time.Millisecond)
			}
			c.publish()
			offset, ok := <-got
			require.True(t, ok)
			require.EqualValues(t, 1, offset)
			require.Equal(t, []string{"first", "second"}, c.values())
		})
	}
}

// A leader that stops without closing anything is left as soon as a table says so.
func TestFrozenLeader(t *testing.T) {
	c := newCluster(t, "a", "b")
	c.lead("a")
	p := newProxy(t, c, func(cfg *forward.Config) { cfg.AckTimeout = time.Hour })
	c.nodes["a"].freeze()
	got := produceAsync(t, p, "x")
	require.Eventually(t, func() bool { return c.nodes["a"].inflight.Load() == 1 }, 10*time.Second, time.Millisecond)
	c.lead("b")
	require.NoError(t, <-got)
	require.Equal(t, []string{"x"}, c.values())
}

func TestSilentLeaderIsTriedAgain(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	p := newProxy(t, c, func(cfg *forward.Config) { cfg.AckTimeout = 50 * time.Millisecond })
	n := c.nodes["a"]
	n.freeze()
	got := produceAsync(t, p, "x")
	require.Eventually(t, func() bool { _, failed := p.hints.all(); return len(failed) > 0 }, 10*time.Second, time.Millisecond)
	n.thaw()
	require.NoError(t, <-got)
	require.Equal(t, []string{"x"}, c.values())
}

// produceAsync answers what a produce came to.
func produceAsync(t *testing.T, p *proxy, v string) <-chan error {
	got := make(chan error, 1)
	ctx := ctxFor(t, 30*time.Second)
	go func() { _, err := p.Produce(ctx, rec(v)); got <- err }()
	return got
}

// A leader of a term that never was is forgotten as soon as the node that is said to
// be it names another. Otherwise nothing would ever be appended again.
func TestALeaderThatNeverWasIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a", "b")
		c.lead("a")
		lies := 1
		c.nodes["a"].onAppend = func(*nodev1.AppendRequest) error {
			if lies--; lies < 0 {
				return nil
			}
			return apierr.NotLeader{Leader: "b", Term: 99}
		}
		p := newProxy(t, c, nil)
		begun := time.Now()
		_, err := p.Produce(context.Background(), rec("x"))
		require.NoError(t, err)
		require.Less(t, time.Since(begun), time.Second)
	})
}

// One refusal that names the leader is enough, with no new table.
func TestNotLeaderIsOneHop(t *testing.T) {
	c := newCluster(t, "a", "b")
	c.lead("a")
	p := newProxy(t, c, nil)
	_, err := p.Produce(ctxFor(t, 5*time.Second), rec("0"))
	require.NoError(t, err)
	c.elect("b")
	_, err = p.Produce(ctxFor(t, 5*time.Second), rec("1"))
	require.NoError(t, err)
	require.Equal(t, []string{"0", "1"}, c.values())
	leads, _ := p.hints.all()
	require.Equal(t, []string{"a→b@b:8400/2"}, leads)
	require.Equal(t, 1, c.nodes["b"].streams)
}

// A frozen batch is sent again though its client has gone, since nobody knows
// whether it is in the log; and the next batch does not take its numbers.
func TestSentBatchOutlivesItsClient(t *testing.T) {
	c := newCluster(t, "a", "b")
	c.lead("a")
	p := newProxy(t, c, nil)
	cut := make(chan struct{})
	c.nodes["a"].onAcked = func(*nodev1.AppendRequest) error { c.lead(""); close(cut); return errCut }
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan error, 1)
	go func() { _, err := p.Produce(ctx, rec("gone")); gone <- err }()
	<-cut
	cancel()
	require.Equal(t, codes.Canceled, status.Code(<-gone))
	got := produceAsync(t, p, "next")
	c.lead("b")
	require.NoError(t, <-got)
	require.Equal(t, []string{"gone", "next"}, c.values())
}

// After a resend UNKNOWN_PRODUCER means that nobody knows: the clients are told so,
// nothing is sent under new numbers, and the producer goes on.
func TestForgottenProducer(t *testing.T) {
	for name, forget := range map[string]func(c *fakeCluster){
		"unknown producer": func(c *fakeCluster) { c.producers = map[string]*fakeProducer{} },
		"sequence gap": func(c *fakeCluster) {
			for _, p := range c.producers {
				p.next, p.last = 100, nil
			}
		},
		"fenced": func(c *fakeCluster) {
			for _, p := range c.producers {
				p.epoch = 100
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "a", "b")
			c.lead("a")
			p := newProxy(t, c, nil)
			_, err := p.Produce(ctxFor(t, 10*time.Second), rec("0"))
			require.NoError(t, err)
			cut := make(chan struct{})
			c.nodes["a"].set(func() {
				c.nodes["a"].onAcked = func(*nodev1.AppendRequest) error { c.lead(""); close(cut); return errCut }
			})
			got := produceAsync(t, p, "1")
			<-cut
			c.mu.Lock()
			forget(c)
			c.mu.Unlock()
			c.lead("b")
			requireReason(t, apierr.ReasonOutcomeUnknown, <-got)
			resp, err := p.Produce(ctxFor(t, 10*time.Second), rec("2"))
			require.NoError(t, err)
			require.EqualValues(t, 2, resp.Offset)
			require.Equal(t, []string{"0", "1", "2"}, c.values())
		})
	}
}

// A first send that is refused for its numbers was not appended, so it is sent
// again without the client noticing.
func TestForgottenProducerOnAFirstSend(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	p := newProxy(t, c, nil)
	for i := range 3 {
		_, err := p.Produce(ctxFor(t, 10*time.Second), rec(strconv.Itoa(i)))
		require.NoError(t, err)
		c.mu.Lock()
		c.producers = map[string]*fakeProducer{}
		c.mu.Unlock()
	}
	require.Equal(t, []string{"0", "1", "2"}, c.values())
}
