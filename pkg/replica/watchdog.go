package replica

import (
	"fmt"
	"time"
)

// watchdogPeriod is how often Run looks for a hung write.
const watchdogPeriod = time.Second

// watchdog finds a write that hangs. Such a write is fatal: it would keep Raft's
// main loop, and with it a leader's whole cluster, for as long as the disk likes.
//
// It counts its own looks, not the time on the clock: a process that was stopped
// for a while, or a machine that slept, has a write that is old and does not hang.
type watchdog struct {
	limit time.Duration
	since time.Time     // when the write seen at the last look began; zero: none
	seen  time.Duration // how long it has been seen, look after look
}

// look takes note of the write under way, which began at since.
func (w *watchdog) look(since time.Time) error {
	if since.IsZero() || !since.Equal(w.since) {
		w.since, w.seen = since, 0
		return nil
	}
	if w.seen += watchdogPeriod; w.seen > w.limit {
		return fmt.Errorf("a write to the log has not returned for %v", w.seen)
	}
	return nil
}
