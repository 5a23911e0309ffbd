package raftstore

import (
	"errors"

	"github.com/logd-io/logd/pkg/commitlog"
)

// What other nodes may ask a store for. These calls are not Raft's: after Close
// they answer with an error, and return.

// Checkpoint reads the newest checkpoint at or below max that verifies. ok is
// false when there is none.
func (s *Store) Checkpoint(max uint64) (c Installed, ok bool, err error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.closed {
		return c, false, commitlog.ErrClosed
	}
	list, _ := s.checks.snapshot()
	var errs []error
	for i := len(list) - 1; i >= 0; i-- {
		h := list[i]
		if h.index > max {
			continue
		}
		config, state, err := s.checks.read(h)
		if err != nil {
			errs = append(errs, err) // damaged, or gone meanwhile: an older one does
			if s.checks.find(h.id()) != nil {
				s.checks.spoiled(h, err)
			}
			continue
		}
		return Installed{Index: h.index, Term: h.term, Next: h.next, Bytes: h.bytes,
			Config: config, ConfigIndex: h.configIndex, State: state}, true, nil
	}
	return c, false, errors.Join(errs...)
}

// Term is the term Raft has stored, 0 when there is none, or when it cannot be
// read: what is known then is only that it was no lower than something.
func (s *Store) Term() uint64 {
	sh := s.stable.shown.Load()
	if sh.bad != nil {
		return 0
	}
	return sh.term
}

// Starting says whether Raft is being started. Meanwhile no damage is an error to
// it, which would make it panic: its goroutine ends.
func (s *Store) Starting(yes bool) { s.starting.Store(yes) }

// Failed says whether the store met a fatal fault. What ended a goroutine of
// Raft's otherwise was damage.
func (s *Store) Failed() bool { return s.dead.Load() }

// Interrupted says, once each time, that damage ended a goroutine of Raft's: the
// Raft it belonged to has to be stopped.
func (s *Store) Interrupted() bool { return s.interrupted.Swap(false) }
