package commitlog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
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

// mendPayload writes the payload of the one entry of d again.
func (l *Log) mendPayload(d *damage, e *Entry) error {
	b := make([]byte, d.header.bytes()-frameHeaderBytes)
	copy(b, e.Data)
	if err := l.overwrite(d.seg, b, d.Place+frameHeaderBytes); err != nil {
		return err
	}
	if err := l.syncFile(d.seg.handle.file, d.seg.path); err != nil {
		return err
	}
	l.mended(d, tail{e.Index, e.Term}, 0)
	return nil
}

// mendRun writes the frames of part, which begin d, where they were; before is
// the term of the entry before them.
func (l *Log) mendRun(d *damage, part []Entry, before uint64) error {
	need := int64(0)
	for i := range part {
		need += frameBytes(len(part[i].Data))
	}
	whole := part[len(part)-1].Index >= d.Last
	s := d.seg
	if s == nil || d.clean && d.end == 0 && !s.headless && s.length()+need > max(l.options.SegmentBytes, need+segmentHeaderBytes) {
		return l.mendMissing(d, part, before)
	}
	end := d.Place + need
	if d.end != 0 {
		// There is room for these frames and no others.
		left := int64(d.Last-min(d.Last, part[len(part)-1].Index)) * frameHeaderBytes
		if whole && end != d.end || !whole && end+left > d.end {
			return &ProofError{Damage: d.Damage, Reason: fmt.Sprintf("they take %d bytes where there are %d", need, d.end-d.Place)}
		}
	}
	if s.headless && d.First == s.first {
		if err := l.writeHeader(s, before); err != nil {
			return err
		}
	}
	commit := min(l.committed.Load(), d.First-1)
	buf, place := []byte(nil), d.Place
	for i := range part {
		buf = appendFrame(buf, &part[i], s.id, place+int64(len(buf)), 0, commit)
		if len(buf) >= repairBytes || i+1 == len(part) {
			if err := l.overwrite(s, buf, place); err != nil {
				return err
			}
			place, buf = place+int64(len(buf)), buf[:0]
		}
	}
	s.reach(end)
	if whole && d.end == 0 && l.segments[len(l.segments)-1] != s && s.length() > end {
		if err := s.handle.file.Truncate(end); err != nil {
			return l.fatal("truncate", s.path, err)
		}
		s.mu.Lock()
		s.size = end
		s.mu.Unlock()
	}
	if err := l.syncFile(s.handle.file, s.path); err != nil {
		return err
	}
	l.mended(d, tail{part[len(part)-1].Index, part[len(part)-1].Term}, end)
	return nil
}

// repairBytes is about how much Repair writes at once.
const repairBytes = 1 << 20

// overwrite writes b at place in s. A full disk leaves damage where there was
// damage.
func (l *Log) overwrite(s *segment, b []byte, place int64) error {
	n, err := s.handle.file.WriteAt(b, place)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &NoSpaceError{Err: err}
	}
	if err != nil || n < len(b) {
		return l.fatal("write", s.path, shortWrite(err))
	}
	l.metrics.bytes.Add(float64(n))
	return nil
}

// mended takes the entries of d up to the one called to off the list; the
// next, if any is left, is at place.
func (l *Log) mended(d *damage, to tail, place int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var kept []*damage
	for _, o := range l.damaged {
		switch {
		case o.First != d.First && (o.Last < d.First || o.First > to.index):
			kept = append(kept, o)
		case o.Last > to.index || o.Open:
			c := *o
			c.First, c.Place, c.Last = to.index+1, place, max(o.Last, to.index)
			c.Before = Anchor{Index: to.index, Term: to.term, Known: true}
			c.clean = d.clean && d.seg != nil
			kept = append(kept, &c)
		}
	}
	if to.index >= l.last.index {
		l.last = to
	}
	l.setDamage(kept)
	l.shape++
}

// mendMissing puts the frames of part in new segments, in the place of such
// that are missing.
func (l *Log) mendMissing(d *damage, part []Entry, before uint64) error {
	var lo, hi uint64
	at := 0 // in the list of segments
	if d.seg != nil {
		at = slices.Index(l.segments, d.seg) + 1
		lo = d.seg.id
	} else if l.start.floor > 0 {
		lo = l.start.floor - 1
	}
	if at < len(l.segments) {
		hi = l.segments[at].id
	} else if l.openEnd.id > lo {
		// Not above the id that the durable end names: it would no longer count.
		hi = l.openEnd.id
	}
	prev := tail{d.First - 1, before}
	for len(part) > 0 {
		id, err := l.idBetween(lo, hi)
		if err != nil {
			return err
		}
		n, place := 0, int64(segmentHeaderBytes)
		buf := encodeSegmentHeader(prev.index+1, prev.index, prev.term, id)
		for n < len(part) {
			need := frameBytes(len(part[n].Data))
			if n > 0 && place+need > l.options.SegmentBytes {
				break
			}
			buf = appendFrame(buf, &part[n], id, place, 0, min(l.committed.Load(), prev.index))
			place += need
			n++
		}
		s, err := l.createSegment(prev, id, buf)
		if err != nil {
			return err
		}
		l.mu.Lock()
		l.segments = slices.Insert(slices.Clone(l.segments), at, s)
		l.mu.Unlock()
		l.metrics.segments.Inc()
		rest := *d
		rest.seg = s
		lo, at = id, at+1
		prev = tail{part[n-1].Index, part[n-1].Term}
		l.mended(&rest, prev, place)
		l.adopt(prev.index+1, s, place)
		d = &rest
		d.First = prev.index + 1
		part = part[n:]
	}
	return nil
}

// adopt says that the damage which begins at the entry first stands behind s.
func (l *Log) adopt(first uint64, s *segment, place int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := slices.Clone(l.damaged)
	for i, o := range list {
		if o.First == first {
			c := *o
			c.seg, c.clean, c.Path, c.Place, c.end = s, true, s.path, place, 0
			list[i] = &c
		}
	}
	l.setDamage(list)
}

// idBetween returns an id for a segment between two others; hi 0: behind all.
func (l *Log) idBetween(lo, hi uint64) (uint64, error) {
	if hi == 0 {
		return l.nextID(), nil
	}
	if hi-lo < 2 {
		return 0, &CorruptError{Path: l.dir, Reason: fmt.Sprintf("no room for a segment between the ids %x and %x", lo, hi)}
	}
	return lo + 1 + rand.Uint64N(min(hi-lo-1, 1<<32)), nil
}

// createSegment makes a segment, its header and frames in b, durable.
func (l *Log) createSegment(prev tail, id uint64, b []byte) (*segment, error) {
	free, name := freeName(id), segmentName(prev.index+1, id)
	f, err := l.fs.Create(l.path(free))
	if err != nil {
		return nil, l.noSpace("create", l.path(free), err)
	}
	n, err := f.WriteAt(b, 0)
	if err == nil && n < len(b) {
		err = shortWrite(nil)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		err = l.noSpace("write", l.path(free), err)
		return nil, errors.Join(err, f.Close(), l.fs.Remove(l.path(free)))
	}
	if err := l.fs.Rename(l.path(free), l.path(name)); err != nil {
		return nil, l.fatal("rename", l.path(free), err)
	}
	if err := l.syncDir(); err != nil {
		return nil, err
	}
	l.metrics.bytes.Add(float64(len(b)))
	return &segment{
		name: name, path: l.path(name), id: id, handle: newHandle(f),
		first: prev.index + 1, prevIndex: prev.index, prevTerm: prev.term,
		size: int64(len(b)), end: int64(len(b)),
	}, nil
}

// DropDamagedTail ends a quarantined log before the entry from, durably. The
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
	if !l.Quarantined() {
		return errNotDamaged
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
	last := l.last.index
	l.mu.RUnlock()
	if d == nil && from > last {
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
	l.openEnd = end
	return l.settle()
}
