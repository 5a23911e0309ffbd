package forward_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/proxy/forward"
)

func linear(offset uint64) *logv1.ConsumeRequest {
	return &logv1.ConsumeRequest{Offset: offset, Linearizable: true}
}

// A naive client's linearizable read goes to a follower as one, and to no other
// node: the follower asks the leader, the proxy does not.
func TestLinearizableConsume(t *testing.T) {
	c := newCluster(t, "a", "b", "c")
	c.lead("a")
	c.fill(10)
	p := newProxy(t, c, nil)
	for i := range uint64(10) {
		resp, err := p.Consume(ctxFor(t, 5*time.Second), linear(i))
		require.NoError(t, err)
		require.Equal(t, i, resp.Record.Offset)
	}
	_, err := p.Consume(ctxFor(t, 5*time.Second), linear(10))
	requireReason(t, apierr.ReasonOutOfRange, err)
	require.Empty(t, c.nodes["a"].fetches, "a follower that asked the leader may say where the log ends")
	for _, id := range []string{"b", "c"} {
		for _, f := range c.nodes[id].fetches {
			require.True(t, f.Linearizable)
		}
	}
	require.EqualValues(t, 11, p.metric("linearizable_reads_total"))

	// What it saw binds the session's other reads: nothing is un-seen.
	require.Zero(t, p.metric("session_asks_total"))
	before := len(c.nodes["b"].fetches)
	_, err = p.Consume(ctxFor(t, 5*time.Second), &logv1.ConsumeRequest{})
	require.NoError(t, err)
	require.Zero(t, p.metric("session_asks_total"))
	f := c.nodes["b"].fetches
	if len(f) == before {
		f = c.nodes["c"].fetches
	}
	last := f[len(f)-1]
	require.False(t, last.Linearizable)
	require.Equal(t, uint64(10), last.MinPosition)
}

// A follower that is behind what the leader said is passed over; one that lost its
// leader, or is refused by it, too.
func TestLinearizableConsumeIsRetriedByReason(t *testing.T) {
	c := newCluster(t, "a", "b", "c")
	c.lead("a")
	c.fill(10)
	p := newProxy(t, c, nil)
	c.nodes["b"].set(func() { c.nodes["b"].lag = 5 })
	c.nodes["c"].set(func() {
		c.nodes["c"].onFetch = func(*nodev1.FetchRequest) error {
			return apierr.NotLeader{Leader: "a", Address: "a:8400", Term: 1}
		}
	})
	for i := range uint64(10) {
		resp, err := p.Consume(ctxFor(t, 5*time.Second), linear(i))
		require.NoError(t, err)
		require.Equal(t, i, resp.Record.Offset)
	}
	require.NotEmpty(t, c.nodes["a"].fetches)

	// No leader: it waits, and says so only when time is up.
	c.lead("")
	q := newProxy(t, c, func(cfg *forward.Config) { cfg.HoldTimeout = 100 * time.Millisecond })
	_, err := q.Consume(ctxFor(t, 20*time.Second), linear(0))
	requireReason(t, apierr.ReasonNotSent, err)
	done := make(chan error, 1)
	go func() {
		_, err := p.Consume(ctxFor(t, 20*time.Second), linear(9))
		done <- err
	}()
	require.Eventually(t, func() bool { return p.metric("linearizable_reads_total") == 11 }, 20*time.Second, time.Millisecond)
	c.lead("b")
	c.nodes["b"].set(func() { c.nodes["b"].lag = 0 })
	require.NoError(t, <-done)
}

func TestLinearizableIsNotForStreams(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	p := newProxy(t, c, nil)
	s, err := p.ConsumeStream(ctxFor(t, 5*time.Second), linear(math.MaxUint64))
	require.NoError(t, err)
	_, err = s.Recv()
	requireReason(t, apierr.ReasonInvalid, err)
}
