package replica

import (
	"errors"

	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/commitlog"
)

// Extract is a run of a node's entries, for a peer that repairs its own.
type Extract struct {
	// Entries follow each other. None: the node has none of those asked for that
	// it can read.
	Entries []commitlog.Entry
	// Commit is an index up to which the node's entries are committed: those of
	// Entries at or below it are the cluster's for ever.
	Commit uint64
	// First and Last are the range of the node's log; Last is First-1 when it is
	// empty.
	First, Last uint64
}

// Checkpoint is the state at one entry, with what is needed to keep it.
type Checkpoint struct {
	Index, Term uint64
	Next, Bytes uint64 // the offset after its last record, and the payload bytes up to it
	Config      []byte // as hashicorp/raft encodes it
	ConfigIndex uint64
	State       []byte
}

// Entries reads entries of this node from first on, for a peer: those that follow
// each other up to last, as far as they are there and verify, at most maxBytes of
// data but one in any case. It reads the disk, and needs no Raft.
func (r *Replica) Entries(first, last uint64, maxBytes int) (Extract, error) {
	log := r.store.Log()
	// Before the entries: what is committed when we look is not replaced after.
	x := Extract{Commit: r.committed(), First: log.First(), Last: log.Last()}
	size := 0
	for i := first; i >= first && i <= min(last, x.Last); i++ {
		e, err := log.Entry(i)
		var damaged *commitlog.CorruptError
		switch {
		case errors.Is(err, commitlog.ErrNotFound), errors.As(err, &damaged):
			return x, nil
		case err != nil:
			return x, err
		}
		if size += len(e.Data); size > maxBytes && len(x.Entries) > 0 {
			break
		}
		x.Entries = append(x.Entries, e)
	}
	return x, nil
}

// committed is the highest index this node knows to be committed and has.
func (r *Replica) committed() uint64 {
	known := r.store.Log().Stats().Committed
	if e := r.engine.Load(); e != nil {
		known = max(known, e.raft.CommitIndex())
	}
	return known
}

// NewestCheckpoint gives the newest checkpoint of this node at or below max, for a peer
// that has none; Index is 0 when there is none. It needs no Raft.
func (r *Replica) NewestCheckpoint(max uint64) (Checkpoint, error) {
	c, ok, err := r.store.Checkpoint(max)
	if !ok {
		return Checkpoint{}, err
	}
	return Checkpoint{
		Index: c.Index, Term: c.Term, Next: c.Next, Bytes: c.Bytes,
		Config: raft.EncodeConfiguration(c.Config), ConfigIndex: c.ConfigIndex, State: c.State,
	}, nil
}
