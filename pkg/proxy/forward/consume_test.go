package forward_test

import (
	"context"
	"fmt"
	"math"
	"strconv"
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

func TestConsume(t *testing.T) {
	c := newCluster(t, "a", "b", "c")
	c.lead("a")
	c.fill(10)
	p := newProxy(t, c, nil)
	for i := range uint64(10) {
		var hdr metadata.MD
		resp, err := p.Consume(ctxFor(t, 5*time.Second), &logv1.ConsumeRequest{Offset: i}, grpc.Header(&hdr))
		require.NoError(t, err)
		want := &logv1.ConsumeResponse{Record: &logv1.Record{Value: []byte(fmt.Sprint("v", i)), Offset: i}}
		require.True(t, proto.Equal(want, resp), "%v", resp)
		require.Equal(t, []string{clusterID + ":10"}, hdr["logd-position"]) // the first read asked the leader
	}
	require.Len(t, c.nodes["a"].fetches, 1, "the question where the log ends")
	require.EqualValues(t, uint64(math.MaxUint64), c.nodes["a"].fetches[0].MinPosition)
	require.Len(t, c.nodes["b"].fetches, 5)
	require.Len(t, c.nodes["c"].fetches, 5)
	require.EqualValues(t, 1, p.metric("session_asks_total"))
	require.Equal(t, []string{"local"}, c.nodes["b"].mds[0]["logd-original-principal"])
}

// The offset a client writes into its record cannot leak: the log's comes last.
func TestConsumeOverridesAStoredOffset(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	p := newProxy(t, c, nil)
	_, err := p.Produce(ctxFor(t, 5*time.Second), &logv1.ProduceRequest{Record: &logv1.Record{
		Value: []byte("x"), Offset: 99, Key: []byte("k"), Headers: []*logv1.Header{{Key: "h", Value: []byte("1")}}, Timestamp: 5}})
	require.NoError(t, err)
	resp, err := p.Consume(ctxFor(t, 5*time.Second), &logv1.ConsumeRequest{})
	require.NoError(t, err)
	require.True(t, proto.Equal(&logv1.Record{Value: []byte("x"), Key: []byte("k"),
		Headers: []*logv1.Header{{Key: "h", Value: []byte("1")}}, Timestamp: 5}, resp.Record), "%v", resp)
}

func TestConsumeOutsideTheLog(t *testing.T) {
	c := newCluster(t, "a", "b")
	c.lead("a")
	c.fill(10)
	c.lowest = 3
	p := newProxy(t, c, nil)
	for _, offset := range []uint64{0, 2, 10, 11, math.MaxUint64} {
		_, err := p.Consume(ctxFor(t, 5*time.Second), &logv1.ConsumeRequest{Offset: offset})
		requireReason(t, apierr.ReasonOutOfRange, err)
		info, _ := apierr.From(err)
		require.Equal(t, strconv.FormatUint(offset, 10), info.Metadata[apierr.KeyOffset])
	}
	s, err := p.ConsumeStream(ctxFor(t, 5*time.Second), &logv1.ConsumeRequest{Offset: 11})
	require.NoError(t, err)
	_, err = s.Recv()
	requireReason(t, apierr.ReasonOutOfRange, err)
}

// Followers behind a session's position are passed over. (P5)
func TestSessionReadsItsOwnWrites(t *testing.T) {
	c := newCluster(t, "a", "b", "c")
	c.lead("a")
	p := newProxy(t, c, nil)
	for _, n := range []string{"b", "c"} {
		c.nodes[n].set(func() { c.nodes[n].lag = 3 })
	}
	for i := range uint64(20) {
		w, err := p.Produce(ctxFor(t, 5*time.Second), rec(strconv.Itoa(int(i))))
		require.NoError(t, err)
		r, err := p.Consume(ctxFor(t, 5*time.Second), &logv1.ConsumeRequest{Offset: w.Offset})
		require.NoError(t, err)
		require.Equal(t, strconv.Itoa(int(i)), string(r.Record.Value))
	}
	require.Greater(t, p.metric("session_behind_total"), 0.0)
	c.nodes["b"].set(func() { c.nodes["b"].lag = 0 })
	before := len(c.nodes["a"].fetches)
	for range 4 {
		_, err := p.Consume(ctxFor(t, 5*time.Second), &logv1.ConsumeRequest{Offset: 19})
		require.NoError(t, err)
	}
	require.Len(t, c.nodes["a"].fetches, before) // b has caught up: the leader is spared
}

func TestSessionsAreApart(t *testing.T) {
	c := newCluster(t, "a", "b")
	c.lead("a")
	c.fill(5)
	p := newProxy(t, c, nil)
	b := c.nodes["b"]
	last := func() uint64 { b.mu.Lock(); defer b.mu.Unlock(); return b.fetches[len(b.fetches)-1].MinPosition }
	read := func(kv ...string) error {
		_, err := p.Consume(ctxFor(t, 5*time.Second, kv...), &logv1.ConsumeRequest{Offset: 1})
		return err
	}
	require.NoError(t, read("logd-session", "s1"))
	require.EqualValues(t, 5, last())
	_, err := p.Produce(ctxFor(t, 5*time.Second, "logd-session", "s1"), rec("x"))
	require.NoError(t, err)
	require.NoError(t, read("logd-session", "s1"))
	require.EqualValues(t, 6, last())
	c.fill(10)
	require.NoError(t, read("logd-session", "s1"))
	require.EqualValues(t, 6, last()) // nobody told s1 of more
	// A position sent along binds the session that sends it, without asking the leader.
	asks := p.metric("session_asks_total")
	require.NoError(t, read("logd-session", "s2", "logd-position", clusterID+":12"))
	require.EqualValues(t, 12, last())
	require.NoError(t, read("logd-session", "s2"))
	require.EqualValues(t, 12, last())
	require.Equal(t, asks, p.metric("session_asks_total"))
	// Without a session it binds the one call.
	require.NoError(t, read())
	require.EqualValues(t, 16, last())
	c.fill(10)
	require.NoError(t, read("logd-position", clusterID+":20"))
	require.EqualValues(t, 20, last())
	require.NoError(t, read())
	require.EqualValues(t, 16, last())

	requireReason(t, apierr.ReasonInvalid, read("logd-position", "5"))
	requireReason(t, apierr.ReasonInvalid, read("logd-position", "another-cluster:5"))
	requireReason(t, apierr.ReasonInvalid, read("logd-position", clusterID+":-1"))
	requireReason(t, apierr.ReasonInvalid, read("logd-session", ""))
	requireReason(t, apierr.ReasonPositionUnknown, read("logd-position", clusterID+":1000"))
	require.NoError(t, read()) // a forged position harms nobody else
	requireReason(t, apierr.ReasonPositionUnknown, read("logd-session", "s3", "logd-position", clusterID+":1000"))
	require.NoError(t, read("logd-session", "s3")) // nor its own session
}

func TestSessionsAreBounded(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	c.fill(5)
	p := newProxy(t, c, func(cfg *forward.Config) { cfg.MaxSessions = 3 })
	for i := range 10 {
		_, err := p.Consume(ctxFor(t, 5*time.Second, "logd-session", strconv.Itoa(i)), &logv1.ConsumeRequest{})
		require.NoError(t, err)
	}
	require.EqualValues(t, 3, p.metric("sessions"))
	asks := p.metric("session_asks_total")
	_, err := p.Consume(ctxFor(t, 5*time.Second, "logd-session", "9"), &logv1.ConsumeRequest{})
	require.NoError(t, err)
	require.Equal(t, asks, p.metric("session_asks_total"))
	_, err = p.Consume(ctxFor(t, 5*time.Second, "logd-session", "0"), &logv1.ConsumeRequest{})
	require.NoError(t, err)
	require.Equal(t, asks+1, p.metric("session_asks_total")) // forgotten, so it asks again
}

// A proxy that starts anew must not show a client less than it saw before.
func TestFirstReadAsksTheLeader(t *testing.T) {
	c := newCluster(t, "a", "b")
	c.lead("a")
	c.fill(10)
	c.nodes["b"].lag = 5
	p := newProxy(t, c, nil)
	resp, err := p.Consume(ctxFor(t, 5*time.Second), &logv1.ConsumeRequest{Offset: 9})
	require.NoError(t, err)
	require.Equal(t, "v9", string(resp.Record.Value))
	require.EqualValues(t, 10, c.nodes["b"].fetches[0].MinPosition)

	c.lead("")
	p2 := newProxy(t, c, func(cfg *forward.Config) { cfg.HoldTimeout = 50 * time.Millisecond })
	_, err = p2.Consume(ctxFor(t, 5*time.Second), &logv1.ConsumeRequest{Offset: 1})
	requireReason(t, apierr.ReasonNotSent, err)
}

// The word of a node that leads no more, or never did, is not taken for where the
// log ends.
func TestFirstReadAsksOneThatReallyLeads(t *testing.T) {
	for name, ask := range map[string]func(p *proxy) (uint64, error){
		"consume": func(p *proxy) (uint64, error) {
			r, err := p.Consume(ctxFor(t, 10*time.Second), &logv1.ConsumeRequest{Offset: 9})
			return r.GetRecord().GetOffset() + 1, err
		},
		"get offsets": func(p *proxy) (uint64, error) {
			r, err := p.GetOffsets(ctxFor(t, 10*time.Second), &logv1.GetOffsetsRequest{})
			return r.GetNext(), err
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "a", "b")
			c.lead("a")
			c.fill(10)
			c.nodes["a"].lag = 5
			c.elect("b") // the proxy does not know yet
			p := newProxy(t, c, nil)
			got := make(chan uint64, 1)
			go func() {
				end, err := ask(p)
				assert.NoError(t, err)
				got <- end
			}()
			require.Eventually(t, func() bool {
				c.nodes["a"].mu.Lock()
				defer c.nodes["a"].mu.Unlock()
				return len(c.nodes["a"].fetches) > 0
			}, 10*time.Second, time.Millisecond)
			c.publish()
			require.EqualValues(t, 10, <-got)
		})
	}
}

// A stream that delivered a little does not tell what its session had seen before
// this proxy began.
func TestAStreamDoesNotMakeASessionKnown(t *testing.T) {
	c := newCluster(t, "a", "b")
	c.lead("a")
	c.fill(10)
	c.nodes["b"].lag = 5
	p := newProxy(t, c, nil)
	ctx, cancel := context.WithCancel(ctxFor(t, 10*time.Second, "logd-session", "s"))
	s, err := p.ConsumeStream(ctx, &logv1.ConsumeRequest{})
	require.NoError(t, err)
	expect(t, s, 0, 3)
	cancel()
	for err == nil {
		_, err = s.Recv()
	}
	require.Eventually(t, func() bool { return c.nodes["b"].InFlight() == 0 }, 10*time.Second, time.Millisecond)
	asks := p.metric("session_asks_total")
	_, err = p.Consume(ctxFor(t, 10*time.Second, "logd-session", "s"), &logv1.ConsumeRequest{})
	require.NoError(t, err)
	require.Equal(t, asks+1, p.metric("session_asks_total"))
}

func TestConsumeElsewhere(t *testing.T) {
	for name, broken := range map[string]func(n *fakeNode){
		"dead":   func(n *fakeNode) { n.kill() },
		"frozen": func(n *fakeNode) { n.freeze() },
		"drains": func(n *fakeNode) { n.onFetch = func(*nodev1.FetchRequest) error { return apierr.Draining{} } },
		"corrupt": func(n *fakeNode) {
			n.onFetch = func(*nodev1.FetchRequest) error { return status.Error(codes.DataLoss, "") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "a", "b", "c")
			c.lead("a")
			c.fill(5)
			broken(c.nodes["b"])
			p := newProxy(t, c, func(cfg *forward.Config) { cfg.AttemptTimeout = 100 * time.Millisecond })
			for range 4 {
				_, err := p.Consume(ctxFor(t, 5*time.Second), &logv1.ConsumeRequest{Offset: 2})
				require.NoError(t, err)
			}
		})
	}
}

// Damage to one range says nothing against the node: it goes on serving the rest,
// and no client hears of it.
func TestADamagedRangeIsReadElsewhere(t *testing.T) {
	c := newCluster(t, "a", "b", "c")
	c.lead("a")
	c.fill(10)
	for _, id := range []string{"b", "c"} {
		c.nodes[id].onFetch = func(req *nodev1.FetchRequest) error {
			if req.GetOffset() < 5 {
				return apierr.Corrupt{}
			}
			return nil
		}
	}
	p := newProxy(t, c, nil)
	for i := range uint64(10) {
		resp, err := p.Consume(ctxFor(t, 5*time.Second), &logv1.ConsumeRequest{Offset: i})
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint("v", i), string(resp.GetRecord().GetValue()))
	}
	s, err := p.ConsumeStream(ctxFor(t, 5*time.Second), &logv1.ConsumeRequest{})
	require.NoError(t, err)
	expect(t, s, 0, 10)
	_, failed := p.hints.all()
	require.Empty(t, failed, "the nodes need not rest")
}

func TestConsumeWaitsForANode(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	c.fill(1)
	p := newProxy(t, c, nil)
	_, err := p.Consume(ctxFor(t, 5*time.Second), &logv1.ConsumeRequest{})
	require.NoError(t, err)
	c.nodes["a"].kill()
	got := make(chan error, 1)
	ctx := ctxFor(t, 20*time.Second)
	go func() { _, err := p.Consume(ctx, &logv1.ConsumeRequest{}); got <- err }()
	require.Eventually(t, func() bool { _, failed := p.hints.all(); return len(failed) > 0 }, 10*time.Second, time.Millisecond)
	c.nodes["a"].revive()
	require.NoError(t, <-got)

	c.nodes["a"].kill()
	_, err = p.Consume(ctxFor(t, 3*time.Second), &logv1.ConsumeRequest{})
	requireReason(t, apierr.ReasonNotSent, err)
}

func TestGetOffsets(t *testing.T) {
	c := newCluster(t, "a", "b", "c")
	c.lead("a")
	c.fill(10)
	c.nodes["b"].lag = 2
	p := newProxy(t, c, nil)
	resp, err := p.GetOffsets(ctxFor(t, 5*time.Second), &logv1.GetOffsetsRequest{Time: proto.Int64(7)})
	require.NoError(t, err)
	require.True(t, proto.Equal(&logv1.GetOffsetsResponse{Next: 10, AtTime: proto.Uint64(5)}, resp), "%v", resp)
	// Without a leader a follower answers, but not one behind what was told before.
	c.lead("")
	c.nodes["a"].kill()
	for range 4 {
		resp, err = p.GetOffsets(ctxFor(t, 5*time.Second), &logv1.GetOffsetsRequest{})
		require.NoError(t, err)
		require.EqualValues(t, 10, resp.Next)
		require.Nil(t, resp.AtTime)
	}
}

// A position that nobody can have is refused at once, by the leader, and costs no
// retries.
func TestPositionBeyondTheLog(t *testing.T) {
	c := newCluster(t, "a", "b", "c")
	c.lead("a")
	c.fill(10)
	p := newProxy(t, c, nil)
	far := func(kv ...string) context.Context {
		return ctxFor(t, 5*time.Second, append(kv, "logd-position", clusterID+":9223372036854775808")...)
	}
	for range 20 {
		for _, session := range [][]string{nil, {"logd-session", "s"}} {
			_, err := p.GetOffsets(far(session...), &logv1.GetOffsetsRequest{})
			requireReason(t, apierr.ReasonPositionUnknown, err)
			_, err = p.Consume(far(session...), &logv1.ConsumeRequest{Offset: 3})
			requireReason(t, apierr.ReasonPositionUnknown, err)
			s, err := p.ConsumeStream(far(session...), &logv1.ConsumeRequest{Offset: 3})
			require.NoError(t, err)
			expect(t, s, 3, 7) // it waits for each offset, so a position asks nothing more of it
		}
	}
	// Nobody else is any the worse.
	for _, session := range [][]string{nil, {"logd-session", "s"}, {"logd-session", "t"}} {
		resp, err := p.GetOffsets(ctxFor(t, 5*time.Second, session...), &logv1.GetOffsetsRequest{})
		require.NoError(t, err)
		require.EqualValues(t, 10, resp.Next)
	}
}

// expect reads n records of a stream and checks that they are the log's, in order.
func expect(t *testing.T, s grpc.ServerStreamingClient[logv1.ConsumeResponse], from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		resp, err := s.Recv()
		require.NoError(t, err)
		require.EqualValues(t, i, resp.Record.Offset)
		require.Equal(t, "v"+strconv.Itoa(i), string(resp.Record.Value))
	}
}

func TestConsumeStream(t *testing.T) {
	c := newCluster(t, "a", "b")
	c.lead("a")
	p := newProxy(t, c, nil)
	s, err := p.ConsumeStream(ctxFor(t, 20*time.Second), &logv1.ConsumeRequest{})
	require.NoError(t, err)
	_, err = s.Header() // at once, on an empty log
	require.NoError(t, err)
	c.fill(100)
	expect(t, s, 0, 100)
	c.fill(1)
	expect(t, s, 100, 1)
	s, err = p.ConsumeStream(ctxFor(t, 20*time.Second), &logv1.ConsumeRequest{Offset: 44})
	require.NoError(t, err)
	expect(t, s, 44, 57)
	require.Zero(t, p.metric("stream_resumes_total"))
}

// A stream outlives its nodes, at each point of a batch. (DESIGN.md F5; P8)
func TestConsumeStreamResumes(t *testing.T) {
	for name, hurt := range map[string]func(n *fakeNode){
		"the node dies":         func(n *fakeNode) { n.kill() },
		"the node falls silent": func(n *fakeNode) { n.freeze() },
		"the node sends no heartbeat": func(n *fakeNode) {
			n.set(func() { n.noBeat = true })
		},
		"the node closes the stream": func(n *fakeNode) {
			n.set(func() { n.onBatch = func(*nodev1.Batch) *nodev1.Batch { return nil } })
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "a", "b", "c")
			c.lead("a")
			c.fill(20)
			p := newProxy(t, c, func(cfg *forward.Config) { cfg.StallTimeout = 400 * time.Millisecond })
			s, err := p.ConsumeStream(ctxFor(t, 30*time.Second), &logv1.ConsumeRequest{Offset: 1})
			require.NoError(t, err)
			expect(t, s, 1, 19)
			at := 20
			for range 6 {
				var on *fakeNode
				for _, n := range c.nodes {
					if n.inflight.Load() > 0 {
						on = n
					}
				}
				require.NotNil(t, on)
				hurt(on)
				if name == "the node sends no heartbeat" {
					require.Eventually(t, func() bool { return on.inflight.Load() == 0 }, 10*time.Second, time.Millisecond)
				}
				c.fill(13)
				expect(t, s, at, 13)
				at += 13
				on.thaw()
				on.revive()
				on.set(func() { on.noBeat, on.onBatch = false, nil })
			}
			require.GreaterOrEqual(t, p.metric("stream_resumes_total"), 6.0)
			if name == "the node falls silent" {
				require.GreaterOrEqual(t, p.metric("stream_stalls_total"), 6.0)
			}
		})
	}
}

// A node that does not continue at the cursor ends the stream loudly; no wrong
// record gets through.
func TestPlantedWrongResumeIsCaught(t *testing.T) {
	for name, edit := range map[string]func(b *nodev1.Batch) *nodev1.Batch{
		"a gap":                      func(b *nodev1.Batch) *nodev1.Batch { b.FirstOffset += 1; return b },
		"a repetition":               func(b *nodev1.Batch) *nodev1.Batch { b.FirstOffset -= 7; return b },
		"an empty batch":             func(b *nodev1.Batch) *nodev1.Batch { b.Count, b.Records = 0, nil; return b },
		"fewer records than counted": func(b *nodev1.Batch) *nodev1.Batch { b.Count++; return b },
		"more records than counted":  func(b *nodev1.Batch) *nodev1.Batch { b.Count--; return b },
		"a cut record":               func(b *nodev1.Batch) *nodev1.Batch { b.Records = b.Records[:len(b.Records)-1]; return b },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "a", "b")
			c.lead("a")
			c.fill(21)
			p := newProxy(t, c, nil)
			s, err := p.ConsumeStream(ctxFor(t, 20*time.Second), &logv1.ConsumeRequest{})
			require.NoError(t, err)
			expect(t, s, 0, 21)
			b := c.nodes["b"]
			b.set(func() { b.onBatch = edit })
			c.fill(7)
			for at := uint64(21); ; at++ {
				resp, err := s.Recv()
				if err != nil {
					requireReason(t, apierr.ReasonResumeFailed, err)
					require.Equal(t, codes.DataLoss, status.Code(err))
					break
				}
				require.Equal(t, at, resp.Record.Offset)
				require.Equal(t, fmt.Sprint("v", at), string(resp.Record.Value))
			}
			require.EqualValues(t, 1, p.metric("stream_resume_failed_total"))
		})
	}
}

func TestConsumeStreamSpreadsAndReleases(t *testing.T) {
	c := newCluster(t, "a", "b", "c")
	c.lead("a")
	c.fill(3)
	p := newProxy(t, c, nil)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for range 4 {
		s, err := p.ConsumeStream(ctx, &logv1.ConsumeRequest{})
		require.NoError(t, err)
		expect(t, s, 0, 3)
	}
	require.EqualValues(t, 2, c.nodes["b"].InFlight())
	require.EqualValues(t, 2, c.nodes["c"].InFlight())
	cancel() // goes upstream
	require.Eventually(t, func() bool { return c.nodes["b"].InFlight()+c.nodes["c"].InFlight() == 0 }, 10*time.Second, time.Millisecond)
}

// A client that does not read makes nobody read for it.
func TestSlowConsumerHoldsNothingUp(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	p := newProxy(t, c, func(cfg *forward.Config) { cfg.StallTimeout = 300 * time.Millisecond })
	big := make([]byte, 100<<10)
	for range 40 {
		_, err := p.Produce(ctxFor(t, 10*time.Second), &logv1.ProduceRequest{Record: &logv1.Record{Value: big}})
		require.NoError(t, err)
	}
	s, err := p.ConsumeStream(ctxFor(t, 20*time.Second), &logv1.ConsumeRequest{})
	require.NoError(t, err)
	resp, err := s.Recv()
	require.NoError(t, err)
	require.Zero(t, resp.Record.Offset)
	// Another client is served meanwhile, for longer than a stall takes.
	other := time.NewTimer(600 * time.Millisecond)
	defer other.Stop()
	for done := false; !done; {
		select {
		case <-other.C:
			done = true
		default:
			_, err := p.Consume(ctxFor(t, 10*time.Second), &logv1.ConsumeRequest{Offset: 39})
			require.NoError(t, err)
		}
	}
	for i := uint64(1); i < 40; i++ {
		resp, err := s.Recv()
		require.NoError(t, err)
		require.Equal(t, i, resp.Record.Offset)
	}
	require.Zero(t, p.metric("stream_stalls_total")) // slowness downstream is no stall upstream
}
