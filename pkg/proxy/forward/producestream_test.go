package forward_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/proxy/forward"
)

// After one failure every later record of the stream fails, and none is appended.
func TestProduceStreamStopsAtTheFirstFailure(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	p := newProxy(t, c, func(cfg *forward.Config) { cfg.MaxRecordBytes = 1000 })
	t.Run("a record too large", func(t *testing.T) {
		s, err := p.ProduceStream(ctxFor(t, 10*time.Second))
		require.NoError(t, err)
		require.NoError(t, s.Send(rec("s0")))
		require.NoError(t, s.Send(&logv1.ProduceRequest{Record: &logv1.Record{Value: make([]byte, 2000)}}))
		_ = s.Send(rec("s2"))
		resp, err := s.Recv()
		require.NoError(t, err)
		require.EqualValues(t, 0, resp.Offset)
		_, err = s.Recv()
		requireReason(t, apierr.ReasonInvalid, err)
		require.Equal(t, []string{"s0"}, c.values())
	})
	t.Run("an unknown outcome", func(t *testing.T) {
		n := c.nodes["a"]
		first := make(chan struct{})
		n.set(func() {
			n.onAcked = func(*nodev1.AppendRequest) error { c.lead(""); close(first); return errCut }
		})
		s, err := p.ProduceStream(ctxFor(t, 10*time.Second))
		require.NoError(t, err)
		require.NoError(t, s.Send(rec("u0")))
		<-first
		n.set(func() { n.onAcked = nil })
		for i := range 100 {
			_ = s.Send(rec(fmt.Sprint("later", i)))
		}
		c.mu.Lock()
		c.producers = map[string]*fakeProducer{}
		c.mu.Unlock()
		c.lead("a")
		_, err = s.Recv()
		requireReason(t, apierr.ReasonOutcomeUnknown, err)
		_, err = p.Produce(ctxFor(t, 10*time.Second), rec("other"))
		require.NoError(t, err)
		require.Equal(t, []string{"s0", "u0", "other"}, c.values())
	})
}

// Batches a leader refuses for certain go back to where they were in the queue.
func TestRecalledRecordsKeepTheirOrder(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	p := newProxy(t, c, func(cfg *forward.Config) { cfg.BatchBytes = 100 })
	n := c.nodes["a"]
	n.freeze()
	refusals := 0
	n.onAppend = func(*nodev1.AppendRequest) error {
		if refusals++; refusals <= 5 {
			return apierr.Draining{}
		}
		return nil
	}
	s, err := p.ProduceStream(ctxFor(t, 20*time.Second))
	require.NoError(t, err)
	const total = 500
	for i := range total {
		require.NoError(t, s.Send(rec(strconv.Itoa(i))))
	}
	require.Eventually(t, func() bool { return p.metric("produce_records_held") == total }, 10*time.Second, time.Millisecond)
	n.thaw()
	for i := range total {
		resp, err := s.Recv()
		require.NoError(t, err)
		require.EqualValues(t, i, resp.Offset)
	}
	for i, v := range c.values() {
		require.Equal(t, strconv.Itoa(i), v)
	}
	require.Zero(t, p.metric("batches_duplicate_total"))
}

func TestProduceStreamIsBackpressured(t *testing.T) {
	c := newCluster(t, "a")
	p := newProxy(t, c, func(cfg *forward.Config) { cfg.HoldRecords = 20; cfg.StreamRecords = 8 })
	s, err := p.ProduceStream(ctxFor(t, 20*time.Second))
	require.NoError(t, err)
	const n = 500
	go func() {
		for i := range n {
			if s.Send(rec(strconv.Itoa(i))) != nil {
				return
			}
		}
		_ = s.CloseSend()
	}()
	c.lead("a")
	for i := range n {
		resp, err := s.Recv()
		require.NoError(t, err)
		require.EqualValues(t, i, resp.Offset)
	}
	for _, b := range c.batches {
		require.LessOrEqual(t, b, 8)
	}
}

func TestIdleStreamCloses(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	p := newProxy(t, c, func(cfg *forward.Config) { cfg.IdleTimeout = 20 * time.Millisecond })
	n := c.nodes["a"]
	for i := range 3 {
		_, err := p.Produce(ctxFor(t, 10*time.Second), rec(strconv.Itoa(i)))
		require.NoError(t, err)
		require.Eventually(t, func() bool { return n.inflight.Load() == 0 }, 10*time.Second, time.Millisecond)
	}
	require.Len(t, c.values(), 3)
	require.Len(t, c.producers, 1) // the id is kept
}

func TestAppendersAreBounded(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	p := newProxy(t, c, func(cfg *forward.Config) {
		cfg.MaxAppenders = 3
		cfg.IdleTimeout = 300 * time.Millisecond
		cfg.Principal = func(ctx context.Context) (string, error) {
			v := metadata.ValueFromIncomingContext(ctx, "who")
			if len(v) == 0 {
				return "", apierr.Unauthenticated{Why: "nobody"}
			}
			return v[0], nil
		}
	})
	for i := range 3 {
		_, err := p.Produce(ctxFor(t, 10*time.Second, "who", strconv.Itoa(i)), rec("x"))
		require.NoError(t, err)
	}
	_, err := p.Produce(ctxFor(t, 10*time.Second, "who", "one too many"), rec("x"))
	requireReason(t, apierr.ReasonOverloaded, err)
	require.Eventually(t, func() bool {
		_, err := p.Produce(ctxFor(t, 10*time.Second, "who", "later"), rec("x"))
		return err == nil
	}, 10*time.Second, 5*time.Millisecond)
	_, err = p.Produce(ctxFor(t, 10*time.Second), rec("x"))
	require.Equal(t, codes.Unauthenticated, status.Code(err))
}

func TestCloseEndsWhatIsHeld(t *testing.T) {
	c := newCluster(t, "a")
	p := newProxy(t, c, nil)
	got := produceAsync(t, p, "x")
	s, err := p.ProduceStream(ctxFor(t, 10*time.Second))
	require.NoError(t, err)
	p.stop()
	require.Error(t, <-got)
	_, err = s.Recv()
	require.Error(t, err)
	require.False(t, errors.Is(err, io.EOF))
}

func TestEndStreams(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	p := newProxy(t, c, nil)
	ps, err := p.ProduceStream(ctxFor(t, 10*time.Second))
	require.NoError(t, err)
	require.NoError(t, ps.Send(rec("x")))
	_, err = ps.Recv()
	require.NoError(t, err)
	cs, err := p.ConsumeStream(ctxFor(t, 10*time.Second), &logv1.ConsumeRequest{Offset: 1})
	require.NoError(t, err)
	_, err = cs.Header()
	require.NoError(t, err)
	p.fwd.EndStreams()
	_, err = ps.Recv()
	requireReason(t, apierr.ReasonDraining, err)
	_, err = cs.Recv()
	requireReason(t, apierr.ReasonDraining, err)
}

// What is held when a drain has lasted long enough ends with what is known of it.
func TestEndStreamsEndsWhatIsHeld(t *testing.T) {
	c := newCluster(t, "a")
	p := newProxy(t, c, nil)
	start := func() (<-chan error, logv1.Log_ProduceStreamClient) {
		s, err := p.ProduceStream(ctxFor(t, 20*time.Second))
		require.NoError(t, err)
		require.NoError(t, s.Send(rec("stream")))
		return produceAsync(t, p, "unary"), s
	}
	never, neverStream := start()
	require.Eventually(t, func() bool { return p.metric("produce_records_held") == 2 }, 10*time.Second, time.Millisecond)
	p.fwd.EndStreams()
	requireReason(t, apierr.ReasonNotSent, <-never)
	_, err := neverStream.Recv()
	requireReason(t, apierr.ReasonDraining, err)
	require.Empty(t, c.values())

	c = newCluster(t, "a")
	c.lead("a")
	p = newProxy(t, c, nil)
	c.nodes["a"].freeze()
	taken, takenStream := start()
	require.Eventually(t, func() bool { return p.metric("produce_records_held") == 2 }, 10*time.Second, time.Millisecond)
	require.Eventually(t, func() bool { return c.nodes["a"].InFlight() > 0 }, 10*time.Second, time.Millisecond)
	p.fwd.EndStreams()
	requireReason(t, apierr.ReasonOutcomeUnknown, <-taken)
	_, err = takenStream.Recv()
	requireReason(t, apierr.ReasonOutcomeUnknown, err)
}
