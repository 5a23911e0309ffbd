package replica

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/raftstore"
)

// probe is how tests look into a replica and plant mistakes in it, to see that
// they are caught. Production has none: the pointer is nil.
type probe struct {
	bugs bugs

	// stores and snapshots put something between Raft and what it stores through,
	// at each start of Raft.
	stores    func(*raftstore.Store) (raft.LogStore, raft.StableStore)
	snapshots func(*raftstore.Snapshots) raft.SnapshotStore
	// started is called when Raft has been, before it can have done anything.
	started func(*raft.Raft)
	// state is told of each state Raft takes, on Raft's main goroutine.
	state func(*raft.Raft, raft.RaftState)
	// sends sees the AppendEntries this node sends, before they are shortened.
	sends func(*raft.AppendEntriesRequest)
	// made sees each machine before its first entry, restored ones included.
	made func(m *machine, visible uint64)
	// applied follows each entry of the state machine, before its records can be
	// read.
	applied func(l *raft.Log, m *machine, outcomes []outcome, published []commitlog.Applied)

	commitTimeout time.Duration // Raft's; 0: as in production
}

// bugs are mistakes to plant.
type bugs struct {
	noSequence    bool // the machine accepts whatever sequence comes
	newOffsets    bool // a duplicate is answered with the offsets it would get now
	expireByClock bool // producers are forgotten by the clock of each node
	noProducers   bool // the producer table is not in the checkpoint
	noKeys        bool // the request keys are lost when a checkpoint is restored
	noRewind      bool // the offset index is left as it is when a checkpoint is restored
	ackProposed   bool // a batch is acknowledged when Raft has taken it
	early         bool // offsets are what they seemed to become when the batch was proposed
	keepTail      bool // a checkpoint that conflicts with the log is taken for one it holds
}

// planted gives the bugs of a probe that may be nil.
func (p *probe) planted() bugs {
	if p == nil {
		return bugs{}
	}
	return p.bugs
}

// guess is the bug of giving offsets before an entry is applied.
func (pr *proposal) guess(next uint64) {
	rest := pr.waiting
	for _, n := range pr.groups {
		o := outcome{verdict: accepted, offset: next}
		for _, p := range rest[:n] {
			o.count += p.batch.Count
		}
		rest = rest[n:]
		next += uint64(o.count)
		pr.guessed = append(pr.guessed, o)
	}
}

// expire is the bug of asking the clock what to forget.
func (t *producers) expire() {
	if front := t.order.Front(); front != nil && time.Now().Unix()%16 == 0 {
		oldest := t.order.Remove(front).(*producer)
		delete(t.byID, oldest.id)
	}
}
