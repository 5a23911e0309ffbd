package replica

import (
	"bytes"
	"fmt"
	"iter"
	"path"

	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/raftstore"
)

// Verdict is what Verify found.
type Verdict struct {
	Entries, Records uint64
	Bytes            int64 // of payload
	Findings         []commitlog.Finding
	Next             NextStart
}

// Verify reads every byte of the directory and checks it: each frame, the chain
// of segments, Raft's state, each checkpoint and its copy; and by replaying the
// entries, that the offset index and the checkpoints say what the entries do.
// progress, when not nil, is told the index of each entry and of the last, and
// ends it with an error.
func (o *Offline) Verify(progress func(index, last uint64) error) (*Verdict, error) {
	next, err := o.NextStart()
	if err != nil {
		return nil, err
	}
	a := &audit{o: o, at: o.Store.Log.Start.Index, last: next.Last, progress: progress}
	records, stop := iter.Pull(a.index)
	defer stop()
	a.pull = records
	a.advance()
	if o.Store.Log.Start.Index == 0 {
		a.m = newMachine()
	}
	a.checkpoints()
	if err := o.Store.Log.Frames(0, a.frame); err != nil {
		return nil, err
	}
	a.end()
	if a.indexErr != nil {
		return nil, a.indexErr
	}
	o.identity(a)
	a.v.Findings, a.v.Next = o.findings, next
	return &a.v, nil
}

// audit replays entries beside the offset index and the checkpoints.
type audit struct {
	o        *Offline
	v        Verdict
	at       uint64 // the entry replayed last
	term     uint64 // its term
	last     uint64
	progress func(index, last uint64) error

	m   *machine // nil: what it would be is not known, entries are missing
	n   int      // checkpoints passed
	pub []commitlog.Applied

	pull     func() (commitlog.OffsetRecord, bool)
	rec      commitlog.OffsetRecord // the next one of the index
	more     bool                   // there is one
	indexErr error
}

// index gives the records of the offset index.
func (a *audit) index(yield func(commitlog.OffsetRecord) bool) {
	a.indexErr = a.o.Store.Log.OffsetRecords(func(r *commitlog.OffsetRecord) error {
		if !yield(*r) {
			return errEnough
		}
		return nil
	})
}

func (a *audit) advance() { a.rec, a.more = a.pull() }

func (a *audit) frame(f *commitlog.Frame) error {
	if f.Index <= a.o.Store.Log.Start.Index {
		return nil
	}
	if a.progress != nil {
		if err := a.progress(f.Index, a.last); err != nil {
			return err
		}
	}
	a.v.Entries++
	a.v.Bytes += int64(len(f.Data))
	if f.Index != a.at+1 {
		a.m = nil
		a.at = f.Index - 1
		a.checkpoints()
	}
	a.at, a.term = f.Index, f.Term
	if f.Damaged {
		a.m = nil
	} else {
		a.apply(f)
	}
	a.checkpoints()
	return nil
}

// apply replays an entry, and compares what it makes readable with the index.
func (a *audit) apply(f *commitlog.Frame) {
	typ := raft.LogType(f.Type)
	if typ == raft.LogConfiguration {
		c, err := raftstore.DecodeConfiguration(f.Data)
		if err != nil {
			a.undecodable(f, err)
			return
		}
		a.o.named(c)
	}
	if a.m == nil || typ != raft.LogCommand && typ != raft.LogConfiguration {
		return
	}
	a.m.step(f.Index, f.Term, f.Data)
	var err error
	switch {
	case typ == raft.LogConfiguration:
	case len(f.Data) > 0 && f.Data[0] == kindControl:
		err = a.m.control(f.Index, f.Data)
	default:
		_, a.pub, err = a.m.data(f.Index, f.Data, nil, a.pub[:0])
		for i := range a.pub {
			a.v.Records += uint64(a.pub[i].Count)
			a.compare(&a.pub[i], f)
		}
	}
	if err != nil {
		a.undecodable(f, err)
	}
}

func (a *audit) undecodable(f *commitlog.Frame, err error) {
	a.m = nil
	a.o.found(commitlog.Finding{Kind: FindEntry, Path: path.Join(a.o.dir, "log", f.Segment), Place: f.Place, Index: f.Index, What: err.Error()})
}

// compare holds a batch against the offset index. An index that ends earlier is
// none: the rest is published again when the entries are applied.
func (a *audit) compare(b *commitlog.Applied, f *commitlog.Frame) {
	for a.more && a.rec.FirstOffset < b.FirstOffset {
		a.advance()
	}
	if !a.more || a.rec.FirstOffset > b.FirstOffset {
		return
	}
	if a.rec.Applied != *b || a.rec.Place != f.Place {
		a.o.found(commitlog.Finding{Kind: commitlog.FindOffsets, Path: path.Join(a.o.dir, "log", a.rec.File), Place: a.rec.FilePlace, Index: b.Index,
			What: fmt.Sprintf("offset %d is said to be in entry %d at %d, but is in entry %d at %d", b.FirstOffset, a.rec.Index, a.rec.Place, b.Index, f.Place)})
	}
	a.advance()
}

// checkpoints compares those at the present entry with what the entries make,
// or goes on from one of them where that is not known.
func (a *audit) checkpoints() {
	all := a.o.Store.Checkpoints
	for ; a.n < len(all) && all[a.n].Index <= a.at; a.n++ {
		c := &all[a.n]
		if c.Damage != "" || c.Index != a.at {
			continue
		}
		state, err := a.o.Store.State(c)
		var m *machine
		if err == nil {
			m, err = decodeMachine(state)
		}
		switch {
		case err != nil:
			a.checkpoint(c, err.Error())
		case a.m == nil:
			a.m = m
		case !bytes.Equal(state, a.m.encode()):
			a.checkpoint(c, "its state is not what the entries up to it make")
		case c.Next != m.next || c.LogBytes != m.bytes:
			a.checkpoint(c, fmt.Sprintf("it says that it covers %d records and %d bytes, but its state %d and %d", c.Next, c.LogBytes, m.next, m.bytes))
		case a.term != 0 && c.Term != a.term:
			a.checkpoint(c, fmt.Sprintf("it is of term %d, but its entry of term %d", c.Term, a.term))
		}
	}
}

func (a *audit) checkpoint(c *raftstore.CheckpointInfo, what string) {
	a.o.find(raftstore.FindCheckpoint, path.Join(a.o.dir, "checkpoints", c.File), c.Index, what)
}

// end looks at what lies beyond the last entry.
func (a *audit) end() {
	for _, c := range a.o.Store.Checkpoints[a.n:] {
		if c.Damage == "" {
			a.checkpoint(&c, fmt.Sprintf("the log ends at entry %d", a.at))
		}
	}
	for a.more && a.rec.Index <= a.at {
		if a.m != nil && a.rec.FirstOffset >= a.m.next {
			break
		}
		a.advance()
	}
	if a.more {
		a.o.found(commitlog.Finding{Kind: commitlog.FindOffsets, Path: path.Join(a.o.dir, "log", a.rec.File), Place: a.rec.FilePlace, Index: a.rec.Index,
			What: fmt.Sprintf("it goes on with offset %d in entry %d, where the entries have none", a.rec.FirstOffset, a.rec.Index)})
	}
}

// identity compares the names with what the log says.
func (o *Offline) identity(a *audit) {
	cluster := path.Join(o.dir, clusterIDFile)
	switch {
	case o.Cluster == "" && a.at > 0:
		o.find(FindCluster, cluster, 0, "missing or damaged, but there is a log")
	case a.m != nil && a.m.cluster != "" && o.Cluster != "" && a.m.cluster != o.Cluster && o.Task == nil:
		o.find(FindCluster, cluster, 0, fmt.Sprintf("it says %s, but the log is of cluster %s", o.Cluster, a.m.cluster))
	}
	if o.suffix != "" && o.NodeID == "" && a.at > 0 {
		o.find(FindNode, path.Join(o.home, nodeIDFile), 0, fmt.Sprintf("no configuration in the log names a node %s", o.suffix))
	}
	if o.Task != nil {
		o.find(FindTask, path.Join(o.dir, taskFile), 0, (&UnfinishedError{Dir: o.dir, Kind: o.Task.Kind}).Error())
	}
}

// Consequence says what the damage means for the next start.
func (v *Verdict) Consequence(f commitlog.Finding) string {
	switch f.Kind {
	case commitlog.FindEnd:
		return "it counts as absent: more of the newest segment is written again"
	case commitlog.FindOffsets:
		return "the offset index ends there, and the rest is made again from the entries"
	case raftstore.FindCheckpoint:
		return "its copy or an older one is used"
	case commitlog.FindStart:
		if v.Next.Refused == nil {
			return "it is made again from its copy, or its copy from it"
		}
		return "the node refuses to start: remove its data_dir and let it join anew"
	case raftstore.FindStable:
		return "the node takes no part in the cluster before its peers have told it their terms"
	case FindCluster, FindNode:
		return "the node refuses to start, or is nobody the cluster knows: restore the file or remove the data_dir"
	case FindTask:
		return "the node refuses to start"
	case FindScrub:
		return "the search for damage begins anew"
	case commitlog.FindFile:
		if v.Next.Refused != nil {
			return "the node may refuse to start"
		}
		return "it is ignored"
	}
	switch {
	case v.Next.Refused == nil && f.Index > v.Next.Last:
		return "it is cut: a write that a crash interrupted, and that nobody was told of"
	case v.Next.Refused == nil:
		return "the node starts and does not serve it until a peer has repaired it"
	}
	return "the node takes no part in the cluster before peers have repaired it"
}
