package commitlog

import (
	"errors"
	"fmt"
	"slices"
)

// Repair puts entries that came from a peer in the place of damaged ones,
// durably, and returns how many. They follow each other; those that are not
// damaged here are only compared with. committed is up to where the peer knows
// its entries to be committed.
//
// Damage is mended when one of the proofs holds that Damage describes: its
// entry is pinned; or the entries reach to After, and agree with it; or they
// are committed, and then also a part of it, from First on. A *ProofError says
// why none does; what stood in entries before that one is mended all the same,
// and where anything was mended, more that is only unproven is no error.
// *NoSpaceError changes nothing that was whole.
//
// The same bytes go where they were. A crash on the way leaves the damage, or
// less of it. When nothing above the newest checkpoint is damaged any more,
// the log is what it was before the damage, and Quarantined ends.
func (l *Log) Repair(entries []Entry, committed uint64) (n uint64, err error) {
	n, err = l.repair(entries, committed)
	return n, l.report(err)
}

func (l *Log) repair(entries []Entry, committed uint64) (n uint64, err error) {
	l.writing.Lock()
	defer l.finish()
	if err := l.check(); err != nil {
		return 0, err
	}
	if len(entries) == 0 {
		return 0, nil
	}
	if err := follow(tail{entries[0].Index - 1, 0}, entries); err != nil {
		return 0, err
	}
	var unproven error
	l.mu.RLock()
	list := l.damaged
	l.mu.RUnlock()
	// Raft's Log Matching: they are ours up to the last one that we know.
	matched := uint64(0)
	for _, d := range list {
		if a := d.After; a.Known && entries[0].Index <= a.Index && a.Index <= entries[len(entries)-1].Index {
			if e := &entries[a.Index-entries[0].Index]; e.Term != a.Term {
				return 0, &ProofError{Damage: d.Damage,
					Reason: fmt.Sprintf("entry %d has term %d there and %d here", a.Index, e.Term, a.Term)}
			}
			matched = max(matched, a.Index)
		}
	}
	for _, d := range list {
		m, err := l.mend(d, entries, matched, committed)
		n += m
		l.metrics.repaired.Add(float64(m))
		var short *ProofError
		if errors.As(err, &short) && short.Unproven {
			if unproven == nil {
				unproven = err
			}
			continue
		}
		if err != nil {
			return n, errors.Join(err, l.settle())
		}
	}
	if err := l.settle(); err != nil || n > 0 {
		return n, err
	}
	return 0, unproven
}

// settle ends the quarantine, if nothing is left that it waits for.
func (l *Log) settle() error {
	l.mu.RLock()
	waits := slices.ContainsFunc(l.damaged, l.blocks)
	quarantined := l.quarantined
	l.mu.RUnlock()
	if waits || !quarantined {
		return l.restoreHeaders()
	}
	if err := l.settleSegments(l.openEnd); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.quarantined = slices.ContainsFunc(l.damaged, l.blocks); !l.quarantined {
		l.openEnd = durableEnd{}
		l.logger.Info("the log is whole again", "last", l.last.index)
	}
	return nil
}

// mend puts what entries have for d in its place, if a proof holds: they are
// ours up to matched, and committed up to committed.
func (l *Log) mend(d *damage, entries []Entry, matched, committed uint64) (uint64, error) {
	head, end := entries[0].Index, entries[len(entries)-1].Index
	if d.First < head || d.First > end || d.Last < d.First && !d.Open {
		return 0, nil
	}
	last := min(d.Last, end)
	if d.Open {
		last = end // Last is only what is known for sure
	}
	part := entries[d.First-head : last+1-head]
	if len(part) == 0 {
		return 0, nil
	}
	refuse := func(format string, args ...any) (uint64, error) {
		return 0, &ProofError{Damage: d.Damage, Reason: fmt.Sprintf(format, args...)}
	}
	// What is before and behind it here contradicts, or there is nothing to prove.
	before, known := l.termOf(d.First - 1)
	if known && part[0].Term < before {
		return refuse("entry %d has term %d, below its predecessor's %d", d.First, part[0].Term, before)
	}
	if known && d.First > head && entries[d.First-1-head].Term != before {
		return refuse("entry %d has term %d there and %d here", d.First-1, entries[d.First-1-head].Term, before)
	}
	a := d.After
	if a.Known && a.Index == d.Last+1 && part[len(part)-1].Term > a.Term {
		return refuse("entry %d has term %d, above the %d of entry %d here", last, part[len(part)-1].Term, a.Term, a.Index)
	}
	if d.Pinned {
		e := &part[0]
		if e.Term != d.header.term || len(e.Data) != int(d.header.length) || crc(e.Data) != d.header.payloadCRC {
			return refuse("its header here names another payload")
		}
		return 1, l.mendPayload(d, e)
	}
	if matched < last {
		n := 0
		for n < len(part) && part[n].Index <= max(matched, committed) {
			n++
		}
		if part = part[:n]; n == 0 {
			return 0, &ProofError{Damage: d.Damage, Unproven: true, Reason: "nothing shows that they are the same"}
		}
	}
	if d.seg != nil && d.seg.headless && d.First == d.seg.first && !known {
		return refuse("what is before it is to be repaired first")
	}
	if err := l.mendRun(d, part, before); err != nil {
		return 0, err
	}
	return uint64(len(part)), nil
}

// DropDamagedTail ends a log before the entry from, with which damage begins, or
// that is in quarantine, durably. Nothing may be appended meanwhile. The
// caller has the proof that no entry from there on was ever committed, nor can
// be: enough voters have answered that they lack it. Entries known to be
// committed here are not dropped: *CommittedError. The entry before from must
// be readable.
func (l *Log) DropDamagedTail(from uint64) error { return l.report(l.dropDamagedTail(from)) }

func (l *Log) dropDamagedTail(from uint64) error {
	l.writing.Lock()
	defer l.finish()
	if err := l.check(); err != nil {
		return err
	}
	if c := max(l.committed.Load(), l.start.Index); from <= c {
		return &CommittedError{From: from, Committed: c}
	}
	l.mu.RLock()
	i := slices.IndexFunc(l.damaged, func(d *damage) bool { return d.First == from })
	var d *damage
	if i >= 0 {
		d = l.damaged[i]
	}
	last, quarantined := l.last.index, l.quarantined
	l.mu.RUnlock()
	switch {
	case d == nil && !quarantined:
		return errNotDamaged
	case d == nil && from > last:
		return nil
	}
	term, known := l.termOf(from - 1)
	if !known {
		return &DamagedError{Damage: Damage{First: from - 1, Last: from - 1, Path: l.dir, Reason: "the entry before the cut is damaged"}}
	}
	n := len(l.segments) - 1
	for n >= 0 && l.segments[n].first > from {
		n--
	}
	end := durableEnd{index: from - 1, term: term, cut: 1}
	switch {
	case n < 0: // they are in no file
	case l.segments[n].first == from:
		end.id, end.place = l.segments[n].id, segmentHeaderBytes
	default:
		s := l.segments[n]
		p, h, err := s.find(from - 1)
		if err != nil {
			return err
		}
		end.id, end.place = s.id, p.place+h.bytes()
	}
	if err := l.cutAt(n, from, end); err != nil {
		return err
	}
	if quarantined {
		l.openEnd = end
	}
	return l.settle()
}
