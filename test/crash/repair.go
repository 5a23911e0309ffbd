package main

import (
	"bytes"
	"fmt"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs"
)

// repair damages segments of a closed log, opens it, and puts back what is
// missing, as from a peer that has all of it committed.
func (s *session) repair() error {
	for range 2 {
		// Behind the damage stands another write, so that it is never taken for a
		// torn tail, not even where a power loss takes the durable end away.
		es := s.fresh(1)
		if err := s.call("append", s.now.with(es), func() error { return s.store1(es) }); err != nil {
			return err
		}
	}
	if err := s.close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	all := s.now.clone()
	all.commit = all.last()
	e := expect{what: "repair", before: all, after: all, damaged: true}
	s.expect(e)
	for range 1 + s.rng.IntN(3) {
		if err := s.flipSegment(); err != nil {
			return err
		}
	}
	return s.open(e)
}

// flipSegment flips a bit of a segment, not in its log's last entry.
func (s *session) flipSegment() error {
	var names []string
	all, err := s.mem.List("/data/log")
	if err != nil {
		return err
	}
	for _, n := range all {
		if is(n, ".seg") {
			names = append(names, "/data/log/"+n)
		}
	}
	at := s.rng.IntN(len(names))
	b, err := vfs.ReadFile(s.mem, names[at])
	if err != nil {
		return err
	}
	end := len(bytes.TrimRight(b, "\x00"))
	if at == len(names)-1 {
		last, _ := s.now.entry(s.now.last())
		end -= 48 + len(last.Data) + 8
	}
	if end <= 0 {
		return nil
	}
	return s.mem.Corrupt(names[at], int64(s.rng.IntN(end)), 1<<s.rng.IntN(8))
}

// mend repairs the log until every entry of m can be read.
func (s *session) mend(m *model) error {
	repair, drop := s.log.Repair, s.log.DropDamagedTail
	if s.store != nil {
		repair, drop = s.store.Repair, s.store.DropDamagedTail
	}
	for range 2*len(m.entries) + 2 {
		// Damage below the newest checkpoint shows when it is read.
		for i := s.log.Start().Index + 1; i <= s.log.Last(); i++ {
			if _, err := s.log.Entry(i); err != nil && !reported(err) {
				return err
			}
		}
		list := s.log.Damage()
		if len(list) == 0 {
			return nil
		}
		d := list[0]
		if d.Open && d.First > d.Last && d.First > m.last() {
			if err := drop(d.First); err != nil {
				return fmt.Errorf("drop the damaged tail from entry %d: %w", d.First, err)
			}
			continue
		}
		last := d.Last + 1
		for _, next := range list[1:] {
			if next.First <= last {
				last = next.Last + 1
			}
		}
		var es []commitlog.Entry
		for i := d.First; i <= min(last, m.last()); i++ {
			if e, ok := m.entry(i); ok {
				es = append(es, e)
			}
		}
		if _, err := repair(es, m.last()); err != nil {
			return fmt.Errorf("%+v: %w", d, err)
		}
	}
	return fmt.Errorf("still damaged: %+v", s.log.Damage())
}
