package forward_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/proxy/forward"
)

func TestProduce(t *testing.T) {
	c := newCluster(t, "a", "b")
	c.lead("a")
	p := newProxy(t, c, func(cfg *forward.Config) {
		cfg.Principal = func(context.Context) (string, error) { return "al ice%", nil }
	})
	for i := range 10 {
		var hdr metadata.MD
		resp, err := p.Produce(ctxFor(t, 5*time.Second), rec(fmt.Sprint("r", i)), grpc.Header(&hdr))
		require.NoError(t, err)
		require.EqualValues(t, i, resp.Offset)
		require.Equal(t, []string{fmt.Sprintf("%s:%d", clusterID, i+1)}, hdr["logd-position"])
	}
	require.Equal(t, []string{"r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9"}, c.values())
	require.Equal(t, []string{"al%20ice%25"}, c.nodes["a"].mds[0]["logd-original-principal"])
	require.Equal(t, 1, c.nodes["a"].streams)
}

func TestProduceBatchesWhatIsWaiting(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	c.nodes["a"].freeze()
	p := newProxy(t, c, nil)
	s, err := p.ProduceStream(ctxFor(t, 20*time.Second))
	require.NoError(t, err)
	const n = 1000
	for i := range n {
		require.NoError(t, s.Send(rec(strconv.Itoa(i))))
	}
	require.NoError(t, s.CloseSend())
	c.nodes["a"].thaw()
	for i := range n {
		resp, err := s.Recv()
		require.NoError(t, err)
		require.EqualValues(t, i, resp.Offset)
	}
	_, err = s.Recv()
	require.ErrorIs(t, err, io.EOF)
	require.Less(t, len(c.batches), n/2)
	for i, v := range c.values() {
		require.Equal(t, strconv.Itoa(i), v)
	}
}

// rawCodec sends and receives bytes, to send what no generated code would.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}
func (rawCodec) Unmarshal(b mem.BufferSlice, v any) error {
	*v.(*[]byte) = b.Materialize()
	return nil
}

var _ encoding.CodecV2 = rawCodec{}

func TestProduceContent(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	p := newProxy(t, c, func(cfg *forward.Config) { cfg.MaxRecordBytes = 1000 })
	send := func(req []byte) error {
		var reply []byte
		return p.conn.Invoke(ctxFor(t, 5*time.Second), "/log.v1.Log/Produce", req, &reply, grpc.ForceCodecV2(rawCodec{}))
	}
	field := func(num protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), b)
	}
	badKey := field(1, field(6, field(1, []byte{0xff, 0xfe})))
	for name, tc := range map[string]struct {
		req   []byte
		field string // of the refusal; "-": accepted
		want  string // the value stored
	}{
		"empty record":               {field(1, nil), "-", ""},
		"no record":                  {nil, "-", ""},
		"record in two pieces":       {append(field(1, field(1, []byte("x"))), field(1, field(5, []byte("k")))...), "-", "x"},
		"largest record":             {field(1, field(1, []byte(strings.Repeat("x", 997)))), "-", strings.Repeat("x", 997)},
		"too large":                  {field(1, field(1, []byte(strings.Repeat("x", 998)))), "record", ""},
		"unknown fields":             {append(field(1, append(field(1, []byte("u")), field(99, []byte("z"))...)), field(77, []byte("q"))...), "-", "u"},
		"truncated request":          {[]byte{0x0a, 0x05, 0x0a}, "record", ""},
		"garbage":                    {[]byte{0xff, 0xff, 0xff}, "", ""},
		"truncated value":            {field(1, []byte{0x0a, 0x05, 'x'}), "record", ""},
		"value of a wrong wire type": {field(1, []byte{0x08, 0x05}), "record", ""},
		"malformed header":           {field(1, field(6, []byte{0x0a, 0x09})), "record.headers", ""},
		"header key not UTF-8":       {badKey, "record.headers.key", ""},
		"unfinished group":           {field(1, []byte{0x53}), "record", ""},
		"group":                      {field(1, []byte{0x53, 0x54}), "record", ""},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(c.values())
			err := send(tc.req)
			if tc.field == "-" {
				require.NoError(t, err)
				vs := c.values()
				require.Len(t, vs, before+1)
				require.Equal(t, tc.want, vs[before])
				return
			}
			requireReason(t, apierr.ReasonInvalid, err)
			info, _ := apierr.From(err)
			require.Equal(t, tc.field, info.Metadata[apierr.KeyField])
			require.Len(t, c.values(), before)
		})
	}
}

// A leader that dies at any point of a batch's life costs a pause, no record and
// no duplicate. (DESIGN.md F1, F2)
func TestLeaderDeath(t *testing.T) {
	for name, tc := range map[string]func(c *fakeCluster, n *fakeNode){
		"before the batch is sent": func(c *fakeCluster, n *fakeNode) { n.kill(); c.elect("b") },
		"after it was sent, before it was appended": func(c *fakeCluster, n *fakeNode) {
			n.onAppend = func(*nodev1.AppendRequest) error { n.kill(); c.elect("b"); return errCut }
		},
		"after it was appended, before it was acknowledged": func(c *fakeCluster, n *fakeNode) {
			n.onAcked = func(*nodev1.AppendRequest) error { n.kill(); c.elect("b"); return errCut }
		},
		"appended, answered OUTCOME_UNKNOWN": func(c *fakeCluster, n *fakeNode) {
			n.onAcked = func(*nodev1.AppendRequest) error { n.kill(); c.elect("b"); return apierr.OutcomeUnknown{} }
		},
		"deposed, answered NOT_LEADER without a name": func(c *fakeCluster, n *fakeNode) {
			n.onAppend = func(*nodev1.AppendRequest) error { c.elect("b"); return apierr.NotLeader{Term: 2} }
		},
		"draining": func(c *fakeCluster, n *fakeNode) {
			n.onAppend = func(*nodev1.AppendRequest) error { c.elect("b"); return apierr.Draining{} }
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "a", "b")
			c.lead("a")
			p := newProxy(t, c, nil)
			_, err := p.Produce(ctxFor(t, 20*time.Second), rec("first"))
			require.NoError(t, err)
			n := c.nodes["a"]
			n.mu.Lock()
			before := n.appends
			n.mu.Unlock()
			if strings.HasPrefix(name, "before") {
				tc(c, n)
			} else {
				n.set(func() { tc(c, n) })
			}
			got := make(chan uint64, 1)
			go func() {
				resp, err := p.Produce(ctxFor(t, 20*time.Second), rec("second"))
				if err == nil {
					got <- resp.Offset
				}
				close(got)
			}()
			if !strings.HasPrefix(name, "before") {
				require.Eventually(t, func() bool { n.mu.Lock(); defer n.mu.Unlock(); return n.appends > before }, 10*time.Second, time.Millisecond)
			}
			c.publish()
			offset, ok := <-got
			require.True(t, ok)
			require.EqualValues(t, 1, offset)
			require.Equal(t, []string{"first", "second"}, c.values())
		})
	}
}

// A leader that stops without closing anything is left as soon as a table says so.
func TestFrozenLeader(t *testing.T) {
	c := newCluster(t, "a", "b")
	c.lead("a")
	p := newProxy(t, c, func(cfg *forward.Config) { cfg.AckTimeout = time.Hour })
	c.nodes["a"].freeze()
	got := produceAsync(t, p, "x")
	require.Eventually(t, func() bool { return c.nodes["a"].inflight.Load() == 1 }, 10*time.Second, time.Millisecond)
	c.lead("b")
	require.NoError(t, <-got)
	require.Equal(t, []string{"x"}, c.values())
}

func TestSilentLeaderIsTriedAgain(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	p := newProxy(t, c, func(cfg *forward.Config) { cfg.AckTimeout = 50 * time.Millisecond })
	n := c.nodes["a"]
	n.freeze()
	got := produceAsync(t, p, "x")
	require.Eventually(t, func() bool { _, failed := p.hints.all(); return len(failed) > 0 }, 10*time.Second, time.Millisecond)
	n.thaw()
	require.NoError(t, <-got)
	require.Equal(t, []string{"x"}, c.values())
}

// produceAsync answers what a produce came to.
func produceAsync(t *testing.T, p *proxy, v string) <-chan error {
	got := make(chan error, 1)
	ctx := ctxFor(t, 30*time.Second)
	go func() { _, err := p.Produce(ctx, rec(v)); got <- err }()
	return got
}

// A leader of a term that never was is forgotten as soon as the node that is said to
// be it names another. Otherwise nothing would ever be appended again.
func TestALeaderThatNeverWasIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a", "b")
		c.lead("a")
		lies := 1
		c.nodes["a"].onAppend = func(*nodev1.AppendRequest) error {
			if lies--; lies < 0 {
				return nil
			}
			return apierr.NotLeader{Leader: "b", Term: 99}
		}
		p := newProxy(t, c, nil)
		begun := time.Now()
		_, err := p.Produce(context.Background(), rec("x"))
		require.NoError(t, err)
		require.Less(t, time.Since(begun), time.Second)
	})
}

// One refusal that names the leader is enough, with no new table.
func TestNotLeaderIsOneHop(t *testing.T) {
	c := newCluster(t, "a", "b")
	c.lead("a")
	p := newProxy(t, c, nil)
	_, err := p.Produce(ctxFor(t, 5*time.Second), rec("0"))
	require.NoError(t, err)
	c.elect("b")
	_, err = p.Produce(ctxFor(t, 5*time.Second), rec("1"))
	require.NoError(t, err)
	require.Equal(t, []string{"0", "1"}, c.values())
	leads, _ := p.hints.all()
	require.Equal(t, []string{"a→b@b:8400/2"}, leads)
	require.Equal(t, 1, c.nodes["b"].streams)
}

// A frozen batch is sent again though its client has gone, since nobody knows
// whether it is in the log; and the next batch does not take its numbers.
func TestSentBatchOutlivesItsClient(t *testing.T) {
	c := newCluster(t, "a", "b")
	c.lead("a")
	p := newProxy(t, c, nil)
	cut := make(chan struct{})
	c.nodes["a"].onAcked = func(*nodev1.AppendRequest) error { c.lead(""); close(cut); return errCut }
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan error, 1)
	go func() { _, err := p.Produce(ctx, rec("gone")); gone <- err }()
	<-cut
	cancel()
	require.Equal(t, codes.Canceled, status.Code(<-gone))
	got := produceAsync(t, p, "next")
	c.lead("b")
	require.NoError(t, <-got)
	require.Equal(t, []string{"gone", "next"}, c.values())
}

// After a resend UNKNOWN_PRODUCER means that nobody knows: the clients are told so,
// nothing is sent under new numbers, and the producer goes on.
func TestForgottenProducer(t *testing.T) {
	for name, forget := range map[string]func(c *fakeCluster){
		"unknown producer": func(c *fakeCluster) { c.producers = map[string]*fakeProducer{} },
		"sequence gap": func(c *fakeCluster) {
			for _, p := range c.producers {
				p.next, p.last = 100, nil
			}
		},
		"fenced": func(c *fakeCluster) {
			for _, p := range c.producers {
				p.epoch = 100
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "a", "b")
			c.lead("a")
			p := newProxy(t, c, nil)
			_, err := p.Produce(ctxFor(t, 10*time.Second), rec("0"))
			require.NoError(t, err)
			cut := make(chan struct{})
			c.nodes["a"].set(func() {
				c.nodes["a"].onAcked = func(*nodev1.AppendRequest) error { c.lead(""); close(cut); return errCut }
			})
			got := produceAsync(t, p, "1")
			<-cut
			c.mu.Lock()
			forget(c)
			c.mu.Unlock()
			c.lead("b")
			requireReason(t, apierr.ReasonOutcomeUnknown, <-got)
			resp, err := p.Produce(ctxFor(t, 10*time.Second), rec("2"))
			require.NoError(t, err)
			require.EqualValues(t, 2, resp.Offset)
			require.Equal(t, []string{"0", "1", "2"}, c.values())
		})
	}
}

// A first send that is refused for its numbers was not appended, so it is sent
// again without the client noticing.
func TestForgottenProducerOnAFirstSend(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	p := newProxy(t, c, nil)
	for i := range 3 {
		_, err := p.Produce(ctxFor(t, 10*time.Second), rec(strconv.Itoa(i)))
		require.NoError(t, err)
		c.mu.Lock()
		c.producers = map[string]*fakeProducer{}
		c.mu.Unlock()
	}
	require.Equal(t, []string{"0", "1", "2"}, c.values())
}

// One record a leader refuses does not fail those it was coalesced with.
func TestRefusedRecordFailsAlone(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	n := c.nodes["a"]
	n.onAppend = func(r *nodev1.AppendRequest) error {
		if strings.Contains(string(r.Records), "bad") {
			return apierr.Invalid{Field: "record", Why: "bad"}
		}
		return nil
	}
	n.freeze()
	p := newProxy(t, c, nil)
	errs := map[string]<-chan error{}
	for i := range 50 {
		v := fmt.Sprint("good", i)
		if i%17 == 3 {
			v = fmt.Sprint("bad", i)
		}
		errs[v] = produceAsync(t, p, v)
	}
	n.thaw()
	good := 0
	for v, got := range errs {
		if err := <-got; strings.HasPrefix(v, "bad") {
			requireReason(t, apierr.ReasonInvalid, err)
		} else {
			require.NoError(t, err)
			good++
		}
	}
	require.Len(t, c.values(), good)
}

func TestRequestIDTravelsAlone(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	p1, p2 := newProxy(t, c, nil), newProxy(t, c, nil)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			_, err := p1.Produce(ctxFor(t, 10*time.Second, "logd-request-id", fmt.Sprint("id", i)), rec(fmt.Sprint(i)))
			require.NoError(t, err)
		})
	}
	wg.Wait()
	for _, n := range c.batches {
		require.Equal(t, 1, n)
	}
	vs := c.values()
	require.Len(t, vs, 20)
	for off, v := range vs {
		resp, err := p2.Produce(ctxFor(t, 10*time.Second, "logd-request-id", "id"+v), rec(v))
		require.NoError(t, err)
		require.EqualValues(t, off, resp.Offset)
	}
	require.Len(t, c.values(), 20)

	_, err := p1.Produce(ctxFor(t, 10*time.Second, "logd-request-id", strings.Repeat("x", 513)), rec("x"))
	requireReason(t, apierr.ReasonInvalid, err)
	s, err := p1.ProduceStream(ctxFor(t, 10*time.Second, "logd-request-id", "x"))
	require.NoError(t, err)
	_, err = s.Recv()
	requireReason(t, apierr.ReasonInvalid, err)
}

// After one failure every later record of the stream fails, and none is appended.
func TestProduceStreamStopsAtTheFirstFailure(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	p := newProxy(t, c, func(cfg *forward.Config) { cfg.MaxRecordBytes = 1000 })
	t.Run("a record too large", func(t *testing.T) {
		s, err := p.ProduceStream(ctxFor(t, 10*time.Second))
		require.NoError(t, err)
		require.NoError(t, s.Send(rec("s0")))
		require.NoError(t, s.Send(&logv1.ProduceRequest{Record: &logv1.Record{Value: make([]byte, 2000)}}))
		_ = s.Send(rec("s2"))
		resp, err := s.Recv()
		require.NoError(t, err)
		require.EqualValues(t, 0, resp.Offset)
		_, err = s.Recv()
		requireReason(t, apierr.ReasonInvalid, err)
		require.Equal(t, []string{"s0"}, c.values())
	})
	t.Run("an unknown outcome", func(t *testing.T) {
		n := c.nodes["a"]
		first := make(chan struct{})
		n.set(func() {
			n.onAcked = func(*nodev1.AppendRequest) error { c.lead(""); close(first); return errCut }
		})
		s, err := p.ProduceStream(ctxFor(t, 10*time.Second))
		require.NoError(t, err)
		require.NoError(t, s.Send(rec("u0")))
		<-first
		n.set(func() { n.onAcked = nil })
		for i := range 100 {
			_ = s.Send(rec(fmt.Sprint("later", i)))
		}
		c.mu.Lock()
		c.producers = map[string]*fakeProducer{}
		c.mu.Unlock()
		c.lead("a")
		_, err = s.Recv()
		requireReason(t, apierr.ReasonOutcomeUnknown, err)
		_, err = p.Produce(ctxFor(t, 10*time.Second), rec("other"))
		require.NoError(t, err)
		require.Equal(t, []string{"s0", "u0", "other"}, c.values())
	})
}

// Batches a leader refuses for certain go back to where they were in the queue.
func TestRecalledRecordsKeepTheirOrder(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	p := newProxy(t, c, func(cfg *forward.Config) { cfg.BatchBytes = 100 })
	n := c.nodes["a"]
	n.freeze()
	refusals := 0
	n.onAppend = func(*nodev1.AppendRequest) error {
		if refusals++; refusals <= 5 {
			return apierr.Draining{}
		}
		return nil
	}
	s, err := p.ProduceStream(ctxFor(t, 20*time.Second))
	require.NoError(t, err)
	const total = 500
	for i := range total {
		require.NoError(t, s.Send(rec(strconv.Itoa(i))))
	}
	require.Eventually(t, func() bool { return p.metric("produce_records_held") == total }, 10*time.Second, time.Millisecond)
	n.thaw()
	for i := range total {
		resp, err := s.Recv()
		require.NoError(t, err)
		require.EqualValues(t, i, resp.Offset)
	}
	for i, v := range c.values() {
		require.Equal(t, strconv.Itoa(i), v)
	}
	require.Zero(t, p.metric("batches_duplicate_total"))
}

func TestProduceStreamIsBackpressured(t *testing.T) {
	c := newCluster(t, "a")
	p := newProxy(t, c, func(cfg *forward.Config) { cfg.HoldRecords = 20; cfg.StreamRecords = 8 })
	s, err := p.ProduceStream(ctxFor(t, 20*time.Second))
	require.NoError(t, err)
	const n = 500
	go func() {
		for i := range n {
			if s.Send(rec(strconv.Itoa(i))) != nil {
				return
			}
		}
		_ = s.CloseSend()
	}()
	c.lead("a")
	for i := range n {
		resp, err := s.Recv()
		require.NoError(t, err)
		require.EqualValues(t, i, resp.Offset)
	}
	for _, b := range c.batches {
		require.LessOrEqual(t, b, 8)
	}
}

func TestIdleStreamCloses(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	p := newProxy(t, c, func(cfg *forward.Config) { cfg.IdleTimeout = 20 * time.Millisecond })
	n := c.nodes["a"]
	for i := range 3 {
		_, err := p.Produce(ctxFor(t, 10*time.Second), rec(strconv.Itoa(i)))
		require.NoError(t, err)
		require.Eventually(t, func() bool { return n.inflight.Load() == 0 }, 10*time.Second, time.Millisecond)
	}
	require.Len(t, c.values(), 3)
	require.Len(t, c.producers, 1) // the id is kept
}

func TestAppendersAreBounded(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	p := newProxy(t, c, func(cfg *forward.Config) {
		cfg.MaxAppenders = 3
		cfg.IdleTimeout = 300 * time.Millisecond
		cfg.Principal = func(ctx context.Context) (string, error) {
			v := metadata.ValueFromIncomingContext(ctx, "who")
			if len(v) == 0 {
				return "", apierr.Unauthenticated{Why: "nobody"}
			}
			return v[0], nil
		}
	})
	for i := range 3 {
		_, err := p.Produce(ctxFor(t, 10*time.Second, "who", strconv.Itoa(i)), rec("x"))
		require.NoError(t, err)
	}
	_, err := p.Produce(ctxFor(t, 10*time.Second, "who", "one too many"), rec("x"))
	requireReason(t, apierr.ReasonOverloaded, err)
	require.Eventually(t, func() bool {
		_, err := p.Produce(ctxFor(t, 10*time.Second, "who", "later"), rec("x"))
		return err == nil
	}, 10*time.Second, 5*time.Millisecond)
	_, err = p.Produce(ctxFor(t, 10*time.Second), rec("x"))
	require.Equal(t, codes.Unauthenticated, status.Code(err))
}

func TestCloseEndsWhatIsHeld(t *testing.T) {
	c := newCluster(t, "a")
	p := newProxy(t, c, nil)
	got := produceAsync(t, p, "x")
	s, err := p.ProduceStream(ctxFor(t, 10*time.Second))
	require.NoError(t, err)
	p.stop()
	require.Error(t, <-got)
	_, err = s.Recv()
	require.Error(t, err)
	require.False(t, errors.Is(err, io.EOF))
}

func TestEndStreams(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	p := newProxy(t, c, nil)
	ps, err := p.ProduceStream(ctxFor(t, 10*time.Second))
	require.NoError(t, err)
	require.NoError(t, ps.Send(rec("x")))
	_, err = ps.Recv()
	require.NoError(t, err)
	cs, err := p.ConsumeStream(ctxFor(t, 10*time.Second), &logv1.ConsumeRequest{Offset: 1})
	require.NoError(t, err)
	_, err = cs.Header()
	require.NoError(t, err)
	p.fwd.EndStreams()
	_, err = ps.Recv()
	requireReason(t, apierr.ReasonDraining, err)
	_, err = cs.Recv()
	requireReason(t, apierr.ReasonDraining, err)
}

// What is held when a drain has lasted long enough ends with what is known of it.
func TestEndStreamsEndsWhatIsHeld(t *testing.T) {
	c := newCluster(t, "a")
	p := newProxy(t, c, nil)
	start := func() (<-chan error, logv1.Log_ProduceStreamClient) {
		s, err := p.ProduceStream(ctxFor(t, 20*time.Second))
		require.NoError(t, err)
		require.NoError(t, s.Send(rec("stream")))
		return produceAsync(t, p, "unary"), s
	}
	never, neverStream := start()
	require.Eventually(t, func() bool { return p.metric("produce_records_held") == 2 }, 10*time.Second, time.Millisecond)
	p.fwd.EndStreams()
	requireReason(t, apierr.ReasonNotSent, <-never)
	_, err := neverStream.Recv()
	requireReason(t, apierr.ReasonDraining, err)
	require.Empty(t, c.values())

	c = newCluster(t, "a")
	c.lead("a")
	p = newProxy(t, c, nil)
	c.nodes["a"].freeze()
	taken, takenStream := start()
	require.Eventually(t, func() bool { return p.metric("produce_records_held") == 2 }, 10*time.Second, time.Millisecond)
	require.Eventually(t, func() bool { return c.nodes["a"].InFlight() > 0 }, 10*time.Second, time.Millisecond)
	p.fwd.EndStreams()
	requireReason(t, apierr.ReasonOutcomeUnknown, <-taken)
	_, err = takenStream.Recv()
	requireReason(t, apierr.ReasonOutcomeUnknown, err)
}

func TestGetServers(t *testing.T) {
	c := newCluster(t, "a", "b")
	c.lead("b")
	resp, err := newProxy(t, c, nil).GetServers(ctxFor(t, 5*time.Second), &logv1.GetServersRequest{})
	require.NoError(t, err)
	require.True(t, proto.Equal(&logv1.GetServersResponse{Servers: []*logv1.Server{{Id: "proxy-0", RpcAddr: "127.0.0.1:8410", IsLeader: true}}}, resp))
	resp, err = newProxy(t, c, func(cfg *forward.Config) { cfg.GetServers = forward.ServersCluster }).GetServers(ctxFor(t, 5*time.Second), &logv1.GetServersRequest{})
	require.NoError(t, err)
	require.True(t, proto.Equal(&logv1.GetServersResponse{Servers: []*logv1.Server{
		{Id: "a", RpcAddr: "a:8400"}, {Id: "b", RpcAddr: "b:8400", IsLeader: true}}}, resp))
}
