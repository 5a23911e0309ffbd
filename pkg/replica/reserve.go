package replica

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/raftstore"
	"github.com/logd-io/logd/pkg/vfs"
)

const (
	// reservePeriod is how often a node looks at its disk, for what others write there.
	// It also looks when it has taken a reservePart of the reserve itself.
	reservePeriod = 250 * time.Millisecond
	reservePart   = 16
	// leastReserve and usualReserve bound the reserve that follows from the size
	// of things; see reserveOf.
	leastReserve = 4 * raftstore.MaxStateBytes
	usualReserve = 256 << 20
	// lastRecordBytes is what a bare node still takes of records: the entries in
	// flight when its disk filled up, twice, and so whatever else stands behind
	// them in the log.
	lastRecordBytes = 2 * MaxEntriesInFlight * MaxBatchBytes
)

// reserve watches the room on this node's disk, so that a full one is met before
// it happens. Three steps, each left an eighth of the reserve above where it was
// entered:
//
//	room ≥ reserve        nothing is refused
//	low: below it         the node says so to its leader, who takes no produce
//	                      unless a majority of voters, itself included, is above;
//	                      a follower still takes whatever comes: behind a segment
//	                      of records there comes the retention that frees as much
//	bare: below half      a follower takes entries without records only, and the
//	                      few records that were on their way (lastRecordBytes)
//
// Room is what the filesystem has free and what the log has preallocated: the
// latter is the log's whatever happens.
type reserve struct {
	fs      vfs.FS
	dir     string
	fixed   uint64 // the reserve; 0: reserveOf
	segment uint64
	log     *commitlog.Log
	logger  hclog.Logger
	metrics *metrics

	state   atomic.Pointer[diskState] // written by look alone
	most    int64                     // lastRecordBytes, but for tests
	taken   atomic.Int64              // bytes of records taken since the node is bare
	since   atomic.Int64              // bytes of records taken since it was last looked for them
	soon    chan struct{}             // room for one: look now
	unknown bool                      // the last look failed; of look
}

// diskState is what one look found. It is immutable.
type diskState struct {
	room, reserve uint64 // bytes
	low, bare     bool
}

// reserveOf is the reserve of a log whose operator says nothing: four segments,
// at least 256 MiB, but not more than a quarter of what the log has and could
// get, so that a small disk can be used too. Below a segment and four of the
// largest checkpoints no log can live.
func reserveOf(room, used, segment uint64) uint64 {
	return max(min(max(usualReserve, 4*segment), (room+used)/4), segment+leastReserve)
}

// run looks at the disk until stop is closed.
func (d *reserve) run(stop <-chan struct{}) {
	ticks := time.NewTicker(reservePeriod)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
			d.look()
		case <-d.soon:
			d.look()
		case <-stop:
			return
		}
	}
}

// look measures the room and says what changed. When it cannot be measured the
// last state stands: what a full disk does then is met at the write.
func (d *reserve) look() {
	was := d.state.Load()
	if was == nil {
		was = &diskState{}
		d.state.Store(was)
	}
	free, err := d.fs.Free(d.dir)
	if err != nil {
		if !d.unknown {
			d.logger.Warn("the free space of the disk is unknown", "dir", d.dir, "err", err)
		}
		d.unknown = true
		return
	}
	d.unknown = false
	st := d.log.Stats()
	now := &diskState{room: free + uint64(st.Unused), reserve: d.fixed}
	if now.reserve == 0 {
		now.reserve = reserveOf(now.room, uint64(max(st.Bytes-st.Unused, 0)), d.segment)
	}
	below := func(was bool, bound uint64) bool {
		if was {
			bound += now.reserve / 8
		}
		return now.room < bound
	}
	now.low = below(was.low, now.reserve)
	now.bare = below(was.bare, now.reserve/2)
	if !now.bare {
		d.taken.Store(0)
	}
	d.state.Store(now)
	d.metrics.diskFree.Set(float64(now.room))
	d.metrics.diskReserve.Set(float64(now.reserve))
	d.metrics.diskLow.Set(0)
	if now.low {
		d.metrics.diskLow.Set(1)
	}
	if now.low == was.low && now.bare == was.bare {
		return
	}
	args := []any{"dir", d.dir, "free", now.room, "reserve", now.reserve}
	switch {
	case now.bare:
		d.logger.Error("disk almost full: this node takes no more records; free space on it", args...)
	case now.low:
		d.logger.Warn("disk below its reserve: records are refused when a majority of nodes is; free space on it", args...)
	default:
		d.logger.Info("disk above its reserve again", args...)
	}
}

// note has the disk looked at once so much was taken that the reserve could be gone by the
// next look. It does not wait for it.
func (d *reserve) note(size int64) {
	if n := d.since.Add(size); uint64(n) < d.state.Load().reserve/reservePart {
		return
	}
	d.since.Store(0)
	select {
	case d.soon <- struct{}{}:
	default:
	}
}

// low says that this node is below its reserve.
func (d *reserve) low() bool { return d.state.Load().low }

// errRefused begins the answer of a node that takes no records any more. It
// comes back over the wire as text.
var errRefused = errors.New("disk below its reserve: no records are taken")

// admit refuses entries with records while this node is bare. Those that it has
// already cost nothing.
func (d *reserve) admit(entries []*raft.Log) error {
	last := d.log.Last()
	var size int64
	for _, e := range entries {
		if e.Index > last && hasRecords(e) {
			size += int64(len(e.Data))
		}
	}
	d.note(size)
	if !d.state.Load().bare {
		return nil
	}
	// One goroutine a peer asks; only one of the peers leads.
	if size > 0 && d.taken.Add(size) > d.most {
		d.taken.Add(-size)
		return errRefused
	}
	return nil
}

// hasRecords says whether an entry brings records.
func hasRecords(e *raft.Log) bool {
	return e.Type == raft.LogCommand && (len(e.Data) == 0 || e.Data[0] != kindControl)
}
