package forward_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/proxy/forward"
)

// TestProduceSim is clients of every kind and leaders that fail in every way, in
// virtual time, from many seeds: what a client was told is true, each record is in the
// log at most once, and what a client sent is there in its order.
// PRODUCE_SEED repeats one. (DESIGN.md F1–F5, F12)
func TestProduceSim(t *testing.T) {
	first, runs := uint64(time.Now().UnixNano()), uint64(5)
	if s := os.Getenv("PRODUCE_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
		first, runs = n, 1
	}
	sum := map[string]int{}
	for seed := first; seed < first+runs; seed++ {
		synctest.Test(t, func(t *testing.T) { simulate(t, seed, sum) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Log(sum)
	for _, what := range []string{"acknowledged", string(apierr.ReasonNotSent), string(apierr.ReasonOutcomeUnknown), "resent", "duplicates"} {
		require.Positive(t, sum[what], what)
	}
}

// told is what clients heard of their records.
type told struct {
	mu     sync.Mutex
	at     map[string]uint64 // acknowledged
	absent map[string]bool   // certainly not sent
	sum    map[string]int    // by kind
}

func (o *told) note(v string, offset uint64, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	reason := apierr.ReasonOf(err)
	switch {
	case err == nil:
		o.at[v] = offset
		o.sum["acknowledged"]++
		return
	case reason == apierr.ReasonNotSent, reason == apierr.ReasonOverloaded:
		o.absent[v] = true
	}
	if reason == "" {
		reason = "cancelled, or too late"
	}
	o.sum[string(reason)]++
}

func simulate(t *testing.T, seed uint64, sum map[string]int) {
	rng := rand.New(rand.NewPCG(seed, 0))
	ids := []string{"a", "b", "c"}
	c := newCluster(t, ids...)
	c.lead("a")
	p := newProxy(t, c, func(cfg *forward.Config) {
		cfg.BatchBytes = 200 + rng.IntN(2000)
		cfg.HoldTimeout = time.Duration(1+rng.IntN(4)) * time.Second
		cfg.AckTimeout = time.Duration(200+rng.IntN(1500)) * time.Millisecond
		cfg.IdleTimeout = time.Duration(1+rng.IntN(10)) * time.Second
		cfg.HoldRecords = 50 + rng.IntN(500)
	})
	heard := &told{at: map[string]uint64{}, absent: map[string]bool{}, sum: sum}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range 30 {
		client := p.another()
		rng := rand.New(rand.NewPCG(seed, uint64(i)+1))
		nap := func() { time.Sleep(upTo(rng, 500*time.Millisecond)) }
		value := func(n int) string { return fmt.Sprintf("%d-%d %s", i, n, strings.Repeat("x", rng.IntN(200))) }
		if i%3 > 0 {
			wg.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					call, cancel := context.Background(), context.CancelFunc(func() {})
					switch i % 5 {
					case 0:
						call, cancel = context.WithTimeout(call, upTo(rng, 3*time.Second))
					case 1:
						call, cancel = context.WithCancel(call)
						time.AfterFunc(upTo(rng, 2*time.Second), cancel)
					}
					v := value(n)
					resp, err := client.Produce(call, rec(v))
					heard.note(v, resp.GetOffset(), err)
					cancel()
					nap()
				}
			})
			continue
		}
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; {
				call, cancel := context.WithCancel(context.Background())
				s, err := client.ProduceStream(call)
				if err != nil {
					cancel()
					continue
				}
				var sent []string
				for range 1 + rng.IntN(40) {
					v := value(n)
					if s.Send(rec(v)) != nil {
						break
					}
					sent = append(sent, v)
					n++
					if rng.IntN(4) == 0 {
						nap()
					}
				}
				if rng.IntN(4) == 0 {
					cancel()
				}
				_ = s.CloseSend()
				for k := 0; ; k++ {
					resp, err := s.Recv()
					if errors.Is(err, io.EOF) {
						if k != len(sent) {
							t.Errorf("stream of client %d ended after %d of %d", i, k, len(sent))
						}
						break
					}
					if err == nil {
						heard.note(sent[k], resp.Offset, nil)
						continue
					}
					for ; k < len(sent); k++ { // NOT_SENT is about all that come after, too
						heard.note(sent[k], 0, err)
						if apierr.ReasonOf(err) != apierr.ReasonNotSent {
							break
						}
					}
					break
				}
				cancel()
				nap()
			}
		})
	}

	for range 25 {
		time.Sleep(upTo(rng, 2*time.Second))
		n := c.nodes[ids[rng.IntN(3)]]
		c.mu.Lock()
		if led := c.nodes[c.leader]; led != nil && rng.IntN(4) > 0 {
			n = led
		}
		c.mu.Unlock()
		once := func(err error) func(*nodev1.AppendRequest) error {
			var mu sync.Mutex
			left := 1 + rng.IntN(3)
			return func(*nodev1.AppendRequest) error {
				mu.Lock()
				defer mu.Unlock()
				if left--; left < 0 {
					return nil
				}
				return err
			}
		}
		errs := []error{errCut, apierr.OutcomeUnknown{}}
		refusals := []error{apierr.Draining{}, apierr.Overloaded{RetryAfter: upTo(rng, 2*time.Second)}, apierr.NotLeader{Term: 1}, apierr.NotLeader{Leader: "b", Term: 99}}
		switch rng.IntN(9) {
		case 0:
			n.kill()
		case 1:
			n.freeze()
		case 2:
			n.set(func() { n.onAcked = once(errs[rng.IntN(2)]) })
		case 3:
			n.set(func() { n.onAppend = once(errs[rng.IntN(2)]) })
		case 4:
			n.set(func() { n.onAppend = once(refusals[rng.IntN(4)]) })
		case 5:
			c.elect("") // the proxy is not told
		case 6:
			c.lead("")
		case 7:
			c.forgetUnless(p.fwd.FirstInDoubt)
		case 8:
			c.elect(ids[rng.IntN(3)])
		}
		time.Sleep(upTo(rng, 3*time.Second))
		if rng.IntN(3) > 0 {
			c.lead(ids[rng.IntN(3)])
		}
		n.thaw()
		n.revive()
		if rng.IntN(2) == 0 {
			n.set(func() { n.onAppend, n.onAcked = nil, nil })
		}
	}
	for _, n := range c.nodes {
		n.thaw()
		n.revive()
		n.set(func() { n.onAppend, n.onAcked = nil, nil })
	}
	c.lead("a")
	stop()
	wg.Wait()
	time.Sleep(20 * time.Second) // what is frozen for clients that have gone is settled
	synctest.Wait()

	require.Zero(t, p.metric("produce_records_held"))
	require.Zero(t, p.metric("produce_bytes_held"))
	last := map[string]int{}
	seen := map[string]bool{}
	for offset, v := range c.values() {
		require.False(t, seen[v], "%s is there twice", v)
		seen[v] = true
		require.False(t, heard.absent[v], "%s is at %d, and its client was told that it was not sent", v, offset)
		if at, ok := heard.at[v]; ok {
			require.EqualValues(t, at, offset, v)
		}
		who, rest, _ := strings.Cut(v, "-")
		num, _, _ := strings.Cut(rest, " ")
		k, err := strconv.Atoi(num)
		require.NoError(t, err)
		require.Greater(t, k+1, last[who], "order of client %s", who)
		last[who] = k + 1
	}
	for v, offset := range heard.at {
		require.True(t, seen[v], "%s was acknowledged at %d and is lost", v, offset)
	}
	sum["resent"] += int(p.metric("batches_resent_total"))
	sum["duplicates"] += int(p.metric("batches_duplicate_total"))
}

func upTo(rng *rand.Rand, d time.Duration) time.Duration {
	return time.Duration(rng.Int64N(int64(d)))
}
