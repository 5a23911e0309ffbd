package forward_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/proxy/forward"
)

// fetched is how many fetches the nodes have been asked for, and how many go on.
func (c *fakeCluster) fetched() (asked, now int) {
	for _, n := range c.nodes {
		n.mu.Lock()
		asked += len(n.fetches)
		n.mu.Unlock()
		now += int(n.InFlight())
	}
	return asked, now
}

// reading is the node that streams are read from.
func (c *fakeCluster) reading() (on *fakeNode) {
	for _, n := range c.nodes {
		if n.InFlight() > 0 {
			on = n
		}
	}
	return on
}

// fillBig puts n records of size bytes into the log, each telling its offset.
func (c *fakeCluster) fillBig(n, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range n {
		raw, err := proto.Marshal(&logv1.Record{Value: bigValue(uint64(len(c.records)), size)})
		require.NoError(c.t, err)
		c.records = append(c.records, raw)
	}
	close(c.grew)
	c.grew = make(chan struct{})
}

func bigValue(offset uint64, size int) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 0, size), offset)[:size]
}

// unhurried is a stall timeout for tests that count fetches on a busy machine.
const unhurried = time.Minute

type stream = grpc.ServerStreamingClient[logv1.ConsumeResponse]

// expectBig reads n of fillBig's records.
func expectBig(t *testing.T, s stream, from, n, size int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		resp, err := s.Recv()
		require.NoError(t, err)
		require.EqualValues(t, i, resp.Record.Offset)
		require.True(t, bytes.Equal(bigValue(uint64(i), size), resp.Record.Value))
	}
}

// tailFrom opens a stream and waits for its header.
func (p *proxy) tailFrom(t *testing.T, ctx context.Context, offset uint64) stream {
	t.Helper()
	s, err := p.ConsumeStream(ctx, &logv1.ConsumeRequest{Offset: offset})
	require.NoError(t, err)
	_, err = s.Header()
	require.NoError(t, err)
	return s
}

// cut ends the streams of n, and waits until the proxy has seen that.
func (p *proxy) cut(t *testing.T, n *fakeNode) {
	t.Helper()
	_, before := p.hints.all()
	n.kill()
	require.Eventually(t, func() bool { _, failed := p.hints.all(); return len(failed) > len(before) }, 20*time.Second, time.Millisecond)
	n.revive()
}

func (p *proxy) until(t *testing.T, metric string, want float64) {
	t.Helper()
	require.Eventually(t, func() bool { return p.metric(metric) == want }, 20*time.Second, time.Millisecond, metric)
}

// Any number of tails at one place cost the cluster one fetch, and when the last has
// left none. (DESIGN.md F9)
func TestTailsShareOneFetch(t *testing.T) {
	c := newCluster(t, "a", "b", "c")
	c.lead("a")
	c.fill(20)
	p := newProxy(t, c, func(cfg *forward.Config) { cfg.StallTimeout = unhurried })
	ctx, cancel := context.WithCancel(ctxFor(t, 60*time.Second))
	defer cancel()
	const tails = 500
	var streams []stream
	for range tails {
		streams = append(streams, p.tailFrom(t, ctx, 20))
	}
	p.until(t, "tails_sharing", tails)
	c.fill(50)
	for _, s := range streams {
		expect(t, s, 20, 50)
	}
	asked, now := c.fetched()
	require.Equal(t, []int{1, 1}, []int{asked, now})
	require.EqualValues(t, tails, p.metric("tails"))
	require.EqualValues(t, 1, p.metric("tail_fetches"))
	require.Zero(t, p.metric("tail_falls_behind_total"))
	require.Greater(t, p.metric("tail_ring_bytes"), 0.0)

	// One that comes later, a little behind, reads what is still there.
	expect(t, p.tailFrom(t, ctx, 30), 30, 40)
	asked, _ = c.fetched()
	require.Equal(t, 1, asked)

	cancel()
	for _, s := range streams {
		_, err := s.Recv()
		require.Equal(t, codes.Canceled, status.Code(err))
	}
	require.Eventually(t, func() bool { _, now := c.fetched(); return now == 0 }, 20*time.Second, time.Millisecond)
	for _, metric := range []string{"tails", "tails_sharing", "tail_fetches", "tail_ring_bytes"} {
		p.until(t, metric, 0)
	}
}

// A fetch belongs to one principal and one routing key.
func TestTailsOfOthersAreApart(t *testing.T) {
	c := newCluster(t, "a", "b")
	c.lead("a")
	c.fill(5)
	p := newProxy(t, c, func(cfg *forward.Config) {
		cfg.StallTimeout = unhurried
		cfg.Principal = func(ctx context.Context) (string, error) {
			return metadata.ValueFromIncomingContext(ctx, "who")[0], nil
		}
	})
	for _, md := range [][]string{{"who", "x"}, {"who", "y"}, {"who", "y", "logd-routing-key", "k"}} {
		for range 2 {
			expect(t, p.tailFrom(t, ctxFor(t, 20*time.Second, md...), 0), 0, 5)
		}
	}
	asked, now := c.fetched()
	require.Equal(t, []int{3, 3}, []int{asked, now})
	var who []string
	for _, n := range c.nodes {
		for _, md := range n.mds {
			who = append(who, md["logd-original-principal"]...)
		}
	}
	require.ElementsMatch(t, []string{"x", "y", "y"}, who)
}

// A fetch is not shared by those who are elsewhere, and is from where they meet.
func TestTailsMeet(t *testing.T) {
	c := newCluster(t, "a", "b")
	c.lead("a")
	c.fill(20)
	p := newProxy(t, c, func(cfg *forward.Config) { cfg.StallTimeout = unhurried })
	ctx := ctxFor(t, 60*time.Second)
	// One is at the end. One more comes from the beginning, and goes over to it.
	x := p.tailFrom(t, ctx, 20)
	require.Eventually(t, func() bool { asked, _ := c.fetched(); return asked == 1 }, 20*time.Second, time.Millisecond)
	y := p.tailFrom(t, ctx, 0)
	expect(t, y, 0, 20)
	p.until(t, "tails_sharing", 2)
	p.until(t, "tail_fetches", 1)
	asked, _ := c.fetched()
	require.Equal(t, 2, asked)
	c.fill(10)
	expect(t, x, 20, 10)
	expect(t, y, 20, 10)
	asked, _ = c.fetched()
	require.Equal(t, 2, asked, "neither asked again")

	// Of two groups at the same place the larger draws the other, which is waiting.
	q := newProxy(t, c, func(cfg *forward.Config) { cfg.StallTimeout = unhurried })
	b := c.nodes["b"]
	x = q.tailFrom(t, ctx, 30)
	q.until(t, "tail_fetches", 1)
	b.freeze() // so that the two behind are together before they get on
	y, z := q.tailFrom(t, ctx, 0), q.tailFrom(t, ctx, 0)
	q.until(t, "tails_sharing", 2)
	b.thaw()
	expect(t, y, 0, 30)
	expect(t, z, 0, 30)
	q.until(t, "tails_sharing", 3)
	q.until(t, "tail_fetches", 1)
	c.fill(10)
	for _, s := range []stream{x, y, z} {
		expect(t, s, 30, 10)
	}
}

// One that does not read falls behind, holds nobody up and little in memory; when it
// reads again it gets everything, by itself, and shares again at the end.
// (DESIGN.md F7, F9)
func TestSlowTailGoesOnAlone(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	const size, share = 20 << 10, 400 << 10
	p := newProxy(t, c, func(cfg *forward.Config) { cfg.ShareBytes, cfg.StallTimeout = share, unhurried })
	ctx := ctxFor(t, 60*time.Second)
	slow := p
	slow.LogClient = logv1.NewLogClient(p.dial())
	deaf := slow.tailFrom(t, ctx, 0)
	p.LogClient = logv1.NewLogClient(p.conn)
	var quick []stream
	for range 5 {
		quick = append(quick, p.tailFrom(t, ctx, 0))
	}
	p.until(t, "tails_sharing", 6)
	const rounds, n = 50, 5 // a round fits into what is kept
	for round := range rounds {
		c.fillBig(n, size)
		for _, s := range quick {
			expectBig(t, s, round*n, n, size)
		}
		require.LessOrEqual(t, p.metric("tail_ring_bytes"), float64(share+64<<10+2*size))
	}
	require.Greater(t, rounds*n*size, 10*share)
	_, now := c.fetched()
	require.Equal(t, 1, now)
	expectBig(t, deaf, 0, rounds*n, size)
	require.EqualValues(t, 1, p.metric("tail_falls_behind_total"))
	p.until(t, "tails_sharing", 6)
	asked, now := c.fetched()
	require.Equal(t, []int{2, 1}, []int{asked, now}, "it fetched for itself once, and shares again")
	c.fillBig(1, size)
	for _, s := range append(quick, deaf) {
		expectBig(t, s, rounds*n, 1, size)
	}
}

// What tails that do not read hold is bounded for each: no fetch runs ahead of its
// readers.
func TestDeafTailsAskForNothing(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	const size = 100 << 10
	c.fillBig(210, size)
	p := newProxy(t, c, nil)
	sent := make(chan struct{}, 1000) // room for every batch there is
	a := c.nodes["a"]
	a.set(func() { a.onBatch = func(b *nodev1.Batch) *nodev1.Batch { sent <- struct{}{}; return b } })
	var deaf []stream
	for range 5 {
		deaf = append(deaf, p.tailFrom(t, ctxFor(t, 60*time.Second), 0))
	}
	p.until(t, "tails_sharing", 5)
	// Time for a fetch that does not wait for its readers to show.
	settled := time.NewTimer(500 * time.Millisecond)
	defer settled.Stop()
	<-settled.C
	// Of the 30 batches of 700 KiB: the one in hand, and what the windows take.
	require.Less(t, len(sent), 20)
	require.Less(t, p.metric("tail_ring_bytes"), float64(5<<20))
	for _, s := range deaf {
		expectBig(t, s, 0, 20, size)
	}
}

// When the node of a shared fetch fails, the fetch goes on elsewhere, once for all;
// and one that does not continue at the cursor ends them all, loudly. (DESIGN.md F5)
func TestSharedFetchResumes(t *testing.T) {
	c := newCluster(t, "a", "b", "c")
	c.lead("a")
	c.fill(10)
	p := newProxy(t, c, func(cfg *forward.Config) { cfg.StallTimeout = unhurried })
	var streams []stream
	for range 20 {
		s := p.tailFrom(t, ctxFor(t, 60*time.Second), 0)
		expect(t, s, 0, 10)
		streams = append(streams, s)
	}
	p.until(t, "tails_sharing", 20)
	at := 10
	for round := range 4 {
		asked, _ := c.fetched()
		n := c.reading()
		n.kill()
		c.fill(9)
		for _, s := range streams {
			expect(t, s, at, 9)
		}
		at += 9
		n.revive()
		again, _ := c.fetched()
		require.Equal(t, asked+1, again)
		require.EqualValues(t, round+1, p.metric("stream_resumes_total"))
	}
	for _, n := range c.nodes {
		n.set(func() { n.onBatch = func(b *nodev1.Batch) *nodev1.Batch { b.FirstOffset++; return b } })
	}
	c.fill(1)
	for _, s := range streams {
		_, err := s.Recv()
		requireReason(t, apierr.ReasonResumeFailed, err)
	}
	require.EqualValues(t, 1, p.metric("stream_resume_failed_total"))
}

// When a node no longer lets the principal read, all its streams end, those too that
// are behind and could still be given what has been fetched.
func TestRevokedTailsEnd(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	const size = 100 << 10
	p := newProxy(t, c, func(cfg *forward.Config) { cfg.StallTimeout = unhurried })
	var streams []stream
	for range 5 {
		streams = append(streams, p.tailFrom(t, ctxFor(t, 60*time.Second), 0))
	}
	main := p.LogClient
	p.LogClient = logv1.NewLogClient(p.dial())
	deaf := p.tailFrom(t, ctxFor(t, 60*time.Second), 0)
	p.LogClient = main
	p.until(t, "tails_sharing", 6)
	c.fillBig(30, size)
	for _, s := range streams {
		expectBig(t, s, 0, 30, size)
	}
	require.Greater(t, p.metric("tail_ring_bytes"), float64(29*size))
	a := c.nodes["a"]
	a.set(func() {
		a.onFetch = func(*nodev1.FetchRequest) error { return status.Error(codes.PermissionDenied, "no longer") }
	})
	p.cut(t, a)
	for _, s := range streams {
		_, err := s.Recv()
		require.Equal(t, codes.PermissionDenied, status.Code(err), "%v", err)
	}
	require.Zero(t, p.metric("tail_ring_bytes"))
	for got := 0; ; got++ {
		_, err := deaf.Recv()
		if err != nil {
			require.Equal(t, codes.PermissionDenied, status.Code(err), "%v", err)
			break
		}
		require.Less(t, got, 29, "only what was on its way")
	}
}

// What a node says of the end of the log to somebody who knew less is not told to
// one whose session has seen more: that one asks for itself. Nor does one who asks
// for a position that nobody can have spoil it for others.
func TestVerdictsAreNotShared(t *testing.T) {
	for name, tc := range map[string]struct {
		first, second []string
		verdict       func(*nodev1.FetchRequest) error
		told          apierr.Reason
	}{
		"a session that knows the offset": {
			second: []string{"logd-session", "s", "logd-position", clusterID + ":10"},
			verdict: func(r *nodev1.FetchRequest) error {
				if r.MinPosition == 10 {
					return apierr.Behind{Visible: 5} // it would have to be sure, and is deposed
				}
				return apierr.OutOfRange{Offset: r.Offset, Next: 5}
			},
			told: apierr.ReasonOutOfRange,
		},
		"a forged position": {
			first: []string{"logd-session", "s", "logd-position", clusterID + ":1000"},
			verdict: func(r *nodev1.FetchRequest) error {
				if r.MinPosition == 10 {
					return apierr.PositionUnknown{Visible: 5}
				}
				return apierr.Behind{Visible: 5}
			},
			told: apierr.ReasonPositionUnknown,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "a")
			c.lead("a")
			c.fill(5)
			p := newProxy(t, c, nil)
			a := c.nodes["a"]
			asked, answer := make(chan struct{}, 100), make(chan struct{}) // room for all that are asked
			a.set(func() {
				a.onFetch = func(r *nodev1.FetchRequest) error {
					asked <- struct{}{}
					<-answer
					return tc.verdict(r)
				}
			})
			x := p.tailFrom(t, ctxFor(t, 20*time.Second, tc.first...), 10)
			<-asked
			y := p.tailFrom(t, ctxFor(t, 20*time.Second, tc.second...), 10)
			p.until(t, "tails_sharing", 2)
			close(answer)
			_, err := x.Recv()
			requireReason(t, tc.told, err)
			<-asked // y asks for itself, and finds one that knows
			a.set(func() { a.onFetch = nil })
			c.fill(10)
			expect(t, y, 10, 5)
		})
	}
}

// A fetch that was asked before a stream began says nothing to it of where the log ends:
// meanwhile its client may have heard that there is more.
func TestVerdictsAreNoOlderThanTheStream(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	c.fill(5)
	p := newProxy(t, c, nil)
	a := c.nodes["a"]
	asked, answer := make(chan struct{}, 1), make(chan struct{}) // x's fetch
	a.set(func() {
		a.onFetch = func(r *nodev1.FetchRequest) error {
			asked <- struct{}{}
			<-answer
			return apierr.OutOfRange{Offset: r.Offset, Next: 5}
		}
	})
	x := p.tailFrom(t, ctxFor(t, 20*time.Second), 10)
	<-asked
	c.fill(10) // 5 to 14, acknowledged to somebody through another proxy
	a.set(func() { a.onFetch = nil })
	y := p.tailFrom(t, ctxFor(t, 20*time.Second), 10)
	p.until(t, "tails_sharing", 2)
	close(answer)
	_, err := x.Recv()
	requireReason(t, apierr.ReasonOutOfRange, err)
	expect(t, y, 10, 5)
}

// A leader that has less than was delivered is not believed: the stream ends loudly.
func TestDeliveredRecordsAreGone(t *testing.T) {
	for name, says := range map[string]func(*nodev1.FetchRequest) error{
		"out of range":     func(r *nodev1.FetchRequest) error { return apierr.OutOfRange{Offset: r.Offset, Next: 7} },
		"position unknown": func(*nodev1.FetchRequest) error { return apierr.PositionUnknown{Visible: 7} },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "a")
			c.lead("a")
			c.fill(10)
			p := newProxy(t, c, nil)
			s := p.tailFrom(t, ctxFor(t, 20*time.Second), 0)
			expect(t, s, 0, 10)
			a := c.nodes["a"]
			a.set(func() { a.onFetch = says })
			p.cut(t, a)
			_, err := s.Recv()
			requireReason(t, apierr.ReasonResumeFailed, err)
		})
	}
}

// Streams come, go, dawdle and hurry while nodes fail, with hardly any room to share:
// each gets exactly its records, and nothing is left in the end. (DESIGN.md F5, F9)
func TestTailsComeAndGo(t *testing.T) {
	ids := []string{"a", "b", "c"}
	c := newCluster(t, ids...)
	c.lead("a")
	p := newProxy(t, c, func(cfg *forward.Config) {
		cfg.ShareBytes = 1
		cfg.StallTimeout = 350 * time.Millisecond
	})
	const total, size = 1200, 3 << 10
	c.fillBig(300, size)
	ctx := ctxFor(t, 120*time.Second)
	var wg sync.WaitGroup
	for i := range 20 {
		client := p.LogClient
		if i%3 == 0 {
			client = logv1.NewLogClient(p.dial())
		}
		wg.Go(func() {
			for from := uint64(i * 7); from < total; {
				ctx, cancel := context.WithCancel(ctx)
				s, err := client.ConsumeStream(ctx, &logv1.ConsumeRequest{Offset: from})
				if !assert.NoError(t, err) {
					cancel()
					return
				}
				// Some leave after a while and come back where they were.
				for n := 0; from < total && (i%2 == 0 || n < 200); n++ {
					resp, err := s.Recv()
					if !assert.NoError(t, err) || !assert.Equal(t, from, resp.GetRecord().GetOffset()) ||
						!assert.True(t, bytes.Equal(bigValue(from, size), resp.GetRecord().GetValue())) {
						cancel()
						return
					}
					from++
				}
				cancel()
			}
		})
	}
	for at := 300; at < total; at += 100 {
		c.fillBig(100, size)
		n := c.nodes[ids[at/100%3]]
		switch at / 100 % 5 {
		case 0:
			n.kill()
			n.revive()
		case 1:
			n.freeze()
			beat := time.NewTimer(5 * time.Millisecond) // a pause, shorter than a stall
			<-beat.C
			n.thaw()
		}
	}
	wg.Wait()
	for _, metric := range []string{"tails", "tail_fetches", "tail_ring_bytes"} {
		p.until(t, metric, 0)
	}
	asked, _ := c.fetched()
	t.Logf("%d fetches, %v falls behind, %v resumes", asked, p.metric("tail_falls_behind_total"), p.metric("stream_resumes_total"))
}
