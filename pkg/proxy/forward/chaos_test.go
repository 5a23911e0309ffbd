package forward_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/proxy/forward"
)

// acks remembers what clients were told.
type acks struct {
	mu sync.Mutex
	at map[string]uint64
}

func (a *acks) put(v string, offset uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at[v] = offset
}

// requireOnce checks that every acknowledged record is in the log once, where its
// client was told, and that nothing else is.
func requireOnce(t *testing.T, c *fakeCluster, a *acks) {
	t.Helper()
	vs := c.values()
	seen := map[string]int{}
	for i, v := range vs {
		if j, ok := seen[v]; ok {
			t.Fatalf("%s is at %d and at %d", v, j, i)
		}
		seen[v] = i
	}
	for v, offset := range a.at {
		i, ok := seen[v]
		require.True(t, ok, "%s was acknowledged and is lost", v)
		require.EqualValues(t, i, offset, v)
	}
	require.Len(t, vs, len(a.at))
}

// 1000 concurrent producers, half unary and half streams, through 20 changes of
// leader of every kind: no client sees an error, every record is in the log once,
// and each client's are in its order. (DESIGN.md F1–F4; P3, P7)
func TestManyProducersThroughLeaderChanges(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	ids := []string{"a", "b", "c"}
	c := newCluster(t, ids...)
	c.lead("a")
	p := newProxy(t, c, func(cfg *forward.Config) {
		cfg.AckTimeout = 500 * time.Millisecond
		cfg.HoldTimeout = 60 * time.Second
		cfg.BatchBytes = 4 << 10
	})
	const producers, changes = 1000, 20
	told := &acks{at: map[string]uint64{}}
	ctx, stop := context.WithTimeout(context.Background(), 90*time.Second)
	defer stop()
	changed := make(chan struct{})
	var wg sync.WaitGroup
	for i := range producers {
		wg.Go(func() {
			if i%2 == 0 {
				for n := 0; ; n++ {
					v := fmt.Sprintf("u%d-%d", i, n)
					resp, err := p.Produce(ctx, rec(v))
					if err != nil {
						t.Errorf("%s: %v", v, err)
						return
					}
					told.put(v, resp.Offset)
					select {
					case <-changed:
						return
					default:
					}
				}
			}
			s, err := p.ProduceStream(ctx)
			if err != nil {
				t.Errorf("stream %d: %v", i, err)
				return
			}
			const ahead = 3
			for n := 0; ; n++ {
				more := true
				select {
				case <-changed:
					more = false
				default:
				}
				if more {
					if err := s.Send(rec(fmt.Sprintf("s%d-%d", i, n))); err != nil {
						t.Errorf("stream %d: send: %v", i, err)
						return
					}
				} else {
					_ = s.CloseSend()
				}
				for m := max(0, n-ahead); n >= ahead || !more; m++ {
					resp, err := s.Recv()
					if errors.Is(err, io.EOF) && !more && m == n {
						return
					}
					if err != nil {
						t.Errorf("stream %d: %v", i, err)
						return
					}
					told.put(fmt.Sprintf("s%d-%d", i, m), resp.Offset)
					if more {
						break
					}
				}
			}
		})
	}

	logLen := func() int { c.mu.Lock(); defer c.mu.Unlock(); return len(c.records) }
	now := "a"
	for k := range changes {
		grown := logLen() + 500
		require.Eventually(t, func() bool { return logLen() > grown || t.Failed() }, 30*time.Second, time.Millisecond)
		old, next := c.nodes[now], ids[(k+1)%len(ids)]
		hit := make(chan struct{})
		once := sync.OnceFunc(func() { close(hit) })
		fail := func(err error) func(*nodev1.AppendRequest) error {
			return func(*nodev1.AppendRequest) error { c.elect(next); once(); return err }
		}
		die := func(*nodev1.AppendRequest) error { c.elect(next); old.kill(); once(); return errCut }
		switch kind := rng.IntN(7); kind {
		case 0:
			old.set(func() { old.onAppend = die })
		case 1:
			old.set(func() { old.onAcked = die })
		case 2:
			old.set(func() { old.onAcked = fail(apierr.OutcomeUnknown{}) })
		case 3:
			old.set(func() { old.onAppend = fail(apierr.Draining{}) })
		case 4: // deposed: it names the next one itself
			c.elect(next)
			once()
		case 5: // SIGSTOP
			old.freeze()
			c.elect(next)
			once()
		case 6: // a time without any leader
			c.elect("")
			c.publish()
			c.elect(next)
			once()
		}
		select {
		case <-hit:
		case <-ctx.Done():
			t.Fatal("the leader was asked nothing")
		}
		if rng.IntN(4) > 0 {
			c.publish()
		} // else the proxy has only what nodes tell it, until the next line but one
		grown = logLen() + 10
		c.publish()
		require.Eventually(t, func() bool { return logLen() > grown || t.Failed() }, 30*time.Second, time.Millisecond)
		old.thaw()
		old.revive()
		old.set(func() { old.onAppend, old.onAcked = nil, nil })
		now = next
	}
	close(changed)
	wg.Wait()
	requireOnce(t, c, told)
	// Each client's records are in its order.
	last := map[string]int{}
	for _, v := range c.values() {
		var who, n int
		_, err := fmt.Sscanf(v[1:], "%d-%d", &who, &n)
		require.NoError(t, err)
		key := v[:1] + strconv.Itoa(who)
		require.Equal(t, last[key], n, key)
		last[key]++
	}
	require.Zero(t, p.metric("produce_records_held"))
	require.Zero(t, p.metric("produce_bytes_held"))
	t.Logf("%d records in %d batches, %v resent, %v duplicates", len(told.at), len(c.batches), p.metric("batches_resent_total"), p.metric("batches_duplicate_total"))
}

// While leaders change and clients come and go with short deadlines, whoever is told
// NOT_SENT may repeat and nothing is there twice; unknown outcomes are there at most
// once.
func TestImpatientProducersThroughLeaderChanges(t *testing.T) {
	c := newCluster(t, "a", "b")
	c.lead("a")
	p := newProxy(t, c, func(cfg *forward.Config) {
		cfg.AckTimeout = 30 * time.Millisecond
		cfg.HoldTimeout = 40 * time.Millisecond
	})
	told := &acks{at: map[string]uint64{}}
	never := sync.Map{}
	changed := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			for n := 0; ; n++ {
				v := fmt.Sprintf("u%d-%d", i, n)
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(5+i)*time.Millisecond)
				resp, err := p.Produce(ctx, rec(v))
				cancel()
				switch {
				case err == nil:
					told.put(v, resp.Offset)
				case apierr.ReasonOf(err) == apierr.ReasonNotSent:
					never.Store(v, true)
				}
				select {
				case <-changed:
					return
				default:
				}
			}
		})
	}
	logLen := func() int { c.mu.Lock(); defer c.mu.Unlock(); return len(c.records) }
	for k := range 20 {
		now, next := c.nodes[[]string{"a", "b"}[k%2]], []string{"b", "a"}[k%2]
		switch k % 4 {
		case 0:
			now.freeze()
		case 1:
			c.lead("")
		case 2:
			now.set(func() { now.onAppend = func(*nodev1.AppendRequest) error { return apierr.Draining{} } })
		case 3:
			now.set(func() { now.onAcked = func(*nodev1.AppendRequest) error { return errCut } })
		}
		before := p.metric("hold_expired_total")
		require.Eventually(t, func() bool { return p.metric("hold_expired_total") > before }, 20*time.Second, time.Millisecond)
		c.lead(next)
		now.thaw()
		now.set(func() { now.onAppend, now.onAcked = nil, nil })
		grown := logLen() + 50
		require.Eventually(t, func() bool { return logLen() > grown }, 20*time.Second, time.Millisecond)
	}
	close(changed)
	wg.Wait()
	vs := map[string]bool{}
	for i, v := range c.values() {
		require.False(t, vs[v], "%s is there twice", v)
		vs[v] = true
		if offset, ok := told.at[v]; ok {
			require.EqualValues(t, i, offset)
		}
		_, ok := never.Load(v)
		require.False(t, ok, "%s is in the log, and its client was told that it was not sent", v)
	}
	for v := range told.at {
		require.True(t, vs[v], v)
	}
	require.Eventually(t, func() bool { return p.metric("produce_records_held") == 0 }, 20*time.Second, time.Millisecond)
}

// Consumers tail across kills, silence and lag while producers write.
func TestTailThroughNodeFailures(t *testing.T) {
	ids := []string{"a", "b", "c"}
	c := newCluster(t, ids...)
	c.lead("a")
	p := newProxy(t, c, func(cfg *forward.Config) { cfg.StallTimeout = 350 * time.Millisecond })
	const total = 6000
	var wg sync.WaitGroup
	reached := make(chan int, total)
	for i := range 10 {
		wg.Go(func() {
			s, err := p.ConsumeStream(ctxFor(t, 60*time.Second), &logv1.ConsumeRequest{})
			if err != nil {
				t.Error(err)
				return
			}
			for n := range total {
				resp, err := s.Recv()
				if err != nil || resp.Record.Offset != uint64(n) || string(resp.Record.Value) != "v"+strconv.Itoa(n) {
					t.Errorf("consumer %d at %d: %v %v", i, n, resp, err)
					return
				}
				if i == 0 {
					reached <- n
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(7, 7))
	for at := 0; at < total; at += 300 {
		c.fill(300)
		n := c.nodes[ids[rng.IntN(3)]]
		switch rng.IntN(3) {
		case 0:
			n.kill()
		case 1:
			n.freeze()
		case 2:
			n.set(func() { n.lag = 200 })
		}
		for got := range reached {
			if got >= at+50 {
				break
			}
		}
		n.thaw()
		n.revive()
		n.set(func() { n.lag = 0 })
	}
	wg.Wait()
	require.Greater(t, p.metric("stream_resumes_total"), 0.0)
}
