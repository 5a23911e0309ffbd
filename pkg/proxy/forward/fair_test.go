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
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/proxy/forward"
)

// batches is how many batches the proxy has made.
func (p *proxy) batches() int {
	fams, err := p.reg.Gather()
	if err != nil {
		return -1
	}
	for _, fam := range fams {
		if fam.GetName() == "logproxy_forward_batch_records" {
			return int(fam.GetMetric()[0].GetHistogram().GetSampleCount())
		}
	}
	return -1
}

// batchOf is which batch of the log the record at offset came with.
func (c *fakeCluster) batchOf(offset uint64) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, n := range c.batches {
		if offset < uint64(n) {
			return i
		}
		offset -= uint64(n)
	}
	return -1
}

// flood opens a ProduceStream and sends n records of size bytes that begin with name.
func flood(t *testing.T, client logv1.LogClient, name string, n, size int) logv1.Log_ProduceStreamClient {
	s, err := client.ProduceStream(ctxFor(t, 60*time.Second))
	require.NoError(t, err)
	v := name + strings.Repeat("x", size-len(name))
	for range n {
		require.NoError(t, s.Send(rec(v)))
	}
	return s
}

// patient is for tests whose leader waits for them.
func patient(cfg *forward.Config) { cfg.AckTimeout, cfg.HoldTimeout = time.Hour, time.Hour }

func (p *proxy) awaitHeld(t *testing.T, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return p.metric("produce_records_held") == float64(n) }, 20*time.Second, time.Millisecond)
}

// Whatever others have waiting, a light client's record is in the next batch that is
// made: at once while there is a place in the window, and heavy ones leave three; the
// first finds none, and is before the flood when there is one. (DESIGN.md F8)
func TestALightClientGoesIntoTheNextBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a")
		c.lead("a")
		step := make(chan struct{})
		c.nodes["a"].onAppend = func(*nodev1.AppendRequest) error { <-step; return nil }
		p := newProxy(t, c, func(cfg *forward.Config) { patient(cfg); cfg.BatchBytes = 4 << 10 })
		require.Equal(t, 0, p.batches())

		// Three streams and 200 unary calls on a connection of their own.
		const streams, each, calls = 3, 900, 200
		for i := range streams {
			flood(t, p.another(), fmt.Sprint("flood", i), each, 100)
		}
		unary := p.another()
		for range calls {
			go func() { _, _ = unary.Produce(context.Background(), rec(strings.Repeat("u", 100))) }()
		}
		synctest.Wait()
		const window = 5
		require.Equal(t, window, p.batches())

		light, other := p.another(), p.another()
		stepped := 0
		for i := range 6 {
			made := p.batches()
			got := make(chan uint64, 2)
			for _, client := range []logv1.LogClient{light, other} {
				go func() {
					resp, err := client.Produce(context.Background(), rec(fmt.Sprint("light", i)))
					if err != nil {
						t.Errorf("light client: %v", err)
					}
					got <- resp.GetOffset()
				}()
				synctest.Wait()
			}
			sent := p.batches()
			if i == 0 {
				require.Equal(t, made, sent, "the window is full")
			} else {
				require.Equal(t, made+2, sent, "each goes at once")
			}
			for len(got) < 2 {
				step <- struct{}{}
				stepped++
				synctest.Wait()
			}
			require.Equal(t, made, c.batchOf(<-got))
			require.Equal(t, max(made, sent-1), c.batchOf(<-got))
			require.Equal(t, stepped+2, p.batches(), "under way of the flood")
		}
		close(step)
	})
}

// Of each batch every client gets the same, in bytes, as long as it has something
// waiting, whatever the size and number of its records. (DESIGN.md F8)
func TestABatchIsSharedEvenly(t *testing.T) {
	const batch, each = 32 << 10, 240 << 10
	c := newCluster(t, "a")
	p := newProxy(t, c, func(cfg *forward.Config) { cfg.BatchBytes, cfg.HoldRecords = batch, 1<<16 })
	sizes := map[byte]int{'a': 100, 'b': 1000, 'c': 4000}
	total := 0
	for name, size := range sizes {
		flood(t, p.another(), string(name), each/size, size)
		total += each / size
	}
	p.awaitHeld(t, total)
	c.lead("a")
	p.awaitHeld(t, 0)
	vs := c.values()
	had := map[byte]int{}
	var shared int
	for _, n := range c.batches {
		got := map[byte]int{}
		for _, v := range vs[:n] {
			got[v[0]] += len(v)
		}
		vs = vs[n:]
		for name := range sizes {
			had[name] += got[name]
		}
		if max(had['a'], had['b'], had['c']) > each-batch {
			break // from here on they run dry
		}
		shared++
		for name, size := range sizes {
			// One record more or less at either end, and what is charged together.
			require.InDelta(t, batch/len(sizes), got[name], float64(2*4000+size+1024), "client %c", name)
			require.InDelta(t, had['a'], had[name], float64(4000+size+2*1024), "client %c in all", name)
		}
	}
	require.GreaterOrEqual(t, shared, 15)
}

// Records with a request id travel in batches of their own, so these are what their
// clients are given evenly: a flood of them costs another client one batch.
func TestAFloodOfRequestIDs(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	step := make(chan struct{})
	c.nodes["a"].onAppend = func(*nodev1.AppendRequest) error { <-step; return nil }
	p := newProxy(t, c, func(cfg *forward.Config) { patient(cfg); cfg.HoldRecords = 65536 })
	flooder := p.another()
	for i := range 100 {
		go func() {
			ctx := metadata.AppendToOutgoingContext(context.Background(), "logd-request-id", fmt.Sprint(i))
			_, _ = flooder.Produce(ctx, rec("x"))
		}()
	}
	p.awaitHeld(t, 100)
	require.Eventually(t, func() bool { return p.batches() == 5 }, 20*time.Second, time.Millisecond)
	got := make(chan uint64, 2)
	keyed, stream := p.another(), flood(t, p.another(), "stream", 2900, 100)
	go func() {
		resp, err := keyed.Produce(ctxFor(t, 60*time.Second, "logd-request-id", "light"), rec("light"))
		if err != nil {
			t.Error(err)
		}
		got <- resp.GetOffset()
	}()
	p.awaitHeld(t, 100+1+2900)
	close(step)
	require.LessOrEqual(t, c.batchOf(<-got), 7)
	for i := range 2900 {
		resp, err := stream.Recv()
		require.NoError(t, err)
		// 100 + 6 bytes and framing each: a batch of 32 KiB holds 300 of them. It may come in
		// two, since bytes are charged by the KiB.
		require.LessOrEqual(t, c.batchOf(resp.Offset), 8+3*(i/300), "record %d", i)
	}
}

// A client may hold as much as is free, so that nobody can take the room of all.
// (DESIGN.md F10)
func TestAClientHoldsItsShare(t *testing.T) {
	for name, tc := range map[string]struct {
		edit func(*forward.Config)
		size int
	}{
		"of records": {func(cfg *forward.Config) { cfg.HoldRecords = 12 }, 10},
		// What one costs is its encoding and 256 bytes.
		"of bytes": {func(cfg *forward.Config) { cfg.HoldBytes = 12 * (1000 + 3 + 256) }, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "a")
			p := newProxy(t, c, tc.edit)
			v := strings.Repeat("x", tc.size)
			held := 0
			fill := func(client logv1.LogClient, want int) {
				t.Helper()
				for range want {
					go func() { _, _ = client.Produce(context.Background(), rec(v)) }()
					held++
					p.awaitHeld(t, held)
				}
				var trailer metadata.MD
				_, err := client.Produce(ctxFor(t, 10*time.Second), rec(v), grpc.Trailer(&trailer))
				requireReason(t, apierr.ReasonOverloaded, err)
				require.Equal(t, codes.ResourceExhausted, status.Code(err))
				require.ErrorContains(t, err, "this client holds")
				require.Equal(t, []string{"250"}, trailer["grpc-retry-pushback-ms"])
			}
			first, second, third := p.another(), p.another(), p.another()
			fill(first, 6) // half
			fill(second, 3)
			fill(third, 2)
			fill(first, 0)
			// The calls of a stream are a client of their own, and wait for room.
			s, err := first.ProduceStream(ctxFor(t, 60*time.Second))
			require.NoError(t, err)
			for range 40 {
				require.NoError(t, s.Send(rec(v)))
			}
			p.awaitHeld(t, 12)
			_, err = third.Produce(ctxFor(t, 10*time.Second), rec(v))
			requireReason(t, apierr.ReasonOverloaded, err)
			require.ErrorContains(t, err, "the proxy holds")
			c.lead("a")
			for range 40 {
				_, err := s.Recv()
				require.NoError(t, err)
			}
			p.awaitHeld(t, 0)
			require.Zero(t, p.metric("produce_bytes_held"))
			require.Len(t, c.values(), 6+3+2+40)
		})
	}
}

// Streams can be made to wait, so they leave half of the bounds to those that cannot.
// (DESIGN.md F10)
func TestStreamsLeaveRoomForCalls(t *testing.T) {
	c := newCluster(t, "a")
	p := newProxy(t, c, func(cfg *forward.Config) { patient(cfg); cfg.HoldRecords = 24 })
	var streams []logv1.Log_ProduceStreamClient
	for i, held := range []int{6, 6 + 3, 6 + 3 + 2, 6 + 3 + 2 + 1, 12, 12} {
		streams = append(streams, flood(t, p.another(), fmt.Sprint(i), 30, 10))
		p.awaitHeld(t, held)
	}
	var calls []<-chan error
	for i := range 12 {
		got, client := make(chan error, 1), p.another()
		go func() { _, err := client.Produce(context.Background(), rec("call")); got <- err }()
		calls = append(calls, got)
		p.awaitHeld(t, 12+i+1)
	}
	_, err := p.Produce(ctxFor(t, 10*time.Second), rec("call"))
	requireReason(t, apierr.ReasonOverloaded, err)
	c.lead("a")
	for _, got := range calls {
		require.NoError(t, <-got)
	}
	for _, s := range streams {
		for range 30 {
			_, err := s.Recv()
			require.NoError(t, err)
		}
	}
	p.awaitHeld(t, 0)
}

// Beside a light client batches are small, since all that is under way is before
// whoever comes next; one that is alone again, or beside its like, gets large ones.
// (DESIGN.md F8)
func TestBatchesAreSmallBesideLightClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a")
		c.lead("a")
		p := newProxy(t, c, func(cfg *forward.Config) { cfg.StreamRecords, cfg.StreamBytes = 1<<20, 1<<30 })
		var largest int
		c.nodes["a"].onAppend = func(r *nodev1.AppendRequest) error {
			largest = max(largest, len(r.GetRecords()))
			return nil
		}
		send := func(floods int, beside bool) (most int) {
			c.lead("") // so that all of it waits
			synctest.Wait()
			largest = 0
			var ss []logv1.Log_ProduceStreamClient
			for range floods {
				ss = append(ss, flood(t, p.another(), "flood", 500, 1000))
			}
			synctest.Wait()
			if beside {
				go func() { _, _ = p.Produce(context.Background(), rec("light")) }()
			} else {
				time.Sleep(time.Second) // each was light until it had sent much
			}
			synctest.Wait()
			c.lead("a")
			for _, s := range ss {
				for range 500 {
					_, err := s.Recv()
					require.NoError(t, err)
				}
			}
			return largest
		}
		require.Greater(t, send(1, false), 200<<10)
		require.LessOrEqual(t, send(1, true), 64<<10)
		require.LessOrEqual(t, send(1, true), 64<<10)
		require.Greater(t, send(1, false), 200<<10)
		require.Greater(t, send(3, false), 200<<10)
		require.LessOrEqual(t, send(3, true), 64<<10)
	})
}
