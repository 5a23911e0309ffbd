package commitlog

import (
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/logd-io/logd/internal/planted"
	"github.com/logd-io/logd/pkg/vfs"
)

// Defaults and limits.
const (
	DefaultSegmentBytes = 64 << 20
	DefaultCacheBytes   = 64 << 20
	// DefaultOffsetBatches makes a file of the offset index 1.75 MiB.
	DefaultOffsetBatches = 32 << 10
	// MaxEntryBytes bounds the data of one entry, and with it what a decoder
	// may be made to allocate.
	MaxEntryBytes = 64 << 20
)

// Options says where a log is and what is already known about it.
type Options struct {
	FS  vfs.FS
	Dir string

	SegmentBytes int64 // size a segment is preallocated to; 0: DefaultSegmentBytes
	CacheBytes   int64 // bound of the tail cache; 0: DefaultCacheBytes

	OffsetBatches int // batches a file of the offset index holds; 0: DefaultOffsetBatches

	// VerifiedTo is the index of the newest valid checkpoint: frames at or
	// below it are neither read nor verified by Open. 0: all are verified.
	VerifiedTo uint64
	// KnownCommit is the highest commit index the caller knows, from its
	// checkpoints. No entry at or below it is ever cut.
	KnownCommit uint64
	// Reset, when not nil, is the newest checkpoint if that is one that
	// empties the log. A log whose start is below it is emptied to it by Open,
	// before anything is verified: the Reset that a crash interrupted.
	Reset *Start

	// AllowDamage lets Open succeed over damage that no crash explains, where it
	// is such that Repair can mend it: the log is then quarantined, see Damage.
	// Without it Open returns a *CorruptError.
	AllowDamage bool
	// OnDamage is called for each run of entries found damaged, at Open and
	// later, from the goroutine that found it, holding no lock. May be nil.
	OnDamage func(Damage)
	// OnOffsetDamage is the same for files of the offset index.
	OnOffsetDamage func(OffsetDamage)

	// OnFatal is called once, from the goroutine that met the first failure,
	// holding no lock of the log. It may end that goroutine. May be nil.
	OnFatal func(error)

	Logger     hclog.Logger          // nil: quiet
	Registerer prometheus.Registerer // nil: no metrics

	Planted planted.Storage // bugs, in tests; none is set anywhere else
}

// Entry is one entry of the replicated log. Data is shared between the log's
// cache, its callers and its readers: nobody changes it once it is passed.
type Entry struct {
	Index, Term uint64
	Type        uint8
	AppendedAt  int64 // unix ns
	Data        []byte
}

// Start is the entry just below First and the offset at which the log begins
// there; zero for a log that begins at its beginning.
type Start struct{ Index, Term, Offset uint64 }

// Applied is a batch of records that the state machine accepted, and where its
// records are: Data[Pos:Pos+Len] of the entry at Index.
type Applied struct {
	FirstOffset uint64
	Count       uint32
	Index       uint64
	Pos, Len    uint32
	Timestamp   int64 // unix ns
}

// RecordBatch is what Read returns. Records is Count × {uvarint length,
// message}; it is shared and must not be changed.
type RecordBatch struct {
	FirstOffset uint64
	Count       uint32
	Timestamp   int64 // unix ns
	Records     []byte
}

// SlowSync is how long an fdatasync takes that an operator should hear of: about a
// heartbeat timeout, in which everybody who appends waits for it.
const SlowSync = 250 * time.Millisecond

// Stats describes a log at one moment.
type Stats struct {
	First, Last   uint64
	Committed     uint64 // highest commit index known
	Lowest, Next  uint64 // readable offsets
	Segments      int
	Bytes         int64 // of segments, preallocated space included
	Unused        int64 // preallocated and not written yet, in the newest segment and in spares
	Going         int   // segments below the start that Sweep has yet to remove, and what
	GoingBytes    int64 // they and their offset files take
	CacheBytes    int64
	CacheEntries  int
	Spare         bool          // the next segment is preallocated
	LastSync      time.Duration // how long the newest fdatasync of a segment took
	SlowSyncs     uint64        // fdatasyncs of segments that took SlowSync or longer
	OffsetBatches uint64        // batches in the offset index, all its files together
	Damaged       uint64        // entries known to be damaged
	Quarantined   bool          // damage keeps the log from taking entries
	Scrub         Scrubbed
}
