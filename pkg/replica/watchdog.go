package replica

import (
	"fmt"
	"time"

	"github.com/logd-io/logd/pkg/vfs"
)

// watchdogPeriod is how often a replica looks for an operation that hangs.
const watchdogPeriod = time.Second

// watchDisk makes an operation that hangs fatal, until stop is closed: whichever
// changes something below the data directory, of the log, the votes, a
// checkpoint, the offset index. It has a goroutine of its own, since any other
// may be the one that hangs.
func (r *Replica) watchDisk(stop <-chan struct{}) {
	ticks := time.NewTicker(watchdogPeriod)
	defer ticks.Stop()
	w := watchdog{limit: max(3*time.Second, 4*r.cfg.Heartbeat)}
	for {
		select {
		case <-ticks.C:
			if err := w.look(r.ops.Oldest()); err != nil {
				r.hang(err)
				return
			}
		case <-stop:
			return
		}
	}
}

// watchdog finds a write that hangs. Such a write is fatal: it would keep Raft's
// main loop, and with it a leader's whole cluster, for as long as the disk likes.
//
// It counts its own looks, not the time on the clock: a process that was stopped
// for a while, or a machine that slept, has a write that is old and does not hang.
type watchdog struct {
	limit time.Duration
	op    uint64        // ID of the operation seen at the last look; 0: none
	seen  time.Duration // how long it has been seen, look after look
}

// look takes note of the oldest operation under way.
func (w *watchdog) look(op vfs.Op) error {
	if op.ID == 0 || op.ID != w.op {
		w.op, w.seen = op.ID, 0
		return nil
	}
	if w.seen += watchdogPeriod; w.seen > w.limit {
		return fmt.Errorf("%s has not returned for %v", op, w.seen)
	}
	return nil
}
