package replica

import (
	"context"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs"
)

// Limits of a batch and of what waits for Raft.
const (
	// DefaultHeartbeat is the heartbeat, election and lease timeout.
	DefaultHeartbeat = 300 * time.Millisecond
	// DefaultAnnounce is the time between two announcements of the leader's state.
	DefaultAnnounce = 5 * time.Second
	// DefaultMaxInFlightBytes bounds the batches waiting and proposed.
	DefaultMaxInFlightBytes = 32 << 20
	// MaxBatchBytes bounds the records of one batch: a largest record (1 MiB less
	// 4 KiB) with what the leader adds fits, and four batches fit an RPC.
	MaxBatchBytes = 1 << 20
	// EntryBytes is where the batcher stops adding batches to an entry.
	EntryBytes = 256 << 10
	// MaxEntriesInFlight is how many entries are proposed at a time.
	MaxEntriesInFlight = 4
	// CheckpointEntries and CheckpointBytes say how far the state machine runs
	// ahead of the newest checkpoint.
	CheckpointEntries = 4096
	CheckpointBytes   = 64 << 20
)

// Config is what Open needs. Zero values mean the defaults above.
type Config struct {
	// ID is the node id, `<certificate name>.<8 hex>`.
	ID  string
	FS  vfs.FS
	Dir string

	Heartbeat        time.Duration
	MaxInFlightBytes int64
	SegmentBytes     int64
	CacheBytes       int64

	// Reserve is how many bytes of the disk stay free; see DiskLowError. 0: it
	// follows from the sizes of segments, log and disk.
	Reserve int64

	// CheckpointEntries and CheckpointBytes override the constants of that name.
	CheckpointEntries uint64
	CheckpointBytes   uint64

	// Dial opens an authenticated connection to the node with that id; the
	// replica sends the preface on it. Dial must check that the peer's
	// certificate has the id's name.
	Dial func(ctx context.Context, id string) (net.Conn, error)
	// Source is where damaged entries are taken from. Nil: nothing is repaired,
	// and damage that Raft must not see is refused by Open.
	Source Source
	// ScrubRate is how many bytes a second are read to find damage. 0: none.
	ScrubRate int64

	// Retain is what the cluster keeps, as long as this node leads; give all nodes
	// the same.
	Retain Retain
	// Announce is how often a leader announces its state, so that the others
	// compare theirs; negative: never.
	Announce time.Duration
	// Compare puts CompareHash to another node. It must have its certificate's
	// name checked, both ways.
	Compare func(ctx context.Context, id string, index, digest uint64) (known bool, theirs uint64, err error)
	// Clock tells how old records are; nil: the system's. It may jump.
	Clock func() time.Time

	Logger     hclog.Logger
	Registerer prometheus.Registerer
}

// Batch is one produce: Count records that are appended together, in order, or
// not at all.
type Batch struct {
	// Producer is the producer id; all zero means that the batch is not
	// deduplicated, and that it may be merged with its neighbours.
	Producer [16]byte
	// Owner identifies the principal and certificate name the producer id
	// belongs to; another owner's use of the id is refused.
	Owner    uint64
	Epoch    uint32
	FirstSeq uint64
	Count    uint32
	// Key is the request key, all zero for none. A keyed batch has one record.
	Key [16]byte
	// Records holds Count times {uvarint length, message}. The replica keeps a
	// reference until the batch is done; the caller must not change it.
	Records []byte
	// Timestamp is the leader's clock, unix ns; it answers "offset at a time".
	Timestamp int64
	// Commit, if it is set, takes how the batch was committed. It is the replica's until
	// the batch is done.
	Commit *Commit
}

// Commit is how a batch that was applied came there, for who traces it.
type Commit struct {
	Proposed time.Time // when Raft was given its entry
	Visible  time.Time // when the state machine had applied that, and readers saw it
	Index    uint64    // of the entry; 0: it was not applied
	Term     uint64
	Batches  int // in the entry
}

// Result says where a batch is in the log. The offsets of a duplicate are those
// it got the first time.
type Result struct {
	FirstOffset uint64
	Count       uint32
	Duplicate   bool
}

// Peer is one server of the Raft configuration.
type Peer struct {
	ID    string
	Voter bool
}

// State is what this node's Raft is doing.
type State string

// The states of View.State.
const (
	StateIdle      State = "idle" // Raft is not running
	StateFollower  State = "follower"
	StateCandidate State = "candidate"
	StateLeader    State = "leader"
	StateShutdown  State = "shutdown"
)

// View is the cluster as this node sees it. It is immutable.
type View struct {
	ClusterID string
	Term      uint64
	LeaderID  string // "" while no leader is known at Term
	Peers     []Peer // sorted by ID
	Ready     bool   // has caught up with a leader since it started
	Draining  bool
	State     State
	IsLeader  bool // leads, and has applied an entry of its own term
}

// Stats is a snapshot of figures for operators and autopilot.
type Stats struct {
	State        State
	Term         uint64
	LeaderID     string
	LastIndex    uint64
	LastTerm     uint64
	CommitIndex  uint64
	AppliedIndex uint64        // by the state machine; Raft's no-ops count
	LastContact  time.Duration // since the leader was heard of; 0 on the leader, -1 never
	Visible      uint64
	Lowest       uint64
	FirstIndex   uint64
	LogBytes     int64
	Segments     int
	Producers    int
	Hash         uint64 // rolling hash over the applied entries
	InFlight     int64  // bytes of batches waiting or proposed
	DiskFree     uint64 // bytes that may still be written, preallocated ones included
	DiskReserve  uint64 // bytes
	DiskLow      bool   // DiskFree went below DiskReserve
	Ready        bool
	Draining     bool
	Damaged      uint64 // entries that cannot be read and wait for repair
	Scrub        commitlog.Scrubbed
}
