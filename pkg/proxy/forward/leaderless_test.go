package forward_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/proxy/forward"
)

// requireOrder checks that each client's records, "<client>-<number> …", are in the log
// in its order without a gap, and answers how many there are.
func requireOrder(t *testing.T, c *fakeCluster) int {
	t.Helper()
	next := map[string]int{}
	vs := c.values()
	for _, v := range vs {
		who, rest, _ := strings.Cut(v, "-")
		var n int
		_, err := fmt.Sscanf(rest, "%d", &n)
		require.NoError(t, err)
		require.Equal(t, next[who], n, who)
		next[who]++
	}
	return len(vs)
}

// The leader dies under 1,000 clients, half unary and half streams that send as fast
// as they are let, and for five seconds there is none. No client hears an error, what
// the proxy holds stays within its bounds, and each client's records are in the log
// once and in its order. (DESIGN.md F1, F4, F9; P3, P7)
func TestLeaderlessUnderAThousandClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const (
			clients, each = 1000, 24
			outage        = 5 * time.Second
			holdBytes     = 4 << 20
		)
		c := newCluster(t, "a", "b")
		c.lead("a")
		p := newProxy(t, c, func(cfg *forward.Config) { cfg.HoldBytes = holdBytes })
		a := c.nodes["a"]
		lost := make(chan struct{})
		die := sync.OnceFunc(func() { c.lead(""); a.kill(); close(lost) })
		a.onAcked = func(*nodev1.AppendRequest) error {
			c.mu.Lock()
			enough := len(c.records) > clients*each/4
			c.mu.Unlock()
			if enough {
				die()
				return errCut
			}
			return nil
		}

		told := &acks{at: map[string]uint64{}}
		pad := strings.Repeat("x", 1000)
		ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second) // of virtual time
		defer cancel()
		var conns []logv1.LogClient
		for range 50 {
			conns = append(conns, p.another())
		}
		var wg sync.WaitGroup
		for i := range clients {
			client := conns[i%len(conns)]
			value := func(n int) string { return fmt.Sprintf("%d-%d %s", i, n, pad) }
			wg.Go(func() {
				if i%2 == 0 {
					for n := range each {
						resp, err := client.Produce(ctx, rec(value(n)))
						if err != nil {
							t.Errorf("client %d, record %d: %v", i, n, err)
							return
						}
						told.put(value(n), resp.Offset)
					}
					return
				}
				s, err := client.ProduceStream(ctx)
				if err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				wg.Go(func() {
					for n := range each {
						if s.Send(rec(value(n))) != nil {
							return // Recv has the reason
						}
					}
					_ = s.CloseSend()
				})
				for n := 0; ; n++ {
					resp, err := s.Recv()
					if errors.Is(err, io.EOF) && n == each {
						return
					}
					if err != nil {
						t.Errorf("client %d after %d answers: %v", i, n, err)
						return
					}
					told.put(value(n), resp.Offset)
				}
			})
		}

		<-lost
		begun := time.Now()
		most := 0.0
		for time.Since(begun) < outage {
			time.Sleep(100 * time.Millisecond)
			synctest.Wait() // every client waits now
			most = max(most, p.metric("produce_bytes_held"))
		}
		require.LessOrEqual(t, most, float64(holdBytes))
		require.Greater(t, most, holdBytes*0.5, "the streams filled what they may, and the calls are there as well")
		require.GreaterOrEqual(t, p.metric("produce_records_held"), float64(clients/2), "every unary client's record is held")
		c.lead("b")
		wg.Wait()
		require.False(t, t.Failed())
		require.Equal(t, clients*each, requireOrder(t, c))
		requireOnce(t, c, told)
		require.Len(t, c.producers, 1, "one producer, kept across leaders")
		require.Zero(t, p.metric("produce_records_held"))
		require.Zero(t, p.metric("produce_bytes_held"))
		t.Logf("held at most %.2f MiB of %d MiB; %d batches", most/(1<<20), holdBytes>>20, len(c.batches))
	})
}
