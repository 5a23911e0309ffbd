package forward_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/proxy/forward"
)

// A produce that finds nothing under way is sent at once: time does not pass.
// (DESIGN.md F7)
func TestNothingWaitsForCompany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a")
		c.lead("a")
		p := newProxy(t, c, nil)
		begun := time.Now()
		for range 100 {
			_, err := p.Produce(context.Background(), rec("x"))
			require.NoError(t, err)
		}
		require.Zero(t, time.Since(begun))
		require.Len(t, c.batches, 100)
	})
}

// How long a produce waits, to the moment, and what it is told then. (DESIGN.md F9, F12)
func TestHoldTimes(t *testing.T) {
	const step = 5 * time.Millisecond // between two looks
	for name, tc := range map[string]struct {
		before func(*fakeCluster) // before the produce
		client time.Duration      // its deadline; 0: none
		wait   time.Duration
		reason apierr.Reason
		code   codes.Code
	}{
		"no leader": {
			wait: 10 * time.Second, reason: apierr.ReasonNotSent, code: codes.Unavailable},
		"no leader, and a client in a hurry": {
			client: time.Second, wait: 900 * time.Millisecond, reason: apierr.ReasonNotSent, code: codes.Unavailable},
		"no leader, and a client with more time than a produce is held": {
			client: time.Minute, wait: 10 * time.Second, reason: apierr.ReasonNotSent, code: codes.Unavailable},
		"the leader took it and is gone": {
			before: func(c *fakeCluster) {
				c.lead("a")
				c.nodes["a"].onAppend = func(*nodev1.AppendRequest) error { c.lead(""); return errCut }
			},
			wait: 10 * time.Second, reason: apierr.ReasonOutcomeUnknown, code: codes.Aborted},
		"the leader took it and is gone, and a client in a hurry": {
			before: func(c *fakeCluster) {
				c.lead("a")
				c.nodes["a"].onAppend = func(*nodev1.AppendRequest) error { c.lead(""); return errCut }
			},
			client: 4 * time.Second, wait: 3750 * time.Millisecond, reason: apierr.ReasonOutcomeUnknown, code: codes.Aborted},
		"the leader took it and is silent": { // since it was sent
			before: func(c *fakeCluster) { c.lead("a"); c.nodes["a"].freeze() },
			wait:   10 * time.Second, reason: apierr.ReasonOutcomeUnknown, code: codes.Aborted},
		"the leader took it and is silent, and a client in a hurry": { // not yet missed
			before: func(c *fakeCluster) { c.lead("a"); c.nodes["a"].freeze() },
			client: time.Second, wait: 900 * time.Millisecond, reason: apierr.ReasonOutcomeUnknown, code: codes.Aborted},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, "a")
				if tc.before != nil {
					tc.before(c)
				}
				p := newProxy(t, c, nil)
				ctx := context.Background()
				if tc.client > 0 {
					ctx = ctxFor(t, tc.client)
				}
				begun := time.Now()
				_, err := p.Produce(ctx, rec("x"))
				requireReason(t, tc.reason, err)
				require.Equal(t, tc.code, status.Code(err))
				require.GreaterOrEqual(t, time.Since(begun), tc.wait)
				require.LessOrEqual(t, time.Since(begun), tc.wait+step)
				c.nodes["a"].thaw()
			})
		})
	}
}

// A retry of an append stream costs a token that all principals share, and without
// one it waits a second: a leader that refuses everybody is not asked by a thousand
// principals as often as each alone would. Nobody is forgotten. (DESIGN.md F13)
func TestAppendStreamsAreBudgeted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const principals = 200
		c := newCluster(t, "a")
		c.lead("a")
		p := newProxy(t, c, func(cfg *forward.Config) {
			cfg.HoldTimeout = time.Hour
			cfg.Principal = func(ctx context.Context) (string, error) {
				return metadata.ValueFromIncomingContext(ctx, "who")[0], nil
			}
		})
		a := c.nodes["a"]
		var refuse atomic.Bool
		refuse.Store(true)
		a.onAppend = func(*nodev1.AppendRequest) error {
			if refuse.Load() {
				return apierr.Draining{}
			}
			return nil
		}
		var wg sync.WaitGroup
		for i := range principals {
			wg.Go(func() {
				ctx := metadata.AppendToOutgoingContext(context.Background(), "who", fmt.Sprint(i))
				if _, err := p.Produce(ctx, rec("x")); err != nil {
					t.Errorf("principal %d: %v", i, err)
				}
			})
		}
		streams := func() int { a.mu.Lock(); defer a.mu.Unlock(); return a.streams }
		time.Sleep(900 * time.Millisecond)
		synctest.Wait()
		require.LessOrEqual(t, streams(), principals+100+10, "each once, and the tokens")
		time.Sleep(60 * time.Second)
		synctest.Wait()
		before := streams()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.LessOrEqual(t, streams()-before, 10*(principals+10)*11/10, "one a second each, and the tokens")
		refuse.Store(false)
		wg.Wait()
		require.Len(t, c.values(), principals)
	})
}

// A client that leaves frees at once what waits of it, and nothing of what was sent:
// that is sent again until its outcome is known, the same bytes, and what comes after
// it has other numbers. (DESIGN.md F2, F11)
func TestAStreamThatLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a", "b")
		c.lead("a")
		c.nodes["a"].freeze()
		p := newProxy(t, c, func(cfg *forward.Config) { cfg.BatchBytes = 1 << 10 })
		ctx, leave := context.WithCancel(context.Background())
		s, err := p.another().ProduceStream(ctx)
		require.NoError(t, err)
		for i := range 300 {
			require.NoError(t, s.Send(rec(fmt.Sprintf("s-%d %s", i, strings.Repeat("x", 90)))))
		}
		synctest.Wait()
		require.EqualValues(t, 300, p.metric("produce_records_held"))
		leave()
		synctest.Wait()
		sent := int(p.metric("produce_records_held"))
		require.Positive(t, sent)
		require.Less(t, sent, 60, "five batches of at most ten")

		got := make(chan error, 1)
		go func() { _, err := p.Produce(context.Background(), rec("o-0")); got <- err }()
		synctest.Wait()
		c.lead("b") // a is still frozen: its part is unknown
		require.NoError(t, <-got)
		vs := c.values()
		require.Len(t, vs, sent+1)
		require.Equal(t, "o-0", vs[sent])
		requireOrder(t, c)
		require.Zero(t, p.metric("produce_records_held"))
		require.EqualValues(t, 5, p.metric("batches_resent_total"))
		c.nodes["a"].thaw()
	})
}

// A stream waits for room as long as a produce is held, and hears then that there was
// none, and when to come again. (DESIGN.md F12)
func TestAStreamThatFindsNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a")
		c.lead("a")
		c.nodes["a"].freeze()
		p := newProxy(t, c, func(cfg *forward.Config) { cfg.AckTimeout, cfg.HoldRecords = time.Hour, 3 })
		for range 3 {
			client := p.another()
			go func() { _, _ = client.Produce(context.Background(), rec("x")) }()
			synctest.Wait()
		}
		begun := time.Now()
		s, err := p.another().ProduceStream(context.Background())
		require.NoError(t, err)
		require.NoError(t, s.Send(rec("y")))
		_, err = s.Recv()
		requireReason(t, apierr.ReasonOverloaded, err)
		require.Equal(t, codes.ResourceExhausted, status.Code(err))
		require.Equal(t, []string{"250"}, s.Trailer()["grpc-retry-pushback-ms"])
		require.Equal(t, 10*time.Second, time.Since(begun))
		require.EqualValues(t, 3, p.metric("produce_records_held"))
		c.nodes["a"].thaw()
		synctest.Wait()
		require.Equal(t, []string{"x", "x", "x"}, c.values())
	})
}
