package main

import (
	"errors"
	"fmt"
	"path"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/raftstore"
)

// damage flips bits of what a workload left, which is all acknowledged: what
// is read then is right or reported, and never missing. In some the durable
// end is lost as well, and with it, as README says, the last write may be.
// These disks are no crash states, and are not counted as such.
func (e *enumeration) damage(s *session) *violation {
	w := newSession(e.cfg, s.mem.Kill(), e.rng)
	err := w.protect(func() error {
		if err := w.open(exactly("damage", s.now)); err != nil {
			return err
		}
		for range 2 {
			es := w.fresh(1)
			if err := w.call("append", w.now.with(es), func() error { return w.store1(es) }); err != nil {
				return err
			}
		}
		return w.close()
	})
	for i := 0; i < 120 && err == nil && !e.done(); i++ {
		fs := w.mem.Kill()
		d := newSession(e.cfg, fs, e.rng)
		var what string
		if what, err = d.flip(); err != nil {
			break
		}
		mayLose := uint64(0)
		if i%2 == 1 {
			if err = fs.Remove("/data/log/durable-end"); err != nil {
				break
			}
			mayLose, what = 1, what+", and the durable end lost"
		}
		e.damaged.Add(1)
		if err := d.protect(func() error { return d.damaged(w.now, mayLose) }); err != nil {
			return e.violation(byDamage, s.history, what, err)
		}
	}
	if err != nil {
		return e.violation(byDamage, s.history, "damage", err)
	}
	return nil
}

// flip flips a bit of some file.
func (s *session) flip() (what string, err error) {
	var files []string
	for _, dir := range []string{"/data", "/data/log", "/data/checkpoints"} {
		names, err := s.mem.List(dir)
		if err != nil {
			continue // a log alone has fewer
		}
		for _, n := range names {
			name := path.Join(dir, n)
			if info, err := s.mem.Stat(name); err == nil && info.Size > 0 && !is(n, ".free") {
				files = append(files, name)
			}
		}
	}
	name := files[s.rng.IntN(len(files))]
	info, err := s.mem.Stat(name)
	if err != nil {
		return "", err
	}
	place := s.rng.Int64N(info.Size)
	return fmt.Sprintf("a bit flipped in %s at %d", name, place), s.mem.Corrupt(name, place, 1<<s.rng.IntN(8))
}

// damaged opens a damaged disk and reads all of it. mayLose is how many entries
// may be missing at the end.
func (s *session) damaged(m *model, mayLose uint64) error {
	err := s.start(false)
	if reported(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	err = s.readDamaged(m, mayLose)
	return errors.Join(err, s.close())
}

func (s *session) readDamaged(m *model, mayLose uint64) error {
	if lost := m.last() - s.log.Last(); lost > 0 && lost <= mayLose {
		m = m.cut(s.log.Last() + 1)
	}
	if s.log.Start() != m.start || s.log.Last() != m.last() {
		return fmt.Errorf("it is (%+v, %d], not (%+v, %d]", s.log.Start(), s.log.Last(), m.start, m.last())
	}
	for _, want := range m.entries {
		got, err := s.log.Entry(want.Index)
		if reported(err) {
			continue
		}
		if err != nil || !same(&got, &want) {
			return fmt.Errorf("entry %d is served damaged (%s)", want.Index, fmt.Sprint(err))
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
