package replica

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/raftstore"
)

// offsets makes a file of the offset index anew. It is derived from the entries,
// so no peer is asked: a machine of its own replays them from a checkpoint.
func (h *healer) offsets(d commitlog.OffsetDamage) error {
	m, from, err := h.r.machineBelow(d.First)
	var batches []commitlog.Applied
	if err == nil {
		err = h.r.replay(m, from, d.Next, func(pub []commitlog.Applied) error {
			for _, b := range pub {
				if b.FirstOffset >= d.First && b.FirstOffset < d.Next {
					batches = append(batches, b)
				}
			}
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("rebuild %s: %w", d.Path, err)
	}
	err = h.r.guard(func() error { return h.r.store.RepairOffsets(d.First, batches) })
	if err == nil {
		h.r.metrics.offsetRepairs.Inc()
	}
	return err
}

// extend makes the offset index reach to next again, which the newest checkpoint
// covers, where it lost its end. Raft would restore an older checkpoint; there may be none that is
// old enough.
func (r *Replica) extend(next uint64, ok bool) error {
	if !ok {
		return nil
	}
	log := r.store.Log()
	var gap *commitlog.OffsetGapError
	if err := log.Rewind(next); !errors.As(err, &gap) {
		return err
	}
	m, from, err := r.machineBelow(gap.Want)
	if err != nil {
		return err
	}
	r.logger.Warn("the offset index ends too early and is extended", "node", r.cfg.ID, "ends_at", gap.Want, "from", m.next, "to", next)
	if err := log.Rewind(m.next); err != nil {
		return err
	}
	return r.replay(m, from, next, log.Publish)
}

// replay applies the entries behind from to m until it reaches the offset next,
// and passes on what is accepted, as the state machine published it.
func (r *Replica) replay(m *machine, from, next uint64, accepted func([]commitlog.Applied) error) error {
	var pub []commitlog.Applied
	var outcomes []outcome
	for i := from + 1; m.next < next; i++ {
		e, err := r.store.Log().Entry(i)
		if err != nil {
			return fmt.Errorf("replay entry %d: %w", i, err)
		}
		t := raft.LogType(e.Type)
		switch {
		case t != raft.LogCommand && t != raft.LogConfiguration || !m.step(e.Index, e.Term, e.Data) || t == raft.LogConfiguration:
			continue
		case len(e.Data) > 0 && e.Data[0] == kindControl:
			err = m.control(e.Index, e.Data)
		default:
			outcomes, pub, err = m.data(e.Index, e.Data, outcomes[:0], pub[:0])
			if err == nil && len(pub) > 0 {
				err = accepted(pub)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// machineBelow gives the machine of the newest checkpoint that covers no offset
// from first on, and its entry.
func (r *Replica) machineBelow(first uint64) (*machine, uint64, error) {
	for max := ^uint64(0); ; {
		c, ok, err := r.store.Checkpoint(max)
		switch {
		case ok && c.Next > first && c.Index > 0:
			max = c.Index - 1
			continue
		case ok:
			m, err := decodeMachine(c.State)
			return m, c.Index, err
		case r.store.Log().Start().Index == 0:
			return newMachine(), 0, nil // from the beginning of the log
		case err == nil:
			err = fmt.Errorf("no checkpoint below offset %d is left", first)
		}
		return nil, 0, err
	}
}

// installed checks a checkpoint that came from a peer, which is of our cluster;
// the checkpoint may be of one that this was recovered of.
func (c *Checkpoint) installed() (raftstore.Installed, error) {
	config, err := raftstore.DecodeConfiguration(c.Config)
	if err != nil {
		return raftstore.Installed{}, err
	}
	m, err := decodeMachine(c.State)
	switch {
	case err != nil:
		return raftstore.Installed{}, err
	case m.applied > c.Index || m.next != c.Next || m.bytes != c.Bytes:
		return raftstore.Installed{}, fmt.Errorf("%w: it is at entry %d, offset %d, not %d, %d", errState, m.applied, m.next, c.Index, c.Next)
	}
	return raftstore.Installed{
		Index: c.Index, Term: c.Term, Next: c.Next, Bytes: c.Bytes,
		Config: config, ConfigIndex: c.ConfigIndex, State: c.State,
	}, nil
}
