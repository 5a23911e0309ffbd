package raftstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/commitlog"
)

// Damage is what of a store cannot be read. A store with Blocked damage must
// not be given to Raft: its calls would end their goroutines with a
// *DamageError.
type Damage struct {
	// Log lists runs of entries; see commitlog.Damage.
	Log []commitlog.Damage
	// Offsets lists files of the offset index.
	Offsets []commitlog.OffsetDamage
	// Stable is set when Raft's term and vote cannot be read. TermAtLeast is what
	// is known of the term from elsewhere.
	Stable      error
	TermAtLeast uint64
	// Checkpoint is set when the log does not start at its beginning and there is
	// no checkpoint left to restore the state machine from. One at an entry in
	// [Start, Last] of the log has to be put in place, or installed from beyond.
	Checkpoint error
	// Checkpoints names files that do not verify, and are not needed.
	Checkpoints []string

	Blocked bool
}

// Any says whether anything is damaged.
func (d *Damage) Any() bool {
	return d.Blocked || len(d.Log) > 0 || len(d.Offsets) > 0 || len(d.Checkpoints) > 0
}

// DamageError is the fatal fault of a store that met damage which can be
// repaired: opened again with Options.AllowDamage, it says what.
type DamageError struct{ Err error }

func (e *DamageError) Error() string { return "damaged storage: " + e.Err.Error() }

func (e *DamageError) Unwrap() error { return e.Err }

// Damage returns what is known to be damaged now.
func (s *Store) Damage() Damage {
	d := Damage{Log: s.log.Damage(), Offsets: s.log.DamagedOffsets(), Stable: s.stable.damage(), Checkpoints: s.checks.damaged()}
	d.Checkpoint = s.checks.missing(s.log.Start())
	d.Blocked = d.Stable != nil || d.Checkpoint != nil || s.log.Quarantined()
	if d.Stable != nil {
		d.TermAtLeast = max(s.stable.floor(), s.lastTerm())
	}
	return d
}

// lastTerm is the highest term that an entry or a checkpoint shows.
func (s *Store) lastTerm() uint64 {
	term := s.log.Start().Term
	if e, err := s.log.Entry(s.log.Last()); err == nil {
		term = max(term, e.Term)
	}
	for _, d := range s.log.Damage() {
		term = max(term, d.Term, d.Before.Term, d.After.Term)
	}
	if h := s.checks.newest(); h != nil {
		term = max(term, h.term)
	}
	return term
}

// Repair is commitlog.Log.Repair. A fault of the disk is fatal and does not
// return.
func (s *Store) Repair(entries []commitlog.Entry, committed uint64) (uint64, error) {
	s.enter()
	defer s.leave()
	n, err := s.log.Repair(entries, committed)
	return n, s.lethal(err)
}

// DropDamagedTail is commitlog.Log.DropDamagedTail, likewise.
func (s *Store) DropDamagedTail(from uint64) error {
	s.enter()
	defer s.leave()
	return s.lethal(s.log.DropDamagedTail(from))
}

// RepairOffsets is commitlog.Log.RepairOffsets, likewise.
func (s *Store) RepairOffsets(first uint64, batches []commitlog.Applied) error {
	s.enter()
	defer s.leave()
	return s.lethal(s.log.RepairOffsets(first, batches))
}

// lethal ends the goroutine on a fault of the log.
func (s *Store) lethal(err error) error {
	var fatal *commitlog.FatalError
	if errors.As(err, &fatal) {
		s.Fail(err)
	}
	return err
}

// RepairStable gives a node whose term and vote cannot be read a new term and
// no vote, durably. The caller has the proof that the node never voted in that
// term, nor in a later one: it is above every term that any candidate it could
// have voted for has reached. A term that is known here to be too low is
// refused.
func (s *Store) RepairStable(term uint64) error {
	s.enter()
	defer s.leave()
	if s.stable.damage() == nil {
		return nil
	}
	if least := max(s.stable.floor(), s.lastTerm()); term <= least {
		return fmt.Errorf("repair %s: term %d is not above %d, which it has seen", s.stable.path, term, least)
	}
	if err := s.stable.replace(s.fs, term); err != nil {
		if !IsFull(err) {
			s.Fail(err)
		}
		return err
	}
	s.logger.Warn("term and vote replaced", "term", term)
	return nil
}

// PutCheckpoint adds a checkpoint that came from a peer to those of a store
// that has none left, or not the one it starts at. It is at a committed entry
// of this log, or the one just below its first. The log itself does not change.
func (s *Store) PutCheckpoint(in Installed) error {
	s.enter()
	defer s.leave()
	c := s.checks
	c.change.Lock()
	defer c.change.Unlock()
	start := s.log.Start()
	if in.Index < start.Index || in.Index > s.log.Last() || in.Next < start.Offset ||
		in.Index == start.Index && (in.Term != start.Term || in.Next != start.Offset) {
		return fmt.Errorf("checkpoint at entry %d, offset %d is not one of a log of entries %d to %d from offset %d on",
			in.Index, in.Next, start.Index+1, s.log.Last(), start.Offset)
	}
	if e, err := s.log.Entry(in.Index); err == nil && e.Term != in.Term {
		return fmt.Errorf("checkpoint at entry %d has term %d, the log %d", in.Index, in.Term, e.Term)
	}
	h := &checkpoint{index: in.Index, term: in.Term, next: in.Next, bytes: in.Bytes, configIndex: in.ConfigIndex}
	err := c.put(h, raft.EncodeConfiguration(in.Config), in.State)
	if err == nil && h.index == start.Index {
		err = c.double(h)
	}
	if err != nil && !IsFull(err) {
		s.Fail(err)
	}
	if err == nil {
		s.log.SetCommitted(in.Index)
	}
	return err
}

// Scrub verifies once all that the store has on disk: see commitlog.Log.Scrub.
// A checkpoint, or its copy, that does not verify is written again where the
// other one is whole.
func (s *Store) Scrub(ctx context.Context, from uint64, pace func(ctx context.Context, bytes int64) error) error {
	if err := s.log.Scrub(ctx, from, pace); err != nil {
		return err
	}
	return s.scrubRest(ctx, pace)
}
