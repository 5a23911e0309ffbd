package forward

import (
	"time"

	"github.com/logd-io/logd/pkg/apierr"
)

// expireStep is how long at least passes between two looks at what has expired: each
// goes through all that waits, and every client may have a deadline of its own.
const expireStep = 5 * time.Millisecond

// expire ends what has waited too long for a leader, and answers when to look
// again; 0 means that nothing can expire as things are.
func (a *appender) expire(now int64) (next int64) {
	var fin finished
	a.mu.Lock()
	defer func() {
		a.mu.Unlock()
		fin.tell(a.f)
	}()
	if a.stalled == 0 {
		return 0
	}
	over := func(o *op) bool {
		due := max(o.queued, a.stalled) + int64(a.f.cfg.HoldTimeout)
		if o.due != 0 {
			due = min(due, o.due)
		}
		if due <= now {
			return true
		}
		if next == 0 || due < next {
			next = due
		}
		return false
	}
	building := false
	for _, b := range a.inflight {
		if !b.built {
			building = true // its sender is busy with the ops
			continue
		}
		for i, o := range b.ops {
			if o != nil && over(o) {
				b.ops[i] = nil
				fin.add(o, 0, false, apierr.OutcomeUnknown{})
				fin.keep(b, o)
				a.f.metrics.expired.Inc()
			}
		}
	}
	if building {
		// What waits is behind those ops, and of a stream must not be told before them.
		return now + int64(expireStep)
	}
	var late []*op
	for _, c := range a.queue.line {
		for o := c.waiting.head; o != nil; o = o.next {
			if c.over || over(o) {
				late = append(late, o)
			}
		}
	}
	for _, o := range late {
		a.queue.remove(o)
		fin.add(o, 0, false, a.late())
		a.f.metrics.expired.Inc()
	}
	if next != 0 {
		next = max(next, now+int64(expireStep))
	}
	return next
}

// late is what a client is told whose record has waited too long. mu is held.
func (a *appender) late() error {
	if over := a.overloaded; over != nil {
		return apierr.Overloaded{RetryAfter: pushback, Why: over.Why, Limit: over.Limit}
	}
	return apierr.NotSent{}
}
