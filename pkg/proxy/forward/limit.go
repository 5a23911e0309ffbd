package forward

import (
	"errors"
	"sync"
)

// Why a record is not let in.
var (
	errFull  = errors.New("the proxy holds as much as it may")
	errShare = errors.New("this client holds as much as is left for all the others")
)

// limiter bounds what the proxy holds for its producing clients: records without
// an outcome, and their bytes.
//
// One client may hold as much as is still free, and no more: alone half of the
// bounds, two that flood it a third each, and there is always room for one more.
// (Dynamic thresholds: Choudhury and Hahne, IEEE/ACM ToN 1998, with factor 1.)
type limiter struct {
	maxCount int
	maxBytes int64

	mu     sync.Mutex
	count  int           // guarded by mu
	bytes  int64         // guarded by mu
	opened chan struct{} // closed when something is released; nil when nobody waits; guarded by mu
}

func newLimiter(count int, bytes int64) *limiter {
	return &limiter{maxCount: count, maxBytes: bytes}
}

// take finds a place for one record of n bytes of a client that holds count and
// bytes already, or says errFull or errShare. One record always fits into an empty
// limiter.
func (l *limiter) take(count int, bytes int64, n int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.count > 0 {
		switch room, free := l.maxCount-l.count, l.maxBytes-l.bytes-int64(n); {
		case room <= 0 || free < 0:
			return errFull
		case count >= room || bytes > free:
			return errShare
		}
	}
	l.count++
	l.bytes += int64(n)
	return nil
}

func (l *limiter) release(count int, bytes int64) {
	if count == 0 {
		return
	}
	l.mu.Lock()
	l.count -= count
	l.bytes -= bytes
	opened := l.opened
	l.opened = nil
	l.mu.Unlock()
	if opened != nil {
		close(opened)
	}
}

// released is closed when something is released from now on.
func (l *limiter) released() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opened == nil {
		l.opened = make(chan struct{})
	}
	return l.opened
}

func (l *limiter) held() (count int, bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count, l.bytes
}
