package forward_test

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/proxy/forward"
)

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

// A client that moves between proxies, carrying its position, and proxies that start
// anew: it finds what it has written and un-sees nothing, over followers that lag as
// they like. (DESIGN.md F6; P5)
func TestSessionMovesBetweenProxies(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	c := newCluster(t, "a", "b", "c")
	c.lead("a")
	proxies := []*proxy{newProxy(t, c, nil), newProxy(t, c, nil)}
	ctx := ctxFor(t, 60*time.Second)
	position, seen := "", uint64(0)
	behind := 0.0
	for i := range 200 {
		for _, id := range []string{"b", "c"} {
			c.nodes[id].set(func() { c.nodes[id].lag = rng.Uint64N(6) })
		}
		if rng.IntN(20) == 0 { // restarted: it remembers nothing
			k := rng.IntN(2)
			behind += proxies[k].metric("session_behind_total")
			proxies[k].stop()
			proxies[k] = newProxy(t, c, nil)
		}
		p := proxies[rng.IntN(2)]
		call := ctx
		if position != "" {
			call = metadata.AppendToOutgoingContext(ctx, "logd-position", position)
		}
		var hdr metadata.MD
		switch rng.IntN(3) {
		case 0:
			w, err := p.Produce(call, rec("v"+strconv.Itoa(len(c.values()))), grpc.Header(&hdr))
			require.NoError(t, err)
			seen = max(seen, w.Offset+1)
		case 1:
			o, err := p.GetOffsets(call, &logv1.GetOffsetsRequest{}, grpc.Header(&hdr))
			require.NoError(t, err)
			require.GreaterOrEqual(t, o.Next, seen, "step %d", i)
			seen = o.Next
		case 2:
			// Whatever was written or seen is found; what lies beyond may not be.
			offset := rng.Uint64N(seen + 2)
			r, err := p.Consume(call, &logv1.ConsumeRequest{Offset: offset}, grpc.Header(&hdr))
			if err != nil {
				requireReason(t, apierr.ReasonOutOfRange, err)
				require.GreaterOrEqual(t, offset, seen, "step %d", i)
				info, _ := apierr.From(err)
				next, ok := info.Uint(apierr.KeyNext)
				require.True(t, ok)
				seen = max(seen, next)
			} else {
				require.Equal(t, "v"+strconv.FormatUint(offset, 10), string(r.Record.Value))
				seen = max(seen, offset+1)
			}
		}
		require.Len(t, hdr["logd-position"], 1)
		position = hdr["logd-position"][0]
		at, err := strconv.ParseUint(strings.TrimPrefix(position, clusterID+":"), 10, 64)
		require.NoError(t, err)
		require.GreaterOrEqual(t, at, seen, "step %d", i)
	}
	for _, p := range proxies {
		behind += p.metric("session_behind_total")
	}
	require.Positive(t, behind)
}

// A record of a stream binds the session from the moment its client can have it, not
// only when what was fetched with it has been delivered, too: a client may read one
// and ask elsewhere while the stream waits for it. (F6)
func TestEachDeliveredRecordBindsItsSession(t *testing.T) {
	c := newCluster(t, "a", "b", "c")
	c.lead("a")
	c.fill(6)
	p := newProxy(t, c, nil)
	const session = "logd-session"
	_, err := p.Consume(ctxFor(t, 10*time.Second, session, "s"), &logv1.ConsumeRequest{Offset: 5})
	require.NoError(t, err, "the session is known from here on")

	big, err := proto.Marshal(&logv1.Record{Value: make([]byte, 512<<10)})
	require.NoError(t, err)
	c.mu.Lock()
	for range 3 { // one batch, of more than the client's windows take
		c.records = append(c.records, big)
	}
	close(c.grew)
	c.grew = make(chan struct{})
	c.mu.Unlock()
	s, err := p.ConsumeStream(ctxFor(t, 10*time.Second, session, "s"), &logv1.ConsumeRequest{Offset: 6})
	require.NoError(t, err)
	first, err := s.Recv()
	require.NoError(t, err)
	require.EqualValues(t, 6, first.GetRecord().GetOffset())

	// Only a node is left that has not come as far.
	c.nodes["c"].set(func() { c.nodes["c"].lag = 3 })
	c.elect("")
	c.nodes["a"].kill()
	c.nodes["b"].kill()
	c.publish()
	got, err := p.GetOffsets(ctxFor(t, time.Second, session, "s"), &logv1.GetOffsetsRequest{})
	require.Error(t, err, "the log ends at %d, and the session has read 6", got.GetNext())
}
