package main

import (
	"errors"
	"fmt"
	"syscall"
)

// fullDisk makes calls while nothing can be created or allocated. What it
// refuses changes nothing; but what a store cannot put in place of what it cut
// ends it.
func (s *session) fullDisk() error {
	s.disk.full = true
	defer func() { s.disk.full = false }()
	call := s.append
	switch s.rng.IntN(3) {
	case 0:
		call = s.truncate
	case 1:
		if s.store != nil {
			call = s.checkpoint
		}
	}
	for range 4 {
		err := s.protect(call)
		var end *ended
		switch {
		case err == nil:
		case !errors.Is(err, syscall.ENOSPC):
			return err
		case errors.As(err, &end):
			s.disk.full = false
			return s.restart()
		default:
			s.expect(exactly("refused by a full disk", s.now))
		}
	}
	return nil
}

// badDisk makes calls until a write or a sync of one fails, which ends the
// process, and opens what that left in the page cache.
func (s *session) badDisk() error {
	if s.rng.IntN(2) == 0 {
		s.disk.failSync = 1 + s.rng.IntN(4)
	} else {
		s.disk.failWrite = 1 + s.rng.IntN(6)
	}
	defer func() { s.disk.failSync, s.disk.failWrite = 0, 0 }()
	calls := []func() error{s.append, s.append, s.append, s.truncate}
	if s.store != nil {
		calls = append(calls, s.vote, s.checkpoint, s.retain, s.sweep)
	} else {
		calls = append(calls, s.setStart, s.syncOffsets, s.sweep)
	}
	for range 8 {
		err := s.protect(calls[s.rng.IntN(len(calls))])
		switch {
		case err == nil:
		case errors.Is(err, syscall.EIO):
			s.disk.failSync, s.disk.failWrite = 0, 0
			return s.restart()
		default:
			return err
		}
	}
	return nil
}

// restart opens the log again after a call that a fault ended.
func (s *session) restart() error {
	e := s.history[len(s.history)-1].expect
	if err := s.close(); err != nil {
		return fmt.Errorf("close after a failure: %w", err)
	}
	e.what = "reopen after: " + e.what
	return s.open(e)
}
