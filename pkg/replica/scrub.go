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
// the healer's. A pass that the node's last end cut short goes on.
func (r *Replica) scrub(ctx context.Context) {
	s := scrubber{r: r, pace: pacer{rate: r.cfg.ScrubRate}}
	note, err := readScrubNote(r.cfg.FS, r.cfg.Dir)
	if err != nil {
		r.logger.Warn("how far the scrub was is not known, it begins anew", "node", r.cfg.ID, "err", err)
	}
	if note != nil {
		s.note = *note
	}
	for ctx.Err() == nil {
		if err := r.guard(func() error { return s.pass(ctx) }); err != nil && ctx.Err() == nil {
			r.logger.Warn("scrub ended early", "node", r.cfg.ID, "err", err)
		}
		if sleep(ctx, scrubPause) != nil {
			return
		}
	}
}

// scrubber is the search for damage. It belongs to one goroutine.
type scrubber struct {
	r     *Replica
	pace  pacer
	note  ScrubNote
	noted time.Time // when it was written
}

// pass reads everything once, from where note says on.
func (s *scrubber) pass(ctx context.Context) error {
	if s.note.Began.IsZero() {
		s.note.Began = time.Now()
	}
	s.noted = time.Now()
	err := s.r.store.Scrub(ctx, s.note.Position, func(ctx context.Context, bytes int64) error {
		s.note.Bytes += uint64(bytes)
		s.note.Position = s.r.store.Log().Stats().Scrub.Position
		if time.Since(s.noted) >= scrubNoted {
			s.write()
		}
		return s.pace.wait(ctx, bytes)
	})
	switch {
	case err == nil:
		s.note = ScrubNote{Passes: s.note.Passes + 1, Finished: time.Now()}
	case ctx.Err() == nil:
		// What did not read would end every pass from here on before it has read what
		// comes earlier.
		s.note = ScrubNote{Passes: s.note.Passes, Finished: s.note.Finished}
	}
	s.write()
	return err
}

// write makes the note durable, if that can be: without one nothing is lost.
func (s *scrubber) write() {
	s.noted = time.Now()
	s.note.Damaged = s.r.store.Log().Stats().Damaged
	if err := s.note.write(s.r.cfg.FS, s.r.cfg.Dir); err != nil {
		s.r.logger.Warn("how far the scrub is could not be noted", "node", s.r.cfg.ID, "err", err)
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
