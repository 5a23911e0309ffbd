package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/raftstore"
)

// damage flips bits of what a workload left, which is all acknowledged: what
// is read then is right or reported, and never missing. These disks are no
// crash states, and are not counted as such.
func (e *enumeration) damage(s *session) *violation {
	for range 40 {
		fs := s.mem.Kill()
		var files []string
		for _, dir := range []string{"/data", "/data/log", "/data/checkpoints"} {
			names, err := fs.List(dir)
			if err != nil {
				continue // a log alone has fewer
			}
			for _, n := range names {
				if name := path.Join(dir, n); !is(n, ".free") {
					if info, err := fs.Stat(name); err == nil && info.Size > 0 && !info.IsDir {
						files = append(files, name)
					}
				}
			}
		}
		name := files[e.rng.IntN(len(files))]
		info, err := fs.Stat(name)
		if err != nil {
			return e.violation(s.history, "damage", err)
		}
		place := e.rng.Int64N(info.Size)
		if err := fs.Corrupt(name, place, 1<<e.rng.IntN(8)); err != nil {
			return e.violation(s.history, "damage", err)
		}
		e.damaged.Add(1)
		d := newSession(e.cfg, fs, rand.New(rand.NewPCG(1, 1)))
		if err := d.protect(func() error { return d.damaged(s.now) }); err != nil {
			return e.violation(s.history, fmt.Sprintf("a bit flipped in %s at %d", name, place), err)
		}
	}
	return nil
}

// damaged opens a damaged disk and reads all of it.
func (s *session) damaged(m *model) error {
	err := s.start()
	if reported(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	err = s.readDamaged(m)
	return errors.Join(err, s.close())
}

func (s *session) readDamaged(m *model) error {
	if s.log.Start() != m.start || s.log.Last() != m.last() {
		return fmt.Errorf("it is (%+v, %d], not (%+v, %d]", s.log.Start(), s.log.Last(), m.start, m.last())
	}
	for _, want := range m.entries {
		got, err := s.log.Entry(want.Index)
		if reported(err) {
			continue
		}
		if err != nil || !same(&got, &want) {
			return fmt.Errorf("entry %d is served damaged (%v)", want.Index, err)
		}
	}
	next := m.synced
	if s.store != nil {
		if _, err := s.verifyStore(exactly("damage", m), m); err != nil && s.damagedCheckpoint(m) {
			return nil
		} else if err != nil {
			return err
		}
		next = max(m.newest().next, m.start.Offset)
	}
	var gap *commitlog.OffsetGapError
	if err := s.log.Rewind(next); errors.As(err, &gap) {
		return nil // replayed from an earlier checkpoint
	} else if err != nil {
		return fmt.Errorf("rewind: %w", err)
	}
	if err := s.verifyOffsets(m.rewound(next)); err != nil && !reported(err) {
		return err
	}
	return nil
}

// damagedCheckpoint says whether one is missing or unreadable: an older one is
// then used.
func (s *session) damagedCheckpoint(m *model) bool {
	metas, err := s.store.Snapshots().List()
	if err != nil {
		return false
	}
	for _, meta := range metas {
		if c, ok := known(meta, m); !ok || readCheckpoint(s.store.Snapshots(), meta, c) != nil {
			return false // served, and wrong
		}
	}
	return true
}

func reported(err error) bool {
	return errors.As(err, new(*commitlog.CorruptError)) || errors.As(err, new(*raftstore.CorruptError))
}
