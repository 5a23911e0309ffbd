package replica

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/raftstore"
)

// fsm connects the machine to Raft and to the log's offset side. Raft calls it
// from one goroutine at a time.
type fsm struct {
	log     *commitlog.Log
	cluster string      // the uuid this node is bound to
	settled func() bool // it has caught up: what it has applied is of its cluster. nil: it has not
	fail    func(error) // does not return
	moved   func(due)   // called after every batch; must not block

	checkpointEntries, checkpointBytes uint64

	mu       sync.Mutex
	m        *machine // guarded by mu
	pub      []commitlog.Applied
	ckpt     progress // at the newest checkpoint; guarded by mu
	pending  progress // at the checkpoint being taken; guarded by mu
	applied  atomic.Uint64
	notes    notes              // guarded by mu
	seen     []comparison       // of one ApplyBatch, reused; guarded by mu
	compared func([]comparison) // called when there are any; must not block
	replayed bool               // test switch: apply again what is applied (I3 off)
	probe    *probe             // of tests
}

type progress struct{ index, bytes, next uint64 }

// due says what a batch of entries made necessary.
type due struct {
	checkpoint bool
	retain     bool
	config     bool
}

// appliedData answers the future of a data entry on the node that proposed it.
type appliedData struct {
	outcomes []outcome
	term     uint64
}

// appliedControl answers the future of a control entry.
type appliedControl struct{ term uint64 }

var _ raft.BatchingFSM = (*fsm)(nil)

// ApplyBatch implements raft.BatchingFSM; it gets commands and configurations.
// Configurations have to come through here, or Raft would take no snapshot
// after one.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	f.mu.Lock()
	defer f.mu.Unlock()
	answers := make([]any, len(logs))
	var d due
	f.pub = f.pub[:0]
	lowest := f.m.lowest
	for i, l := range logs {
		if !f.m.step(l.Index, l.Term, l.Data) && !f.replayed {
			continue
		}
		var err error
		var said *announcement
		published := len(f.pub)
		switch {
		case l.Type == raft.LogConfiguration:
			d.config = true
		case len(l.Data) > 0 && l.Data[0] == kindControl:
			err = f.m.control(l.Index, l.Data)
			said = announced(l.Data)
			if err == nil && f.settled != nil && f.settled() {
				err = f.foreign()
			}
			answers[i] = &appliedControl{term: l.Term}
		default:
			a := &appliedData{term: l.Term}
			a.outcomes, f.pub, err = f.m.data(l.Index, l.Data, a.outcomes, f.pub)
			answers[i] = a
		}
		if err != nil {
			f.fail(err)
		}
		if f.probe != nil && f.probe.applied != nil {
			a, _ := answers[i].(*appliedData)
			if a == nil {
				a = &appliedData{}
			}
			f.probe.applied(l, f.m, a.outcomes, f.pub[published:])
		}
		if said != nil {
			f.heard(l.Index, said)
		} else {
			f.notes.fresh = true
		}
	}
	f.log.SetCommitted(f.m.applied)
	if len(f.pub) > 0 {
		if err := f.log.Publish(f.pub); err != nil {
			f.fail(fmt.Errorf("publish offsets: %w", err))
		}
	}
	if f.m.lowest != lowest {
		f.log.SetLowest(f.m.lowest)
		d.retain = true
	}
	f.applied.Store(f.m.applied)
	d.checkpoint = f.isCheckpointDue()
	f.moved(d)
	if len(f.seen) > 0 && f.compared != nil {
		f.compared(f.seen)
	}
	f.seen = f.seen[:0]
	return answers
}

// comparison is an announced state beside this node's own at the same entry.
type comparison struct {
	index          uint64
	announced, own uint64
	by             string
	known          bool // this node remembers its own
}

// heard compares an announcement, which the entry at index is, and notes the
// state there; mu is held.
func (f *fsm) heard(index uint64, a *announcement) {
	if a.index > 0 {
		own, known := f.notes.find(a.index)
		known = known && sameVersion(a.digest)
		f.seen = append(f.seen, comparison{index: a.index, announced: a.digest, own: own, by: a.by, known: known})
	}
	f.notes.add(note{index, f.m.fingerprint()})
}

// announcement is what a leader has to announce, and whether it is time.
func (f *fsm) announcement() (newest note, due bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.notes.newest(), f.notes.due()
}

// want makes an announcement due, and the one that compares it.
func (f *fsm) want() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notes.wanted = 2
}

// noted is the state noted at index.
func (f *fsm) noted(index uint64) (digest uint64, known bool, applied uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	digest, known = f.notes.find(index)
	return digest, known, f.m.applied
}

// Apply implements raft.FSM.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// Snapshot implements raft.FSM: the state is encoded here, at one entry.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending = progress{index: f.m.applied, bytes: f.m.bytes, next: f.m.next}
	s := &fsmSnapshot{log: f.log, state: f.m.encode(), next: f.m.next, bytes: f.m.bytes}
	if f.probe.planted().noProducers {
		less := *f.m
		less.producers = newProducers(maxProducers)
		s.state = less.encode()
	}
	return s, nil
}

// checkpointed notes that the checkpoint begun last is durable.
func (f *fsm) checkpointed() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ckpt = f.pending
}

// Restore implements raft.FSM. The offset index goes back with the state, and
// is extended again as Raft repeats the entries after it.
func (f *fsm) Restore(r io.ReadCloser) error {
	b, err := io.ReadAll(io.LimitReader(r, raftstore.MaxStateBytes+1))
	if err != nil {
		return fmt.Errorf("read checkpoint: %w", err)
	}
	m, err := decodeMachine(b)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	planted := f.probe.planted()
	m.bugs = planted
	if planted.noKeys {
		m.keys = newRequestKeys(maxKeys)
	}
	if planted.noRewind {
		// As it is.
	} else if err := f.log.Rewind(m.next); err != nil {
		return fmt.Errorf("rewind to offset %d: %w", m.next, err)
	}
	f.log.SetCommitted(m.applied)
	f.log.SetLowest(max(m.lowest, f.log.Start().Offset))
	f.m, f.notes = m, notes{}
	f.applied.Store(m.applied)
	f.ckpt = progress{index: m.applied, bytes: m.bytes, next: m.next}
	if f.probe != nil && f.probe.made != nil {
		f.probe.made(m, f.log.Visible())
	}
	return nil
}

// foreign says why this log is not that of the node's cluster, if it is not. It
// may be while entries of a former cluster are replayed, of which this one was
// recovered, and only then. mu is held.
func (f *fsm) foreign() error {
	if f.m.cluster == "" || f.m.cluster == f.cluster {
		return nil
	}
	return &ClusterMismatchError{Bound: f.cluster, Got: f.m.cluster}
}

// figures are what Stats shows of the machine.
func (f *fsm) figures() (producers int, hash uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.m.producers.byID), f.m.hash
}

func (f *fsm) lowest() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.m.lowest
}

// fsmSnapshot is a state on its way into a checkpoint.
type fsmSnapshot struct {
	log         *commitlog.Log
	state       []byte
	next, bytes uint64
}

// Persist implements raft.FSMSnapshot. The offsets a checkpoint covers are
// durable before it is, since nothing will publish them again.
func (s *fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.log.SyncOffsets(); err != nil {
		return fmt.Errorf("sync offsets: %w", err)
	}
	if k, ok := sink.(*raftstore.Sink); ok {
		k.Cover(s.next, s.bytes)
	}
	_, err := sink.Write(s.state)
	return err
}

// Release implements raft.FSMSnapshot.
func (s *fsmSnapshot) Release() {}

// checkpointDue says whether the state machine is far enough ahead.
func (f *fsm) checkpointDue() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.isCheckpointDue()
}

// isCheckpointDue is checkpointDue with mu held. The start of the log can only
// move to a checkpoint, so retention that reaches beyond the newest wants one.
func (f *fsm) isCheckpointDue() bool {
	return f.m.applied-f.ckpt.index >= f.checkpointEntries || f.m.bytes-f.ckpt.bytes >= f.checkpointBytes ||
		f.m.lowest > f.ckpt.next
}
