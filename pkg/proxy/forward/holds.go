package forward

import (
	"fmt"
	"sync"
	"time"

	"github.com/logd-io/logd/pkg/internal/events"
)

// holds tells when produces wait because no leader makes progress: one hold, however
// many principals and records it is of.
type holds struct {
	mu      sync.Mutex
	stalled int     // appenders; guarded by mu, and so are those below
	began   int64   // when the first of them stalled; 0: none has
	waiting int     // records each had when it stalled, and those it was given while it was
	before  float64 // metrics.held when the first stalled
}

// stalledSince notes that a's leader makes no progress since at, or makes some, with 0.
// a.mu is held.
func (a *appender) stalledSince(at int64) {
	if (a.stalled == 0) == (at == 0) {
		return
	}
	a.stalled = at
	if at == 0 {
		a.f.holds.end(a.f)
		return
	}
	a.f.holds.begin(a.f, at, a.queue.n+a.underWay())
}

func (h *holds) begin(f *Forwarder, at int64, records int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stalled++; h.stalled == 1 {
		h.began, h.waiting, h.before = at, 0, value(f.metrics.held)
	}
	h.waiting += records
}

func (h *holds) end(f *Forwarder) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stalled--; h.stalled > 0 {
		return
	}
	held := h.records(f)
	took := time.Duration(f.now() - h.began)
	h.began = 0
	if held == 0 {
		return // a stream ended that nobody was waiting for
	}
	f.cfg.Events.Add(events.Event{
		Kind: "hold", Severity: events.Warning, Count: held,
		Text: fmt.Sprintf("held %s for %v", produces(held), lasted(took)),
	})
}

// records is how many were held so far. mu is held.
func (h *holds) records(f *Forwarder) uint64 {
	return uint64(h.waiting) + uint64(value(f.metrics.held)-h.before)
}

// Holding tells for how long produces have been waiting for a leader to make progress,
// and how many were held until now; 0 when none is. It does not block.
func (f *Forwarder) Holding() (since time.Duration, records uint64) {
	f.holds.mu.Lock()
	defer f.holds.mu.Unlock()
	if f.holds.began == 0 {
		return 0, 0
	}
	if records = f.holds.records(f); records == 0 {
		return 0, 0
	}
	return time.Duration(f.now() - f.holds.began), records
}

func produces(n uint64) string {
	if n == 1 {
		return "1 produce"
	}
	return fmt.Sprintf("%d produces", n)
}

// lasted is d for people.
func lasted(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", max(d.Milliseconds(), 1))
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
