package raftstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/commitlog"
)

// Snapshots is the raft.SnapshotStore of one run of Raft.
type Snapshots struct {
	s       *Store
	flipped atomic.Bool
}

var _ raft.SnapshotStore = (*Snapshots)(nil)

// Snapshots gives a view of the checkpoints that is not flipped yet.
func (s *Store) Snapshots() *Snapshots { return &Snapshots{s: s} }

// Flip ends the start of Raft: from now on List names the checkpoint to bring
// other nodes up with, the one the log starts at.
func (v *Snapshots) Flip() { v.flipped.Store(true) }

// List gives the newest first until Flip, for the restart of this node, and
// then the oldest only: a node that has nothing gets that, and then every entry
// kept as ordinary AppendEntries.
func (v *Snapshots) List() ([]*raft.SnapshotMeta, error) {
	v.s.enter()
	defer v.s.leave()
	list, base := v.s.checks.snapshot()
	if v.flipped.Load() {
		if len(list) == 0 || list[0].index < base {
			return nil, nil
		}
		list = list[:1]
	}
	metas := make([]*raft.SnapshotMeta, 0, len(list))
	var damage error
	for i := len(list) - 1; i >= 0; i-- {
		if !v.flipped.Load() && list[i].next > v.s.log.Visible() {
			continue // the offset index does not reach it any more
		}
		config, _, err := v.s.checks.read(list[i])
		if err != nil {
			v.s.checks.spoiled(list[i], err)
			damage = err
			continue
		}
		metas = append(metas, list[i].meta(config))
	}
	if len(metas) == 0 && damage != nil && v.s.log.Start().Index > 0 && !v.flipped.Load() {
		// Raft would look for entry 1 then, and panic.
		v.s.Fail(fmt.Errorf("no checkpoint can be restored: %w", damage))
	}
	return metas, nil
}

// Open reads a whole checkpoint, so that its removal meanwhile does not matter.
func (v *Snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	v.s.enter()
	defer v.s.leave()
	h := v.s.checks.find(id)
	if h == nil {
		return nil, nil, fmt.Errorf("checkpoint %s does not exist any more", id)
	}
	config, state, err := v.s.checks.read(h)
	if err != nil {
		return nil, nil, err
	}
	return h.meta(config), io.NopCloser(bytes.NewReader(state)), nil
}

// Create begins a checkpoint. Its writer must call Sink.Cover before Close.
func (v *Snapshots) Create(_ raft.SnapshotVersion, index, term uint64, config raft.Configuration,
	configIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	v.s.enter()
	defer v.s.leave()
	return &Sink{s: v.s, config: config, h: checkpoint{index: index, term: term, configIndex: configIndex}}, nil
}

// Sink is a checkpoint being written; nothing of it exists before Close.
type Sink struct {
	s      *Store
	h      checkpoint
	config raft.Configuration
	state  bytes.Buffer
}

// Cover says what the state covers: the offset after its last record, and the
// payload bytes of the log up to it.
func (k *Sink) Cover(next, bytes uint64) { k.h.next, k.h.bytes = next, bytes }

// ID implements raft.SnapshotSink.
func (k *Sink) ID() string { return k.h.id() }

// Write implements raft.SnapshotSink.
func (k *Sink) Write(p []byte) (int, error) {
	if k.state.Len()+len(p) > MaxStateBytes {
		return 0, fmt.Errorf("checkpoint %s is larger than %d bytes", k.h.id(), MaxStateBytes)
	}
	return k.state.Write(p)
}

// Cancel implements raft.SnapshotSink.
func (k *Sink) Cancel() error { return nil }

// Close makes the checkpoint durable and drops those it makes superfluous. A
// full disk is an error, any other failure to write is fatal.
func (k *Sink) Close() error {
	s := k.s
	s.enter()
	defer s.leave()
	s.checks.change.Lock()
	defer s.checks.change.Unlock()
	if s.checks.find(k.h.id()) != nil {
		return nil
	}
	err := s.checks.put(&k.h, raft.EncodeConfiguration(k.config), k.state.Bytes())
	if err == nil {
		err = s.checks.thin()
	}
	if err != nil && !IsFull(err) {
		s.Fail(err)
	}
	return err
}

// Retain moves the start of the log to the newest checkpoint whose records all
// lie below the offset lowest. It says whether the log got shorter. It must run
// on a goroutine that may end: a failure to write does not return.
func (s *Store) Retain(lowest uint64) (bool, error) {
	s.enter()
	defer s.leave()
	c := s.checks
	c.change.Lock()
	defer c.change.Unlock()
	to := c.newestBelow(lowest, s.log.Start().Index)
	if to == nil {
		return false, s.copyBase()
	}
	err := c.double(to)
	copied := !IsFull(err)
	if !copied {
		err = nil // there is room for the copy once the start has moved
	}
	if err == nil {
		err = s.setStart(to)
	}
	if err == nil {
		err = c.dropBelow(to.index)
	}
	if err == nil && !copied {
		err = s.copyBase()
	}
	if err != nil && !IsFull(err) {
		s.Fail(fmt.Errorf("move start of the log to entry %d: %w", to.index, err))
	}
	return err == nil, err
}

// Sweep removes one segment that Retain took out of the log; more says that
// others are left. A failure does not return.
func (s *Store) Sweep() (more bool) {
	s.enter()
	defer s.leave()
	more, err := s.log.Sweep()
	if err != nil {
		s.Fail(fmt.Errorf("remove a segment below the start of the log: %w", err))
	}
	return more
}

// copyBase makes the copy of the checkpoint the log starts at, if a full disk had no
// room for it, or one of the two rotted. c.change must be held.
func (s *Store) copyBase() error {
	list, base := s.checks.snapshot()
	if base == 0 || len(list) == 0 || list[0].index != base {
		return nil
	}
	err := s.checks.mend(list[0], true)
	if err != nil && !IsFull(err) {
		s.Fail(err)
	}
	return err
}

// setStart moves the start of the log. On a full disk the spare segment makes room
// for the record of it: what retention frees is worth more.
func (s *Store) setStart(to *checkpoint) error {
	err := s.log.SetStart(*to.start())
	if !IsFull(err) {
		return err
	}
	if err := s.log.DropSpare(); err != nil {
		return err
	}
	return s.log.SetStart(*to.start())
}

// Installed is a checkpoint that came from the leader.
type Installed struct {
	Index, Term uint64
	Next, Bytes uint64 // as in Sink.Cover
	Config      raft.Configuration
	ConfigIndex uint64
	State       []byte
}

// Install replaces everything this node has by a checkpoint: the log is empty
// afterwards and begins after it. Raft must not be running. A crash in the
// middle is completed by Open. A failure to write does not return, but for a full
// disk: IsFull, and nothing is changed.
func (s *Store) Install(in Installed) error {
	s.enter()
	defer s.leave()
	c := s.checks
	c.change.Lock()
	defer c.change.Unlock()
	h := &checkpoint{index: in.Index, term: in.Term, next: in.Next, bytes: in.Bytes,
		configIndex: in.ConfigIndex, reset: true}
	config := raft.EncodeConfiguration(in.Config)
	err := c.put(h, config, in.State)
	if IsFull(err) {
		// All that takes the room is about to go.
		if err = s.log.DropSpare(); err == nil {
			err = c.put(h, config, in.State)
		}
		if IsFull(err) {
			return err
		}
	}
	if err == nil {
		if err = s.log.Reset(*h.start()); IsFull(err) {
			if rerr := c.forget(h); rerr != nil {
				s.Fail(fmt.Errorf("install checkpoint %d: %w", in.Index, rerr))
			}
			return err
		}
	}
	if err == nil {
		err = c.double(h)
	}
	if err == nil || IsFull(err) {
		err = c.dropBelow(h.index)
	}
	if err != nil {
		s.Fail(fmt.Errorf("install checkpoint %d: %w", in.Index, err))
	}
	return nil
}

// Holds says whether the entry (index, term) is in the log or just below its
// first one, and whether index lies below even that. An entry that cannot be
// read is an error, not an absent one: it may have been acknowledged. A
// *DamageError says that a repair will tell.
func (s *Store) Holds(index, term uint64) (holds, below bool, err error) {
	e, err := s.log.Entry(index)
	switch {
	case errors.Is(err, commitlog.ErrNotFound):
		start := s.log.Start()
		return index == start.Index && term == start.Term, index < start.Index, nil
	case isDamage(err):
		return false, false, &DamageError{Err: fmt.Errorf("read entry %d: %w", index, err)}
	case err != nil:
		return false, false, fmt.Errorf("read entry %d: %w", index, err)
	}
	return e.Term == term, false, nil
}
