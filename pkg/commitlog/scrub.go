package commitlog

import (
	"context"
	"time"
)

// Scrubbed is the progress of Scrub, over all its passes.
type Scrubbed struct {
	Bytes    uint64    // read and verified since Open
	Position uint64    // entry that the pass under way has reached; 0: none is
	Passes   uint64    // finished since Open
	LastPass time.Time // when the newest one finished
}

// Scrub reads and verifies everything the log has on disk once: segment
// headers, every frame's header and payload up to the durable end, the offset
// index, the start record. It goes on behind damage, which it notes as a read
// would (Damage, OnDamage), and returns when the pass is over, ctx ends (its
// cause), the log closes, or the disk does not read.
//
// pace is called before so many bytes are read, holding no lock, and sets the
// speed by blocking. Scrub may run beside everything else; it fills no cache,
// and skips what is truncated, retained or reset away meanwhile. One pass runs
// at a time.
func (l *Log) Scrub(ctx context.Context, pace func(ctx context.Context, bytes int64) error) error {
	l.scrubbing.Lock()
	defer l.scrubbing.Unlock()
	step := func(n int64) error {
		if err := l.check(); err != nil {
			return err
		}
		if err := pace(ctx, n); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		l.mu.Lock()
		l.scrubbed.Bytes += uint64(n)
		l.mu.Unlock()
		l.metrics.scrubBytes.Add(float64(n))
		return nil
	}
	for index := uint64(0); ; {
		next, err := l.scrubSegment(index, step)
		if err != nil {
			return err
		}
		if next <= index {
			break
		}
		index = next
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.scrubbed.Position = 0
	l.scrubbed.Passes++
	l.scrubbed.LastPass = time.Now()
	l.metrics.scrubPasses.Inc()
	return nil
}

// scrubSegment verifies the segment that has the entry index, or the first one
// behind it, and returns the entry to go on with: 0 at the end.
func (l *Log) scrubSegment(index uint64, step func(int64) error) (uint64, error) {
	for {
		l.mu.RLock()
		index = max(index, l.start.Index+1)
		if l.closed {
			l.mu.RUnlock()
			return 0, ErrClosed
		}
		if index > l.last.index || len(l.segments) == 0 {
			l.mu.RUnlock()
			return 0, nil
		}
		index = max(index, l.segments[0].first)
		s, next, shape, last := l.acquire(index), l.behind(index), l.shape, l.last
		quarantined := l.quarantined
		l.mu.RUnlock()
		if quarantined {
			s.handle.drop()
			return 0, nil // Open has looked at it all; the rest is for later
		}
		l.mu.Lock()
		l.scrubbed.Position = index
		l.mu.Unlock()
		list, err := l.surveyLive(s, next, last, step)
		s.handle.drop()
		l.mu.RLock()
		same := l.shape == shape
		l.mu.RUnlock()
		switch {
		case !same:
			continue // something was cut or mended meanwhile
		case err != nil:
			return 0, err
		}
		to := last.index
		if next != nil {
			to = next.prevIndex
		}
		l.replaceDamage(s.first, to, list)
		return to + 1, nil
	}
}
