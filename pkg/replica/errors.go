package replica

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

var (
	// ErrDraining answers Submit while the node hands its leadership on or shuts
	// down. The batch was certainly not appended.
	ErrDraining = errors.New("draining")

	// ErrOutcomeUnknown ends a batch that was proposed and whose fate this node
	// cannot learn any more: leadership was lost or Raft stopped. It may or may
	// not be appended, so only a batch with a producer id and sequence, or a
	// request key, may be sent again.
	ErrOutcomeUnknown = errors.New("outcome unknown")

	// ErrClosed answers calls on a replica after Close.
	ErrClosed = errors.New("replica is closed")

	// ErrNotRunning answers calls that need Raft before it has been started:
	// the node belongs to no cluster yet, or Run was not called.
	ErrNotRunning = errors.New("raft is not running on this node")

	// ErrHasState refuses a Bootstrap on a node that already has Raft state.
	ErrHasState = errors.New("node already has raft state")

	// ErrNoOtherVoter answers Transfer on the only voter of its cluster.
	ErrNoOtherVoter = errors.New("no other voter: nobody could lead in this node's place")

	// ErrRaftStopped ends Run when Raft stopped by itself: this node was removed
	// from the configuration.
	ErrRaftStopped = errors.New("raft stopped: this node was removed from the cluster; with its data_dir removed, too, it joins as a new node")
)

// NotLeaderError says that this node does not lead, so that nothing was
// appended. LeaderID is empty when no leader is known at Term.
type NotLeaderError struct {
	LeaderID string
	Term     uint64
}

func (e *NotLeaderError) Error() string {
	if e.LeaderID == "" {
		return fmt.Sprintf("not the leader; no leader known in term %d", e.Term)
	}
	return fmt.Sprintf("not the leader; leader of term %d is %s", e.Term, e.LeaderID)
}

// OverloadedError refuses a batch because the bytes waiting or in flight would
// exceed the limit. Nothing was appended.
type OverloadedError struct{ RetryAfter time.Duration }

func (e *OverloadedError) Error() string {
	return fmt.Sprintf("too many bytes in flight; retry in %v", e.RetryAfter)
}

// DiskLowError refuses a batch because no majority of the voters, the leader
// included, has its disk above the reserve. Nothing was appended.
type DiskLowError struct {
	Low        []string // ids of voters below their reserve
	Silent     []string // of voters that do not answer
	RetryAfter time.Duration
}

func (e *DiskLowError) Error() string {
	msg := "disk below its reserve on " + strings.Join(e.Low, ", ")
	if len(e.Silent) > 0 {
		msg += ", and no answer from " + strings.Join(e.Silent, ", ")
	}
	return msg + ": free space in data_dir there, or keep less (retention, log.reserve)"
}

// InvalidError refuses a batch that no retry can make valid.
type InvalidError struct{ Field, Reason string }

func (e *InvalidError) Error() string { return e.Field + ": " + e.Reason }

// GapError refuses a batch whose first sequence is not the one the state
// machine expects from its producer, and which it does not remember either.
type GapError struct{ Want, Got uint64 }

func (e *GapError) Error() string {
	return fmt.Sprintf("sequence gap: want %d, got %d", e.Want, e.Got)
}

// FencedError refuses a batch of an older epoch than the producer's current one.
type FencedError struct{ Epoch uint32 }

func (e *FencedError) Error() string {
	return fmt.Sprintf("fenced by epoch %d", e.Epoch)
}

// UnknownProducerError refuses a batch that continues a producer the state
// machine does not know (any more), or that belongs to another owner.
type UnknownProducerError struct{}

func (*UnknownProducerError) Error() string { return "unknown producer" }

// BehindError says that this node's log is not readable up to the asked
// position yet. Visible is the next offset it will show.
type BehindError struct{ Visible uint64 }

func (e *BehindError) Error() string {
	return fmt.Sprintf("behind the asked position; visible offset is %d", e.Visible)
}

// PositionUnknownError is a leader's verdict on a position that no record of
// this cluster has: waiting for it would be pointless.
type PositionUnknownError struct{ Visible uint64 }

func (e *PositionUnknownError) Error() string {
	return fmt.Sprintf("position lies beyond the log; visible offset is %d", e.Visible)
}

// ClusterMismatchError says that a cluster uuid differs from the one this node
// is bound to.
type ClusterMismatchError struct{ Bound, Got string }

func (e *ClusterMismatchError) Error() string {
	return fmt.Sprintf("node belongs to cluster %s, not %s", e.Bound, e.Got)
}

// UnknownEntryError ends a node that has to apply an entry which its version cannot
// read. Skipping it would leave this node another than those that can, so it stops,
// within a FatalError, and loses nothing: the entry stays in its log, and a version
// that knows it applies it.
type UnknownEntryError struct {
	Index, Term uint64
	What        string // the kind, and the type
}

func (e *UnknownEntryError) Error() string {
	return fmt.Sprintf("entry %d is a %s, which this version of logd does not know: a newer one wrote it, that of the leader of term %d; "+
		"start this node with that version; its data is whole, and nothing is lost", e.Index, e.What, e.Term)
}

// NameTakenError refuses a new node whose certificate name already has another
// id in the configuration; that id has to be removed first.
type NameTakenError struct{ Name, ID string }

func (e *NameTakenError) Error() string {
	return fmt.Sprintf("name %s already belongs to node %s, which must be removed first", e.Name, e.ID)
}

// TransferError says that this node kept its leadership, which it was to hand on.
// Another attempt may do better.
type TransferError struct{ Err error }

func (e *TransferError) Error() string { return "leadership was not handed on: " + e.Err.Error() }

// Unwrap gives Raft's reason.
func (e *TransferError) Unwrap() error { return e.Err }

// FatalError ends Run after a fault that this process must not survive: a
// failed write or fsync, corruption, or divergence. Its stores are unusable.
type FatalError struct{ Err error }

func (e *FatalError) Error() string { return "fatal: " + e.Err.Error() }

// Unwrap gives the fault itself.
func (e *FatalError) Unwrap() error { return e.Err }
