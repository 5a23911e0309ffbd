package replica

import (
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/raftstore"
)

// OfflineEntry is an entry of a stopped node, and what is in it. What it points
// to is valid until the call it was passed to returns.
type OfflineEntry struct {
	*commitlog.Frame
	What    string         // "data", "control", "configuration", "no-op", …
	Control string         // of a control entry: what it says
	Peers   []Peer         // of a configuration
	Batches []OfflineBatch // of a data entry
	Err     error          // why it could not be decoded or decided; nil: it was
}

// OfflineBatch is a batch in an entry.
type OfflineBatch struct {
	Batch              // Records is a view
	Verdict     string // "accepted", "duplicate", …; "unknown" where entries before it are missing
	FirstOffset uint64 // of an accepted batch or of the one it repeats
}

// Verdicts of OfflineBatch.
const (
	VerdictAccepted = "accepted"
	VerdictUnknown  = "unknown"
)

func (v verdict) String() string {
	switch v {
	case accepted:
		return VerdictAccepted
	case duplicate:
		return "duplicate"
	case gap:
		return "gap"
	case fenced:
		return "fenced"
	}
	return "unknown producer"
}

// Entries calls each for every entry from the newest checkpoint that lies
// before the entry from, or before the offset from when byOffset, or from the
// start. It decides about every batch again, as the state machine did. Damage
// on the way is in Findings. An error of each ends it.
func (o *Offline) Entries(from uint64, byOffset bool, each func(*OfflineEntry) error) error {
	r, err := o.replayer(func(c *raftstore.CheckpointInfo) bool {
		return !byOffset && c.Index < from || byOffset && c.Next <= from
	})
	if err != nil {
		return err
	}
	return o.Store.Log.Frames(r.at+1, func(f *commitlog.Frame) error {
		if f.Index <= r.at {
			return nil
		}
		return each(r.entry(f))
	})
}

// replayer decides about entries that follow each other.
type replayer struct {
	m  *machine // nil: what it would be is not known
	at uint64   // the entry seen last
}

// replayer begins at the newest checkpoint that early accepts, else at the start.
func (o *Offline) replayer(early func(*raftstore.CheckpointInfo) bool) (*replayer, error) {
	all := o.Store.Checkpoints
	for i := len(all) - 1; i >= 0; i-- {
		c := &all[i]
		if c.Damage != "" || c.Index < o.Store.Log.Start.Index || !early(c) {
			continue
		}
		m, err := o.machineAt(c)
		return &replayer{m: m, at: c.Index}, err
	}
	r := &replayer{at: o.Store.Log.Start.Index}
	if r.at == 0 {
		r.m = newMachine()
	} else if c := o.Store.Base(); c != nil {
		var err error
		if r.m, err = o.machineAt(c); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (o *Offline) machineAt(c *raftstore.CheckpointInfo) (*machine, error) {
	state, err := o.Store.State(c)
	if err != nil {
		return nil, err
	}
	m, err := decodeMachine(state)
	if err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", c.File, err)
	}
	return m, nil
}

// entry decodes an entry, and decides about it if everything before it was seen.
func (r *replayer) entry(f *commitlog.Frame) *OfflineEntry {
	e := &OfflineEntry{Frame: f}
	if f.Index != r.at+1 || f.Damaged {
		r.m = nil
	}
	r.at = f.Index
	typ := raft.LogType(f.Type)
	switch {
	case f.Damaged:
		e.What = "damaged"
		return e
	case typ == raft.LogNoop:
		e.What = "no-op"
	case typ == raft.LogConfiguration:
		e.What = "configuration"
		c, err := raftstore.DecodeConfiguration(f.Data)
		e.Err, e.Peers = err, peersOf(c)
	case typ != raft.LogCommand:
		e.What = fmt.Sprintf("type %d", f.Type)
	case len(f.Data) > 0 && f.Data[0] == kindControl:
		e.What = "control"
		var c control
		if c, e.Err = decodeControl(f.Data); e.Err == nil {
			e.Control = c.String()
		}
	default:
		e.What = "data"
		e.Err = decodeData(f.Data, func(h *header) {
			e.Batches = append(e.Batches, OfflineBatch{Verdict: VerdictUnknown, Batch: Batch{
				Producer: h.producer, Owner: h.owner, Epoch: h.epoch, FirstSeq: h.firstSeq, Count: h.count, Key: h.key,
				Records: f.Data[h.pos : h.pos+h.len], Timestamp: h.timestamp,
			}})
		})
	}
	r.decide(e, typ)
	if e.Err != nil {
		r.m = nil
	}
	return e
}

// decide lets the state machine see the entry.
func (r *replayer) decide(e *OfflineEntry, typ raft.LogType) {
	if r.m == nil || e.Err != nil || typ != raft.LogCommand && typ != raft.LogConfiguration {
		return
	}
	r.m.step(e.Index, e.Term, e.Data)
	switch e.What {
	case "control":
		e.Err = r.m.control(e.Index, e.Data)
	case "data":
		var out []outcome
		out, _, e.Err = r.m.data(e.Index, e.Data, nil, nil)
		for i := range e.Batches {
			e.Batches[i].Verdict = out[i].verdict.String()
			if out[i].verdict == accepted || out[i].verdict == duplicate {
				e.Batches[i].FirstOffset = out[i].offset
			}
		}
	}
}

func (c control) String() string {
	switch {
	case c.former != "":
		return fmt.Sprintf("cluster %s, recovered of %s", c.cluster, c.former)
	case c.cluster != "":
		return "cluster " + c.cluster
	case c.state != nil:
		return fmt.Sprintf("state %016x of %s; before it: entry %d", c.state.digest, c.state.by, c.state.index)
	}
	return fmt.Sprintf("lowest offset %d", c.lowest)
}
