package forward_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
)

// requireTooOld checks that a client is told where the log begins now.
func requireTooOld(t *testing.T, err error, offset, lowest uint64) {
	t.Helper()
	requireReason(t, apierr.ReasonOutOfRange, err)
	require.Equal(t, codes.OutOfRange, status.Code(err))
	info, _ := apierr.From(err)
	for key, want := range map[string]uint64{apierr.KeyOffset: offset, apierr.KeyLowest: lowest} {
		got, ok := info.Uint(key)
		require.True(t, ok, key)
		require.Equal(t, want, got, key)
	}
}

// A stream that retention overtakes while it is between nodes is told so, with the
// lowest offset, by the leader's word. It neither skips what is gone nor looks for
// it for ever, and another from the lowest offset on goes well.
func TestStreamThatRetentionOvertook(t *testing.T) {
	c := newCluster(t, "a", "b", "c")
	c.lead("a")
	c.fill(20)
	p := newProxy(t, c, nil)
	s, err := p.ConsumeStream(ctxFor(t, 30*time.Second), &logv1.ConsumeRequest{})
	require.NoError(t, err)
	expect(t, s, 0, 20)
	for _, n := range c.nodes {
		n.freeze() // nothing comes through while the log moves on
		n.set(func() { n.onBatch = nil })
	}
	for _, n := range c.nodes {
		n.kill()
	}
	c.fill(20)
	c.mu.Lock()
	c.lowest = 30
	c.mu.Unlock()
	for _, n := range c.nodes {
		n.thaw()
		n.revive()
	}
	resp, err := s.Recv()
	require.Nil(t, resp, "records 20 to 29 are gone, and 30 does not follow 19")
	requireTooOld(t, err, 20, 30)
	require.Zero(t, p.metric("stream_resume_failed_total"))

	s, err = p.ConsumeStream(ctxFor(t, 20*time.Second), &logv1.ConsumeRequest{Offset: 30})
	require.NoError(t, err)
	expect(t, s, 30, 10)
}

// A node that has given up more than the leader has does not end a stream: only the
// leader's word does.
func TestFollowerThatGaveUpMoreThanTheLeader(t *testing.T) {
	c := newCluster(t, "a", "b")
	c.lead("a")
	c.fill(20)
	p := newProxy(t, c, nil)
	b := c.nodes["b"]
	b.set(func() { b.tooOld = 10 })
	s, err := p.ConsumeStream(ctxFor(t, 20*time.Second), &logv1.ConsumeRequest{Offset: 5})
	require.NoError(t, err)
	expect(t, s, 5, 15)
	resp, err := p.Consume(ctxFor(t, 20*time.Second), &logv1.ConsumeRequest{Offset: 5})
	require.NoError(t, err)
	require.EqualValues(t, 5, resp.Record.Offset)
}

// A read below the lowest offset, and from where it says on.
func TestReadBelowTheLowest(t *testing.T) {
	c := newCluster(t, "a", "b")
	c.lead("a")
	c.fill(20)
	c.mu.Lock()
	c.lowest = 12
	c.mu.Unlock()
	p := newProxy(t, c, nil)
	_, err := p.Consume(ctxFor(t, 20*time.Second), &logv1.ConsumeRequest{Offset: 3})
	requireTooOld(t, err, 3, 12)
	s, err := p.ConsumeStream(ctxFor(t, 20*time.Second), &logv1.ConsumeRequest{})
	require.NoError(t, err)
	_, err = s.Recv()
	requireTooOld(t, err, 0, 12)
	resp, err := p.Consume(ctxFor(t, 20*time.Second), &logv1.ConsumeRequest{Offset: 12})
	require.NoError(t, err)
	require.EqualValues(t, 12, resp.Record.Offset)
}
