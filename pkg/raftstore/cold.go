package raftstore

import (
	"sync"

	"github.com/logd-io/logd/pkg/commitlog"
)

// coldBytes bounds the entries kept after a read from disk: as much as Raft reads
// for one AppendEntries, 64 entries of 256 KiB.
const coldBytes = 16 << 20

// coldOverhead is what a kept entry costs besides its data.
const coldOverhead = 96

// cold keeps the entries that were read from disk last, for the next call of
// Raft's. It reads by number of entries, the transport sends by bytes, and what
// was cut off is read again at once: a follower that lags would have every entry
// read from disk four times.
//
// Only entries that are applied are put in. No such entry ever changes, so that
// nothing has to be taken out again when the log is cut or emptied.
type cold struct {
	mu    sync.Mutex
	by    map[uint64]commitlog.Entry // by index; guarded by mu
	order []uint64                   // indexes, in the order they came; guarded by mu
	bytes int64                      // ≤ coldBytes; guarded by mu
}

func (c *cold) get(index uint64) (commitlog.Entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.by[index]
	return e, ok
}

func (c *cold) put(e commitlog.Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.by[e.Index]; ok {
		return
	}
	if c.by == nil {
		c.by = make(map[uint64]commitlog.Entry)
	}
	c.by[e.Index] = e
	c.order = append(c.order, e.Index)
	c.bytes += int64(len(e.Data)) + coldOverhead
	for c.bytes > coldBytes {
		old := c.by[c.order[0]]
		delete(c.by, old.Index)
		c.order = c.order[1:]
		c.bytes -= int64(len(old.Data)) + coldOverhead
	}
}
