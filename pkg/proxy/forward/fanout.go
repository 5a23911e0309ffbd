package forward

import (
	"context"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/trace"

	"github.com/logd-io/logd/pkg/apierr"
)

// hubKey is whose consume streams may share a fetch: nodes decide by the principal
// what may be read, and spread reads by the routing key.
type hubKey struct{ principal, routing string }

// fanout lets consume streams that are at the same place of the log read along with
// one fetch. It has a hub for each principal that has streams.
type fanout struct {
	f     *Forwarder
	bytes atomic.Int64 // of the chunks in all rings

	mu   sync.Mutex
	hubs map[hubKey]*hub // guarded by mu; those with tails
}

func newFanout(f *Forwarder) *fanout { return &fanout{f: f, hubs: make(map[hubKey]*hub)} }

// enter is the hub of key, until leave.
func (o *fanout) enter(key hubKey) *hub {
	o.mu.Lock()
	defer o.mu.Unlock()
	h := o.hubs[key]
	if h == nil {
		h = &hub{fan: o, key: key}
		o.hubs[key] = h
	}
	h.tails++
	return h
}

func (o *fanout) leave(h *hub) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if h.tails--; h.tails == 0 {
		delete(o.hubs, h.key)
	}
}

// fanoutStats are how many tails there are, how many of them share a fetch, and how
// many fetches there are.
type fanoutStats struct{ tails, sharing, fetches int }

func (o *fanout) stats() (s fanoutStats) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, h := range o.hubs {
		s.tails += h.tails
		h.mu.Lock()
		s.fetches += len(h.feeds)
		for _, g := range h.feeds {
			if g.readers > 1 {
				s.sharing += g.readers
			}
		}
		h.mu.Unlock()
	}
	return s
}

// hub is the tails of one principal and what they are fed from. A tail joins any
// feed that has its place, else it starts one; one that a feed has left behind does
// the same again, and one that has read all of its feed goes over to a feed that is
// further on, or at the same place and not smaller. So those who are at the same
// place end up at one feed, and nobody waits for anybody slower.
type hub struct {
	fan   *fanout
	key   hubKey
	tails int // guarded by fan.mu

	mu    sync.Mutex
	feeds []*feed // those that have readers and have not ended; guarded by mu
}

// next waits for what comes at t's cursor. The caller lets go of it.
func (h *hub) next(ctx context.Context, t *tail) (*chunk, error) {
	for {
		c, grew, err := h.look(t)
		if c != nil || err != nil {
			return c, err
		}
		select {
		case <-grew:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// look answers the chunk at t's cursor, or else what will be closed when there may be
// one.
func (h *hub) look(t *tail) (c *chunk, grew <-chan struct{}, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		g := t.feed
		if g == nil {
			if err := h.attach(t); err != nil {
				return nil, nil, err
			}
			continue
		}
		switch {
		case t.cursor < g.low():
			h.leave(t)
			h.fan.f.metrics.fallsBehind.Inc()
		case t.cursor < g.next:
			c := g.chunkAt(t.cursor)
			c.hold()
			return c, nil, nil
		case g.err != nil:
			err, carried := g.err, g.carried
			h.leave(t)
			// What the log holds is answered for the position that was asked with it, and
			// may be older than a tail that came later.
			if carried == t.need() && (t.started || t.own) || t.alone || !aboutOffsets(err) {
				return nil, nil, err
			}
			t.alone = true
		default:
			if o := h.better(g, t); o != nil {
				h.leave(t)
				h.join(t, o)
				continue
			}
			g.want()
			return nil, g.growing(), nil
		}
	}
}

// aboutOffsets says whether err is about what the log holds.
func aboutOffsets(err error) bool {
	switch apierr.ReasonOf(err) {
	case apierr.ReasonOutOfRange, apierr.ReasonPositionUnknown:
		return true
	}
	return false
}

// attach joins the feed furthest on that has t's place, or starts one there. mu is
// held.
func (h *hub) attach(t *tail) error {
	var best *feed
	if !t.alone {
		for _, g := range h.feeds {
			if g.has(t.cursor) && (best == nil || g.ahead(best)) {
				best = g
			}
		}
	}
	if best == nil {
		g, err := h.start(t)
		if err != nil {
			return err
		}
		h.join(t, g)
		t.own = true
		return nil
	}
	h.join(t, best)
	return nil
}

// better is a feed that t, which has read all of g, goes over to. Of two at the same
// place the larger draws the readers of the other, so that one is left. mu is held.
func (h *hub) better(g *feed, t *tail) (best *feed) {
	if t.alone {
		return nil
	}
	for _, o := range h.feeds {
		switch {
		case o == g || !o.has(t.cursor):
		case o.next == g.next && o.readers < g.readers:
			o.stir() // its readers that wait come over
		case best == nil || o.ahead(best):
			best = o
		}
	}
	return best
}

// join makes t a reader of g. mu is held.
func (h *hub) join(t *tail, g *feed) {
	t.feed, t.own = g, false
	g.readers++
	if t.span != nil {
		if g.spans == nil {
			g.spans = make(map[trace.Span]struct{})
		}
		g.spans[t.span] = struct{}{}
	}
}

// leave makes t a reader of nothing; a feed that nobody reads ends. mu is held.
func (h *hub) leave(t *tail) {
	g := t.feed
	t.feed = nil
	delete(g.spans, t.span)
	if g.readers--; g.readers == 0 {
		h.remove(g)
		g.drop()
		g.cancel()
	}
}

// detach is leave for a tail that is over.
func (h *hub) detach(t *tail) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t.feed != nil {
		h.leave(t)
	}
}

// remove takes g out of what tails may join. mu is held.
func (h *hub) remove(g *feed) {
	for i, o := range h.feeds {
		if o == g {
			last := len(h.feeds) - 1
			h.feeds[i], h.feeds[last] = h.feeds[last], nil
			h.feeds = h.feeds[:last]
			return
		}
	}
}
