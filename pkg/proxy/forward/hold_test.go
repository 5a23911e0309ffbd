package forward_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/proxy/forward"
	"github.com/logd-io/logd/pkg/proxy/route"
)

func TestHoldUntilALeaderIsElected(t *testing.T) {
	c := newCluster(t, "a")
	p := newProxy(t, c, nil)
	got := produceAsync(t, p, "x")
	got2 := produceAsync(t, p, "x")
	c.lead("a")
	require.NoError(t, <-got)
	require.NoError(t, <-got2)
	require.Len(t, c.values(), 2)
}

func TestHoldEnds(t *testing.T) {
	t.Run("never sent", func(t *testing.T) {
		c := newCluster(t, "a")
		p := newProxy(t, c, func(cfg *forward.Config) { cfg.HoldTimeout = 50 * time.Millisecond })
		_, err := p.Produce(ctxFor(t, 20*time.Second), rec("x"))
		requireReason(t, apierr.ReasonNotSent, err)
		require.Equal(t, codes.Unavailable, status.Code(err))
	})
	t.Run("sent", func(t *testing.T) {
		c := newCluster(t, "a")
		c.lead("a")
		c.nodes["a"].onAcked = func(*nodev1.AppendRequest) error { c.lead(""); return errCut }
		p := newProxy(t, c, func(cfg *forward.Config) { cfg.HoldTimeout = 50 * time.Millisecond })
		_, err := p.Produce(ctxFor(t, 20*time.Second), rec("x"))
		requireReason(t, apierr.ReasonOutcomeUnknown, err)
		require.Equal(t, codes.Aborted, status.Code(err))
	})
	t.Run("refused by every leader", func(t *testing.T) {
		c := newCluster(t, "a")
		c.lead("a")
		c.nodes["a"].onAppend = func(*nodev1.AppendRequest) error { return apierr.Draining{} }
		p := newProxy(t, c, func(cfg *forward.Config) { cfg.HoldTimeout = 50 * time.Millisecond })
		_, err := p.Produce(ctxFor(t, 20*time.Second), rec("x"))
		requireReason(t, apierr.ReasonNotSent, err)
		require.Empty(t, c.values())
	})
	t.Run("refused as too much", func(t *testing.T) {
		c := newCluster(t, "a")
		c.lead("a")
		c.nodes["a"].onAppend = func(*nodev1.AppendRequest) error {
			return apierr.Overloaded{RetryAfter: time.Millisecond, Why: "past it", Limit: "produce_rate"}
		}
		p := newProxy(t, c, func(cfg *forward.Config) { cfg.HoldTimeout = 50 * time.Millisecond })
		var trailer metadata.MD
		_, err := p.Produce(ctxFor(t, 20*time.Second), rec("x"), grpc.Trailer(&trailer))
		requireReason(t, apierr.ReasonOverloaded, err)
		require.ErrorContains(t, err, "past it")
		info, _ := apierr.From(err)
		require.Equal(t, "produce_rate", info.Metadata[apierr.KeyLimit], "whose doing it is")
		require.Equal(t, []string{"250"}, trailer["grpc-retry-pushback-ms"])
	})
	t.Run("though the deposed leader still acknowledged", func(t *testing.T) {
		c := newCluster(t, "a")
		c.lead("a")
		p := newProxy(t, c, func(cfg *forward.Config) { cfg.HoldTimeout = 200 * time.Millisecond })
		sent, answer := make(chan struct{}), make(chan struct{})
		c.nodes["a"].onAppend = func(*nodev1.AppendRequest) error { close(sent); <-answer; return nil }
		first := produceAsync(t, p, "first")
		<-sent
		c.holder.Publish(route.New(route.Spec{ClusterID: clusterID, Term: 2}))
		require.Eventually(t, p.fwd.Stalled, 10*time.Second, time.Millisecond)
		second := produceAsync(t, p, "second")
		require.Eventually(t, func() bool { return p.metric("held_records_total") == 1 }, 10*time.Second, time.Millisecond)
		close(answer)
		if err := <-first; err != nil {
			requireReason(t, apierr.ReasonOutcomeUnknown, err)
		}
		requireReason(t, apierr.ReasonNotSent, <-second)
		requireReason(t, apierr.ReasonNotSent, <-produceAsync(t, p, "third"))
		require.Equal(t, []string{"first"}, c.values())
	})
	t.Run("before the client's deadline", func(t *testing.T) {
		c := newCluster(t, "a")
		p := newProxy(t, c, nil)
		_, err := p.Produce(ctxFor(t, 3*time.Second), rec("x"))
		requireReason(t, apierr.ReasonNotSent, err)
	})
}

// What all clients together hold is bounded, and what there is no room for is told
// when to come again. A client that leaves frees its place at once. (DESIGN.md F9, F11)
func TestHoldIsBounded(t *testing.T) {
	for name, tc := range map[string]struct {
		edit func(*forward.Config)
		size int
		fit  int
	}{
		"in count": {func(cfg *forward.Config) { cfg.HoldRecords = 4 }, 10, 4},
		"in bytes": {func(cfg *forward.Config) { cfg.HoldBytes = 3 * 2000 }, 1500, 3},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "a")
			p := newProxy(t, c, tc.edit)
			v := strings.Repeat("x", tc.size)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			errs := make(chan error, tc.fit)
			for range tc.fit {
				client := p.another()
				go func() { _, err := client.Produce(ctx, rec(v)); errs <- err }()
			}
			held := func(n int) {
				require.Eventually(t, func() bool { return p.metric("produce_records_held") == float64(n) }, 10*time.Second, time.Millisecond)
			}
			held(tc.fit)
			var trailer metadata.MD
			_, err := p.Produce(ctxFor(t, 10*time.Second), rec(v), grpc.Trailer(&trailer))
			requireReason(t, apierr.ReasonOverloaded, err)
			require.Equal(t, codes.ResourceExhausted, status.Code(err))
			require.ErrorContains(t, err, "the proxy holds as much as it may")
			require.Equal(t, []string{"250"}, trailer["grpc-retry-pushback-ms"])
			// Cancellation releases the bounds, with no leader to help.
			cancel()
			for range tc.fit {
				require.Equal(t, codes.Canceled, status.Code(<-errs))
			}
			held(0)
			require.Zero(t, p.metric("produce_bytes_held"))
			c.lead("a")
			_, err = p.Produce(ctxFor(t, 10*time.Second), rec("after"))
			require.NoError(t, err)
			require.Equal(t, []string{"after"}, c.values()) // what was cancelled was never sent
		})
	}
}

// What was sent is kept after its clients' time is up, since it may have to be sent
// again. It takes no place in count any more, but its bytes count until the leader has
// said what became of them.
func TestFrozenBatchesAreCounted(t *testing.T) {
	big := strings.Repeat("x", 4500)
	for name, tc := range map[string]struct {
		silent bool // the leader says nothing, and then refuses; else the stream breaks
		stream bool
	}{
		"appended":              {},
		"appended, of a stream": {stream: true},
		"refused in the end":    {silent: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "a")
			c.lead("a")
			p := newProxy(t, c, func(cfg *forward.Config) { cfg.HoldTimeout = 50 * time.Millisecond })
			a, answer := c.nodes["a"], make(chan struct{})
			if tc.silent {
				a.onAppend = func(*nodev1.AppendRequest) error {
					c.holder.Publish(route.New(route.Spec{ClusterID: clusterID, Term: 2}))
					<-answer
					return apierr.Draining{}
				}
			} else {
				a.onAcked = func(*nodev1.AppendRequest) error { c.lead(""); return errCut }
			}
			send := func(v string) error { _, err := p.another().Produce(ctxFor(t, 20*time.Second), rec(v)); return err }
			if tc.stream {
				s, err := p.ProduceStream(ctxFor(t, 20*time.Second))
				require.NoError(t, err)
				require.NoError(t, s.Send(rec(big)))
				_, err = s.Recv()
				requireReason(t, apierr.ReasonOutcomeUnknown, err)
			} else {
				requireReason(t, apierr.ReasonOutcomeUnknown, send(big))
			}
			p.awaitHeld(t, 0)
			bytes := p.metric("produce_bytes_held")
			require.GreaterOrEqual(t, bytes, float64(len(big)), "they are kept")
			require.Less(t, bytes, float64(len(big)+100))
			a.set(func() { a.onAcked, a.onAppend = nil, nil })
			close(answer)
			c.lead("a")
			require.Eventually(t, func() bool { return p.metric("produce_bytes_held") == 0 }, 10*time.Second, time.Millisecond)
			require.Zero(t, p.metric("produce_records_held"))
			require.NoError(t, send(big))
		})
	}
}

// Readers that try again and again cost a produce nothing.
func TestReadersDoNotHoldUpProduces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a")
		c.lead("a")
		c.fill(1)
		p := newProxy(t, c, nil)
		_, err := p.Consume(ctxFor(t, 5*time.Second), &logv1.ConsumeRequest{})
		require.NoError(t, err)
		a := c.nodes["a"]
		a.set(func() { a.onFetch = func(*nodev1.FetchRequest) error { return apierr.Draining{} } })
		ctx, cancel := context.WithCancel(context.Background())
		var readers sync.WaitGroup
		defer readers.Wait()
		defer cancel()
		for range 100 {
			readers.Go(func() { _, _ = p.Consume(ctx, &logv1.ConsumeRequest{}) })
		}
		for p.metric("read_retries_total") <= 150 {
			time.Sleep(time.Millisecond)
		}
		var refusals atomic.Int64
		a.set(func() {
			a.onAppend = func(*nodev1.AppendRequest) error {
				if refusals.Add(1) < 4 {
					return apierr.Draining{}
				}
				return nil
			}
		})
		begun := time.Now()
		_, err = p.Produce(ctxFor(t, 5*time.Second), rec("x"))
		require.NoError(t, err)
		require.Less(t, time.Since(begun), time.Second, "a refused stream waits no longer than its own backoff")
	})
}

// Of very small records a batch holds no more than a node can stamp within its limit.
func TestBatchOfVeryManyRecords(t *testing.T) {
	const n = 40_000
	c := newCluster(t, "a")
	p := newProxy(t, c, func(cfg *forward.Config) { cfg.HoldRecords, cfg.StreamRecords, cfg.StreamBytes = 4*n, n, 64<<20 })
	s, err := p.ProduceStream(ctxFor(t, 30*time.Second))
	require.NoError(t, err)
	for range n {
		require.NoError(t, s.Send(&logv1.ProduceRequest{}))
	}
	require.Eventually(t, func() bool { return p.metric("produce_records_held") == n }, 20*time.Second, time.Millisecond)
	c.lead("a")
	for i := range uint64(n) {
		resp, err := s.Recv()
		require.NoError(t, err)
		require.Equal(t, i, resp.Offset)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	require.LessOrEqual(t, slices.Max(c.batches), 16384)
}
