package raftstore

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/commitlog"
)

// IsMonotonic is false: a monotonic store is emptied by Raft after every
// snapshot it installs, valid entries included.
func (s *Store) IsMonotonic() bool { return false }

// FirstIndex is the first entry kept, 0 when there is none.
func (s *Store) FirstIndex() (uint64, error) {
	s.enter()
	defer s.leave()
	if first := s.log.First(); first <= s.log.Last() {
		return first, nil
	}
	return 0, nil
}

// LastIndex is the last entry stored. In an emptied log it is the entry the log
// starts after, whose index and term GetLog answers.
func (s *Store) LastIndex() (uint64, error) {
	s.enter()
	defer s.leave()
	return s.log.Last(), nil
}

// GetLog reads an entry. The entry just below the first is answered by index and
// term only, as a no-op: a leader needs it to begin replicating there. Outside
// [first-1, last] the error is raft.ErrLogNotFound itself, since Raft compares
// with ==.
func (s *Store) GetLog(index uint64, out *raft.Log) error {
	s.enter()
	defer s.leave()
	if index == 0 {
		return raft.ErrLogNotFound
	}
	if s.dummy(index, out) {
		return nil
	}
	e, err := s.entry(index)
	switch {
	case errors.Is(err, commitlog.ErrNotFound):
		// The start may have moved up to it meanwhile.
		if s.dummy(index, out) {
			return nil
		}
		return raft.ErrLogNotFound
	case isDamage(err):
		err = &DamageError{Err: fmt.Errorf("read entry %d: %w", index, err)}
		if index > s.log.Applied() || s.starting.Load() {
			// Raft may want it to apply it, or to begin with, and would panic.
			if s.onDamage == nil {
				s.Fail(err)
			}
			s.interrupted.Store(true)
			s.onDamage()
			runtime.Goexit()
		}
		return err // a follower that needs it has to wait for the repair
	case err != nil:
		s.Fail(fmt.Errorf("read entry %d: %w", index, err))
	}
	*out = raft.Log{Index: e.Index, Term: e.Term, Type: raft.LogType(e.Type), Data: e.Data}
	if e.AppendedAt != 0 {
		out.AppendedAt = time.Unix(0, e.AppendedAt)
	}
	return nil
}

// entry is log.Entry, without reading from disk what was read a moment ago.
func (s *Store) entry(index uint64) (commitlog.Entry, error) {
	if e, ok := s.log.Cached(index); ok {
		return e, nil
	}
	if index > s.log.Start().Index {
		if e, ok := s.cold.get(index); ok {
			return e, nil
		}
	}
	// Before it is read: one that is applied only after may be another by then.
	fixed := index <= s.log.Applied()
	e, err := s.log.Entry(index)
	if s.read != nil {
		s.read()
	}
	if err == nil && fixed {
		s.cold.put(e)
	}
	return e, err
}

// isDamage tells what can be repaired from a disk that fails.
func isDamage(err error) bool {
	var corrupt *commitlog.CorruptError
	var damaged *commitlog.DamagedError
	return errors.As(err, &corrupt) || errors.As(err, &damaged)
}

func (s *Store) dummy(index uint64, out *raft.Log) bool {
	start := s.log.Start()
	if index != start.Index {
		return false
	}
	*out = raft.Log{Index: start.Index, Term: start.Term, Type: raft.LogNoop}
	return true
}

// StoreLog is StoreLogs of one entry.
func (s *Store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs appends entries with one write and one sync. It keeps their data.
func (s *Store) StoreLogs(logs []*raft.Log) error {
	s.enter()
	defer s.leave()
	entries := make([]commitlog.Entry, len(logs))
	for i, l := range logs {
		if len(l.Extensions) != 0 {
			s.Fail(fmt.Errorf("store entry %d: it has extensions, which nothing here writes", l.Index))
		}
		entries[i] = commitlog.Entry{Index: l.Index, Term: l.Term, Type: uint8(l.Type), Data: l.Data}
		if !l.AppendedAt.IsZero() {
			entries[i].AppendedAt = l.AppendedAt.UnixNano()
		}
	}
	var full *commitlog.NoSpaceError
	switch err := s.log.Append(entries); {
	case errors.As(err, &full) && !s.cut:
		// Nothing was written, so Raft may know: a leader steps down, a follower
		// answers that it has not got the entries.
		s.full.Add(1)
		if s.leads != nil && slices.ContainsFunc(logs, isConfiguration) && s.leads() {
			s.onRefused()
			runtime.Goexit()
		}
		return err
	case isDamage(err):
		s.Fail(&DamageError{Err: fmt.Errorf("store entries: %w", err)})
	case err != nil:
		// After a cut even a full disk is fatal: Raft goes on believing that it
		// has what it cut, until entries are stored in its place.
		s.Fail(fmt.Errorf("store entries: %w", err))
	}
	s.cut = false
	for _, l := range logs {
		if l.Type == raft.LogNoop {
			s.noop.Store(&Mark{Index: l.Index, Term: l.Term})
		}
	}
	return nil
}

func isConfiguration(l *raft.Log) bool { return l.Type == raft.LogConfiguration }

// DeleteRange drops the end of the log. Anything at or below a commit index this
// node knows is fatal: better to stop than to diverge. On a full disk nothing is
// dropped, and Raft refuses the entries that should have come instead.
func (s *Store) DeleteRange(first, last uint64) error {
	s.enter()
	defer s.leave()
	if last < s.log.Last() {
		return fmt.Errorf("delete entries %d to %d of %d: %w", first, last, s.log.Last(), ErrPrefix)
	}
	var full *commitlog.NoSpaceError
	switch err := s.log.TruncateSuffix(first); {
	case errors.As(err, &full):
		s.full.Add(1)
		return err
	case isDamage(err):
		s.Fail(&DamageError{Err: fmt.Errorf("truncate from entry %d: %w", first, err)})
	case err != nil:
		s.Fail(fmt.Errorf("truncate from entry %d: %w", first, err))
	}
	if s.dead.Load() { // it hung
		runtime.Goexit()
	}
	s.cut = true
	return nil
}
