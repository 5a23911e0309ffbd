package forward

import (
	"context"
	"sync"
)

// limiter bounds what the proxy holds for its producing clients: records without
// an outcome, and their bytes.
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

// tryAcquire takes a place for one record of n bytes, or says that there is none.
func (l *limiter) tryAcquire(n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.take(n)
}

// take is tryAcquire with mu held. One record always fits into an empty limiter.
func (l *limiter) take(n int) bool {
	if l.count > 0 && (l.count >= l.maxCount || l.bytes+int64(n) > l.maxBytes) {
		return false
	}
	l.count++
	l.bytes += int64(n)
	return true
}

// acquire waits for a place until ctx ends or stop is closed.
func (l *limiter) acquire(ctx context.Context, stop <-chan struct{}, n int) bool {
	for {
		l.mu.Lock()
		if l.take(n) {
			l.mu.Unlock()
			return true
		}
		if l.opened == nil {
			l.opened = make(chan struct{})
		}
		opened := l.opened
		l.mu.Unlock()
		select {
		case <-opened:
		case <-ctx.Done():
			return false
		case <-stop:
			return false
		}
	}
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

func (l *limiter) held() (count int, bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count, l.bytes
}
