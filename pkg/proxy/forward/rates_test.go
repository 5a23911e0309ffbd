package forward_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/internal/throttle"
	"github.com/logd-io/logd/pkg/proxy/forward"
)

const mib = 1 << 20

// nearly is a record's value of nearly a MiB.
var nearly = strings.Repeat("x", mib-8<<10)

// rated is a proxy whose principals have rates; whose a call is stands in its metadata.
func rated(t *testing.T, c *fakeCluster, rates throttle.Rates) *proxy {
	t.Helper()
	limit, err := throttle.New(throttle.Config{Rates: rates, Namespace: "logproxy"})
	require.NoError(t, err)
	return newProxy(t, c, func(cfg *forward.Config) {
		cfg.Rates = limit
		cfg.Principal = func(ctx context.Context) (string, error) {
			return metadata.ValueFromIncomingContext(ctx, "as")[0], nil
		}
	})
}

// A call with too much is refused before it is queued, and a gRPC client that retries
// is told when.
func TestProduceRateRefusesCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a", "b")
		c.lead("a")
		p := rated(t, c, throttle.Rates{Produce: mib})
		alice := ctxFor(t, time.Hour, "as", "alice")
		for range 4 {
			_, err := p.Produce(alice, rec(nearly))
			require.NoError(t, err)
		}
		time.Sleep(20 * time.Millisecond)
		var trailer metadata.MD
		_, err := p.Produce(alice, rec(nearly), grpc.Trailer(&trailer))
		requireReason(t, apierr.ReasonOverloaded, err)
		require.ErrorContains(t, err, "produce_rate")
		info, _ := apierr.From(err)
		require.Equal(t, []string{fmt.Sprint(info.RetryAfter().Milliseconds())}, trailer.Get("grpc-retry-pushback-ms"))
		require.Len(t, c.values(), 4)
		_, err = p.Produce(ctxFor(t, time.Hour, "as", "bob"), rec(nearly))
		require.NoError(t, err, "others have rates of their own")
		time.Sleep(info.RetryAfter() + time.Millisecond)
		_, err = p.Produce(alice, rec(nearly))
		require.NoError(t, err)
	})
}

// A stream with too much waits, and all of it is there once and in its order.
func TestProduceRateSlowsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const records = 24
		c := newCluster(t, "a", "b")
		c.lead("a")
		p := rated(t, c, throttle.Rates{Produce: mib})
		s, err := p.ProduceStream(ctxFor(t, time.Hour, "as", "alice"))
		require.NoError(t, err)
		begun := time.Now()
		go func() {
			for i := range records {
				if s.Send(rec(fmt.Sprintf("%02d%s", i, nearly))) != nil {
					return
				}
			}
			_ = s.CloseSend()
		}()
		bob := ctxFor(t, time.Hour, "as", "bob")
		bobs := 0
		for i := range records {
			resp, err := s.Recv()
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("%02d", i), c.values()[resp.GetOffset()][:2])
			if i > 4 && i%6 == 0 { // alice waits
				was := time.Now()
				_, err := p.Produce(bob, rec("b"))
				require.NoError(t, err)
				require.Less(t, time.Since(was), 100*time.Millisecond)
				bobs++
			}
		}
		require.InDelta(t, float64(20*time.Second), float64(time.Since(begun)), float64(time.Second), "four in store, one a second")
		require.Len(t, c.values(), records+bobs, "nothing twice")
	})
}

// A consume stream with too much waits between records; one of somebody else at the
// same place does not, and single reads are refused.
func TestConsumeRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const records, size = 200, 60 << 10
		c := newCluster(t, "a", "b")
		c.lead("a")
		p := rated(t, c, throttle.Rates{Consume: mib})
		c.fillBig(records, size)
		begun := time.Now()
		s, err := p.ConsumeStream(ctxFor(t, time.Hour, "as", "alice"), &logv1.ConsumeRequest{})
		require.NoError(t, err)
		for i := range uint64(records) {
			resp, err := s.Recv()
			require.NoError(t, err)
			require.Equal(t, i, resp.GetRecord().GetOffset())
			if i != 120 {
				continue
			}
			_, err = p.Consume(ctxFor(t, time.Hour, "as", "alice"), &logv1.ConsumeRequest{})
			requireReason(t, apierr.ReasonOverloaded, err)
			require.ErrorContains(t, err, "consume_rate")
			was := time.Now()
			other, err := p.ConsumeStream(ctxFor(t, time.Hour, "as", "bob"), &logv1.ConsumeRequest{})
			require.NoError(t, err)
			for range 4 {
				_, err := other.Recv()
				require.NoError(t, err)
			}
			_, err = p.Consume(ctxFor(t, time.Hour, "as", "carol"), &logv1.ConsumeRequest{})
			require.NoError(t, err)
			require.Less(t, time.Since(was), 500*time.Millisecond)
		}
		require.Greater(t, time.Since(begun), 6*time.Second, "4 of nearly 12 MiB in store, one a second")
	})
}

// A node that refuses a read for its principal's rate is not tried again, nor are the
// others: the retries are everybody's.
func TestNodesRateIsFinal(t *testing.T) {
	c := newCluster(t, "a", "b", "c")
	c.lead("a")
	c.fill(1)
	for _, id := range c.order {
		n := c.nodes[id]
		n.mu.Lock()
		n.onFetch = func(*nodev1.FetchRequest) error {
			return apierr.Overloaded{RetryAfter: 1500 * time.Millisecond, Why: "consume_rate", Limit: "consume_rate"}
		}
		n.mu.Unlock()
	}
	p := newProxy(t, c, nil)
	_, err := p.Consume(ctxFor(t, 20*time.Second), &logv1.ConsumeRequest{})
	requireReason(t, apierr.ReasonOverloaded, err)
	info, _ := apierr.From(err)
	require.Equal(t, 1500*time.Millisecond, info.RetryAfter())
	require.Zero(t, p.metric("read_retries_total"))
	_, failed := p.hints.all()
	require.Empty(t, failed, "the node is as good as it was")
}

// A node that has no room is no reason for a client not to be answered: another is
// asked. Where all say so until the client's time is up, it is told so.
func TestANodeWithoutRoomIsPassedOver(t *testing.T) {
	c := newCluster(t, "a", "b", "c")
	c.lead("a")
	c.fill(1)
	refuse := func(ids ...string) {
		for _, id := range ids {
			n := c.nodes[id]
			n.mu.Lock()
			n.onFetch = func(*nodev1.FetchRequest) error { return apierr.Overloaded{RetryAfter: time.Second} }
			n.mu.Unlock()
		}
	}
	p := newProxy(t, c, nil)
	refuse("b", "c")
	_, err := p.Consume(ctxFor(t, 20*time.Second), &logv1.ConsumeRequest{})
	require.NoError(t, err)
	refuse("a")
	_, err = p.Consume(ctxFor(t, time.Second), &logv1.ConsumeRequest{})
	requireReason(t, apierr.ReasonOverloaded, err)
}
