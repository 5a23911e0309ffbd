package forward_test

import (
	"context"
	"fmt"
	"strconv"
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
				require.Eventually(t, func() bool { // on a busy machine it may be on the move by itself
					for _, n := range c.nodes {
						if n.inflight.Load() > 0 {
							on = n
						}
					}
					return on != nil
				}, 10*time.Second, time.Millisecond)
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
	p := newProxy(t, c, func(cfg *forward.Config) {
		cfg.Principal = func(ctx context.Context) (string, error) {
			return metadata.ValueFromIncomingContext(ctx, "who")[0], nil // streams of one would share a fetch
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for i := range 4 {
		s, err := p.ConsumeStream(metadata.AppendToOutgoingContext(ctx, "who", strconv.Itoa(i)), &logv1.ConsumeRequest{})
		require.NoError(t, err)
		expect(t, s, 0, 3)
	}
	require.EqualValues(t, 2, c.nodes["b"].InFlight())
	require.EqualValues(t, 2, c.nodes["c"].InFlight())
	cancel() // goes upstream
	require.Eventually(t, func() bool { return c.nodes["b"].InFlight()+c.nodes["c"].InFlight() == 0 }, 10*time.Second, time.Millisecond)
}

// A client that does not read makes nobody read for it, for however long, and its
// slowness is no stall of the node. In virtual time.
func TestSlowConsumerHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a")
		c.lead("a")
		p := newProxy(t, c, nil)
		defer p.stop()
		const size = 100 << 10
		c.fillBig(40, size)
		s := p.tailFrom(t, ctxFor(t, time.Hour), 0)
		expectBig(t, s, 0, 1, size)
		for range 60 { // another client is served meanwhile
			time.Sleep(time.Second)
			_, err := p.Consume(ctxFor(t, 10*time.Second), &logv1.ConsumeRequest{Offset: 39})
			require.NoError(t, err)
		}
		expectBig(t, s, 1, 39, size)
		require.Zero(t, p.metric("stream_stalls_total"))
		require.Zero(t, p.metric("stream_resumes_total"))
	})
}
