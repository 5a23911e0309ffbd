package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/proxy/route"
)

var fetchDesc = grpc.StreamDesc{StreamName: "FetchStream", ServerStreams: true}

// errStalled ends an upstream stream on which neither data nor a heartbeat came.
var errStalled = errors.New("no data and no heartbeat")

// How much of what it has fetched a feed keeps for readers that are behind: at most
// feedBytes, fewer when all feeds together reach Config.ShareBytes, but not fewer
// than feedLeast.
const (
	feedBytes = 4 << 20
	feedLeast = 64 << 10
)

// feed is one fetch from the cluster, for all tails that read along. It outlives the
// nodes it fetches from: it owns the cursor, and any upstream error reopens there on
// another node.
//
// It is never ahead of its fastest reader by more than the chunk that is being read
// and the next, so one whose readers are all slow asks nothing of the node; it never
// waits for a slower one, which finds that its place has gone.
//
// run is its goroutine. It ends when the last reader leaves, or when fetching does,
// and is waited for by Close.
type feed struct {
	hub    *hub
	asked  uint64             // the position its requests carry until something has come
	cancel context.CancelFunc // ends run
	wake   chan struct{}      // room for one: wanted became true

	// All that follows is guarded by hub.mu.

	ring    []*chunk                // consecutive, up to next
	next    uint64                  // the offset that comes next
	bytes   int64                   // of ring
	readers int                     // tails whose feed it is
	spans   map[trace.Span]struct{} // of those that have one
	wanted  bool                    // a reader has the last chunk, or waits for another
	grew    chan struct{}           // closed when next moves or err is set; nil when nobody waits
	err     error                   // why fetching ended; readers at next are told
	carried uint64                  // the position that the request carried which ended with err
}

// start makes a feed at t's place. mu is held.
func (h *hub) start(t *tail) (*feed, error) {
	ctx, cancel := context.WithCancel(upstream(context.Background(), h.key.principal))
	g := &feed{hub: h, asked: t.need(), cancel: cancel, wake: make(chan struct{}, 1), next: t.cursor}
	at := t.cursor
	if !h.fan.f.spawn(func() { g.run(ctx, at) }) {
		cancel()
		return nil, apierr.Draining{}
	}
	h.feeds = append(h.feeds, g)
	return g, nil
}

// low is the oldest offset that is still there.
func (g *feed) low() uint64 {
	if len(g.ring) == 0 {
		return g.next
	}
	return g.ring[0].first
}

// has says whether a tail at cursor can read along.
func (g *feed) has(cursor uint64) bool { return g.low() <= cursor && cursor <= g.next }

// ahead says whether a tail that both have a place for reads rather from g than o.
func (g *feed) ahead(o *feed) bool {
	return g.next > o.next || g.next == o.next && g.readers > o.readers
}

// chunkAt is the chunk with the record at cursor, which is in the ring.
func (g *feed) chunkAt(cursor uint64) *chunk {
	i := len(g.ring) - 1
	if g.ring[i].first > cursor {
		i = sort.Search(i, func(i int) bool { return g.ring[i].end() > cursor })
	} else {
		g.want()
	}
	return g.ring[i]
}

// want asks for a chunk more than there is.
func (g *feed) want() {
	if !g.wanted {
		g.wanted = true
		signal(g.wake)
	}
}

// growing is closed when there is news for readers at next.
func (g *feed) growing() <-chan struct{} {
	if g.grew == nil {
		g.grew = make(chan struct{})
	}
	return g.grew
}

// stir has readers at next look again.
func (g *feed) stir() {
	if g.grew != nil {
		close(g.grew)
		g.grew = nil
	}
}

// drop lets the ring go. Readers that are not at next have lost their place.
func (g *feed) drop() {
	g.hub.fan.bytes.Add(-g.bytes)
	for _, c := range g.ring {
		c.release()
	}
	g.ring, g.bytes = nil, 0
}

// publish hands c to the readers. The ring holds it from then on.
func (g *feed) publish(c *chunk) {
	g.hub.mu.Lock()
	defer g.hub.mu.Unlock()
	if g.readers == 0 { // run is about to hear of it
		c.release()
		return
	}
	g.ring = append(g.ring, c)
	g.next, g.wanted = c.end(), false
	g.bytes += c.size
	all := g.hub.fan.bytes.Add(c.size)
	most := g.hub.fan.f.cfg.ShareBytes
	for len(g.ring) > 2 && g.bytes-g.ring[0].size >= feedLeast && (g.bytes > feedBytes || all > most) {
		old := g.ring[0]
		g.ring[0] = nil
		g.ring = g.ring[1:]
		g.bytes -= old.size
		all = g.hub.fan.bytes.Add(-old.size)
		old.release()
	}
	g.stir()
}

// demand waits until a reader wants a chunk more than there is.
func (g *feed) demand(ctx context.Context) error {
	for {
		g.hub.mu.Lock()
		wanted := g.wanted
		g.hub.mu.Unlock()
		if wanted {
			return nil
		}
		select {
		case <-g.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// end has everybody who has read it all hear why there is no more.
func (g *feed) end(err error, carried uint64) {
	g.hub.mu.Lock()
	defer g.hub.mu.Unlock()
	g.err, g.carried = err, carried
	g.hub.remove(g)
	switch status.Code(err) {
	case codes.PermissionDenied, codes.Unauthenticated:
		// What has been fetched is no longer to be seen. Those who are behind ask,
		// and are refused, for themselves.
		g.drop()
	}
	g.stir()
}

// run fetches from at on.
func (g *feed) run(ctx context.Context, at uint64) {
	defer g.cancel()
	p := &fetch{feed: g, at: at, carried: g.asked}
	err := p.run(ctx)
	g.end(err, p.carried)
}

// fetch is a feed's way through the nodes. It is the feed's goroutine's alone.
type fetch struct {
	*feed
	at      uint64 // the offset that comes next
	carried uint64 // the position that the latest request carried
	by      string // the node that is fetched from
}

// run fetches until it must not go on, and says why as clients are told it.
func (p *fetch) run(ctx context.Context) error {
	f := p.hub.fan.f
	r := f.reader(p.hub.key.routing)
	for opened := false; ; {
		up, isLeader, err := r.next()
		if err != nil {
			if err := r.rest(ctx); err != nil {
				return endOf(ctx, err)
			}
			continue
		}
		if opened {
			f.metrics.resumes.Inc()
		}
		opened = true
		before := p.at
		err = p.follow(ctx, r, up)
		if p.at != before {
			r.skip, r.leaderOnly, r.rounds = r.skip[:0], false, 0
		}
		var failed apierr.ResumeFailed
		switch {
		case ctx.Err() != nil:
			return endOf(ctx, context.Cause(ctx))
		case errors.As(err, &failed):
			f.metrics.badResumes.Inc()
			f.log.Error("consume streams end: the node did not continue at the cursor", "node", up.ID(), "offset", p.at, "err", err)
			return failed
		case errors.Is(err, errStalled):
			f.metrics.stalls.Inc()
		}
		f.log.Debug("consume streams move on", "node", up.ID(), "offset", p.at, "err", err)
		switch r.judge(up, isLeader, err) {
		case readFinal:
			return refusal(err)
		case readLeader:
			r.leaderOnly = true
		}
		r.skip = append(r.skip, up.ID())
		r.reload()
	}
}

// follow fetches from one node until that fails, or has left the table, and answers
// why.
func (p *fetch) follow(ctx context.Context, r *reader, up route.Upstream) (err error) {
	f := p.hub.fan.f
	ctx, end := p.segment(ctx, up.ID())
	defer func() { end(err) }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	release := up.Acquire()
	defer release()
	p.by = up.ID()
	stall := time.AfterFunc(f.cfg.StallTimeout, func() { cancel(errStalled) })
	defer stall.Stop()

	failed := func(err error) error {
		if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
			return cause
		}
		if errors.Is(err, io.EOF) {
			return errBroken
		}
		return err
	}
	cs, err := up.Conn().NewStream(f.ours(ctx), &fetchDesc, nodev1.Node_FetchStream_FullMethodName, grpc.ForceCodecV2(f.codec))
	if err != nil {
		return failed(err)
	}
	req := &nodev1.FetchRequest{
		Offset: p.at, MinPosition: p.carried, MaxBytes: uint32(f.cfg.FetchBytes),
		WaitMs: uint32(waitForPosition.Milliseconds()), HeartbeatMs: uint32(heartbeat.Milliseconds()),
	}
	// A failed send shows in the first receive, with its reason.
	if err := cs.SendMsg(req); err == nil {
		_ = cs.CloseSend()
	}
	var m message
	defer func() { m.free() }()
	for first := true; ; {
		if !stall.Reset(f.cfg.StallTimeout) && context.Cause(ctx) != nil {
			return failed(context.Cause(ctx))
		}
		if err := cs.RecvMsg(&m); err != nil {
			return failed(err)
		}
		if r.outOfTable(up) { // whatever it has sent, heartbeats or data
			return errBroken
		}
		// While all readers are slow, nothing is asked of the node.
		stall.Stop()
		err := eachBatch(m.bytes(), func(b wireBatch) error {
			if first {
				up.Answered() // heartbeats alone are no answer
			}
			err := p.take(ctx, b, first)
			first = false
			return err
		})
		if err != nil {
			return err
		}
		m.free()
		if err := p.demand(ctx); err != nil {
			return err
		}
	}
}

// take publishes a batch. It must continue at the cursor: the first of an upstream
// stream may begin before it, since nodes send whole batches, and every other begins
// exactly there.
func (p *fetch) take(ctx context.Context, b wireBatch, first bool) error {
	if !b.has(p.at) || !first && b.first != p.at {
		return fmt.Errorf("%w: got a batch [%d, %d)", apierr.ResumeFailed{Offset: p.at}, b.first, b.first+uint64(b.count))
	}
	end := b.first + uint64(b.count)
	rest := b.records
	for at := b.first; at < p.at; at++ {
		var err error
		if _, rest, err = nextRecord(rest); err != nil {
			return fmt.Errorf("%w: %w", apierr.ResumeFailed{Offset: p.at}, err)
		}
	}
	for p.at < end {
		if err := p.demand(ctx); err != nil {
			return err
		}
		c, after, err := nextChunk(rest, p.at, end)
		if err != nil {
			return fmt.Errorf("%w: %w", apierr.ResumeFailed{Offset: p.at}, err)
		}
		rest = after
		c.by = p.by
		p.publish(c)
		p.at = c.end()
		p.carried = p.at // delivered, so it exists
	}
	if len(rest) != 0 {
		return fmt.Errorf("%w: %d bytes behind the last record", apierr.ResumeFailed{Offset: p.at}, len(rest))
	}
	return nil
}
