package replica

import (
	"context"
	"time"
)

// scrubPause is the time between two passes. A small log would otherwise be read
// all the time.
const scrubPause = time.Minute

// scrub reads everything on disk again and again, at the configured rate, so that
// damage shows while the other nodes still have what is damaged. What it finds is
// the healer's.
func (r *Replica) scrub(ctx context.Context) {
	pace := pacer{rate: r.cfg.ScrubRate}
	for ctx.Err() == nil {
		err := r.guard(func() error { return r.store.Scrub(ctx, pace.wait) })
		if err != nil && ctx.Err() == nil {
			r.logger.Warn("scrub ended early", "node", r.cfg.ID, "err", err)
		}
		if sleep(ctx, scrubPause) != nil {
			return
		}
	}
}

// pacer spreads reads over time. It belongs to one goroutine.
type pacer struct {
	rate int64     // bytes a second
	next time.Time // when the next read may begin
}

// wait blocks until so many bytes more may be read.
func (p *pacer) wait(ctx context.Context, bytes int64) error {
	now := time.Now()
	if p.next.Before(now) {
		p.next = now // time that passed unused is not made up for
	}
	begin := p.next
	p.next = begin.Add(time.Duration(float64(bytes) / float64(p.rate) * float64(time.Second)))
	return sleep(ctx, begin.Sub(now))
}

// sleep waits for d, or ends with ctx and its cause.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
