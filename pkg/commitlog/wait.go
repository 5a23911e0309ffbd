package commitlog

import "context"

// Wait blocks until the record at off is readable, the log closes or fails, or
// ctx ends, with its cause.
func (l *Log) Wait(ctx context.Context, off uint64) error {
	for {
		if f := l.failed.Load(); f != nil {
			return f
		}
		l.mu.Lock()
		if off < l.visible {
			l.mu.Unlock()
			return nil
		}
		if l.closed {
			l.mu.Unlock()
			return ErrClosed
		}
		if l.grew == nil {
			l.grew = make(chan struct{})
		}
		grew := l.grew
		l.mu.Unlock()
		// Failing wakes after it sets failed: looked at again behind the channel.
		if f := l.failed.Load(); f != nil {
			return f
		}
		select {
		case <-grew:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// wake wakes everyone in Wait; mu is held.
func (l *Log) wake() {
	if l.grew != nil {
		close(l.grew)
		l.grew = nil
	}
}
