package forward

import (
	"context"
	"sync"
)

// lane is one client's ProduceStream: its ops finish in the order they were
// queued, and after the first that fails none is sent.
type lane struct {
	client client // guarded by the appender's mu

	mu          sync.Mutex
	outcomes    []outcome // finished, not yet taken by the answerer; guarded by mu
	err         error     // comes after outcomes, and nothing after it; guarded by mu
	outstanding int       // admitted and not yet answered to the client; guarded by mu
	bytes       int       // theirs; guarded by mu
	ended       bool      // nothing more is admitted; guarded by mu
	by          string    // the node that had a word on the last outcome; guarded by mu
	endErr      error     // how the stream ends when nothing failed; guarded by mu

	ready chan struct{} // room for one: outcomes, err or ended have news
	room  chan struct{} // room for one: outstanding shrank or ended
}

// outcome is an appended record: where, and what it counted in the lane's bound.
type outcome struct {
	offset uint64
	size   int
}

func newLane() *lane {
	return &lane{ready: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// signal wakes the one reader of c, now or when it next looks.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// admit waits until a record of n bytes fits under the bounds, and says whether it
// may still be queued. One record always fits into an empty lane.
func (l *lane) admit(ctx context.Context, n, maxCount, maxBytes int) bool {
	for {
		l.mu.Lock()
		switch {
		case l.ended || l.err != nil:
			l.mu.Unlock()
			return false
		case l.outstanding == 0 || l.outstanding < maxCount && l.bytes+n <= maxBytes:
			l.outstanding++
			l.bytes += n
			l.mu.Unlock()
			return true
		}
		l.mu.Unlock()
		select {
		case <-l.room:
		case <-ctx.Done():
			return false
		}
	}
}

// refuse takes back an admitted record that was not queued.
func (l *lane) refuse(n int) {
	l.mu.Lock()
	l.outstanding--
	l.bytes -= n
	l.mu.Unlock()
}

// finish takes the outcome of the lane's oldest unfinished op.
func (l *lane) finish(o outcome, by string, err error) {
	l.mu.Lock()
	if by != "" {
		l.by = by
	}
	wake := false
	switch {
	case l.err != nil:
	case err != nil:
		l.err, wake = err, true
	default:
		wake = len(l.outcomes) == 0
		l.outcomes = append(l.outcomes, o)
	}
	l.mu.Unlock()
	if wake {
		signal(l.ready)
		signal(l.room)
	}
}

// servedBy is the node that had a word on the last outcome.
func (l *lane) servedBy() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.by
}

// end lets nothing more in; the first call decides how the stream ends.
func (l *lane) end(err error) {
	l.mu.Lock()
	if !l.ended {
		l.ended, l.endErr = true, err
	}
	l.mu.Unlock()
	signal(l.ready)
	signal(l.room)
}

func (l *lane) hasEnded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// taken swaps what has finished for buf, which is empty. err ends the lane after
// them.
func (l *lane) taken(buf []outcome) (_ []outcome, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	got := l.outcomes
	l.outcomes = buf
	return got, l.err
}

// answered takes note of what the client was told, and says whether that was all,
// and how the stream ends then.
func (l *lane) answered(os []outcome) (over bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range os {
		l.bytes -= o.size
	}
	l.outstanding -= len(os)
	if len(os) > 0 {
		signal(l.room)
	}
	return l.ended && l.outstanding == 0, l.endErr
}
