package commitlog

import (
	"fmt"
	"slices"
)

// quarantine lists the damage above the newest checkpoint, which made cause,
// and leaves everything as it is. d is the durable end, zero where none is
// known. Damage that entries cannot mend stays cause.
func (l *Log) quarantine(d durableEnd, cause error) error {
	above := max(l.options.VerifiedTo, l.start.Index)
	known := max(d.index, l.options.VerifiedTo, l.committed.Load())
	last := tail{l.start.Index, l.start.Term}
	var list []*damage
	if n := len(l.segments); n == 0 {
		if known > last.index {
			hole := l.hole(known, l.durableAnchor(d, known))
			hole.Open = !hole.After.Known
			list, last = append(list, hole), tail{known, hole.After.Term}
		}
	} else if s := l.beheaded(); s != nil {
		list = append(list, l.hole(s.prevIndex, l.headAnchor(s)))
	}
	for i, s := range l.segments {
		var next *segment
		if i+1 < len(l.segments) {
			if next = l.segments[i+1]; next.prevIndex <= above {
				continue
			}
		}
		s.unbound()
		var found []*damage
		var err error
		if next != nil {
			found, err = l.surveySealed(s, next, nil)
		} else {
			found, last, err = l.surveyTail(s, d)
		}
		if err != nil {
			return err
		}
		list = append(list, found...)
	}
	// The start need not be a segment's boundary, and below it nothing is missed.
	list = slices.DeleteFunc(list, func(d *damage) bool { return !d.Open && d.Last <= l.start.Index })
	l.mu.Lock()
	l.setDamage(list)
	l.last = last
	l.quarantined = slices.ContainsFunc(list, l.blocks)
	blocked := l.quarantined
	l.mu.Unlock()
	l.openEnd = d
	if !blocked {
		return cause
	}
	return nil
}

// beheaded returns the first segment, if entries are missing before it.
func (l *Log) beheaded() *segment {
	if len(l.segments) == 0 || l.segments[0].prevIndex <= l.start.Index {
		return nil
	}
	return l.segments[0]
}

// noteHead lists the entries that are missing before the first segment. They
// are all below the newest checkpoint, or the log would not have been opened.
func (l *Log) noteHead() {
	s := l.beheaded()
	if s == nil {
		return
	}
	hole := l.hole(s.prevIndex, l.headAnchor(s))
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inDamage(hole.First) == nil {
		l.setDamage(append([]*damage{hole}, l.damaged...))
	}
}

// hole is the damage of a log whose first entries, up to last, are in no file.
func (l *Log) hole(last uint64, after Anchor) *damage {
	return &damage{clean: true, Damage: Damage{
		First: l.start.Index + 1, Last: last, After: after,
		Before: Anchor{Index: l.start.Index, Term: l.start.Term, Known: true},
		Path:   l.dir, Reason: "the segment is missing",
	}}
}

// durableAnchor is what the durable end says of the entry at index.
func (l *Log) durableAnchor(d durableEnd, index uint64) Anchor {
	if d.index != index || index == 0 {
		return Anchor{}
	}
	return Anchor{Index: d.index, Term: d.term, Known: true}
}

// head is the term of the entry before s, if its header tells.
func (l *Log) head(s *segment) (prevTerm uint64, known bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return s.prevTerm, !s.headless
}

// headAnchor is what s says of the entries before it.
func (l *Log) headAnchor(s *segment) Anchor {
	if term, known := l.head(s); known {
		return Anchor{Index: s.prevIndex, Term: term, Known: true}
	}
	w := newWindow(s, s.length())
	defer w.free()
	h, ok, err := w.header(s.id, segmentHeaderBytes)
	if err != nil || !ok || h.index != s.first {
		return Anchor{}
	}
	return Anchor{Index: h.index, Term: h.term, Known: true}
}

// surveySealed lists the damage of a segment that another follows.
func (l *Log) surveySealed(s, next *segment, pace func(int64) error) ([]*damage, error) {
	v, err := l.surveyPaced(s, next.prevIndex, s.length(), pace)
	if err != nil {
		return nil, err
	}
	after := l.headAnchor(next)
	if v.next.index <= next.prevIndex {
		r := v.rest(s, next.prevIndex, after, 0)
		r.clean = r.clean && v.next.place == s.length()
		v.damage = append(v.damage, r)
	} else if after.Known && after.Index == next.prevIndex && v.last.term != after.Term {
		return nil, next.corrupt(point{next.first, 0}, "does not follow the segment before it")
	}
	return v.damage, nil
}

// surveyTail lists the damage of the last segment, a torn tail excepted, and
// tells the last entry that was there for sure.
func (l *Log) surveyTail(s *segment, d durableEnd) ([]*damage, tail, error) {
	v, err := l.survey(s, ^uint64(0), s.length())
	if err != nil {
		return nil, tail{}, err
	}
	for i, g := range v.damage {
		err := l.judge(s, verdict{next: point{g.First, g.Place}, damage: g.Reason, commit: v.commit}, d)
		switch {
		case err == nil:
			return v.damage[:i], tail{g.Before.Index, g.Before.Term}, nil
		case !isCorrupt(err):
			return nil, tail{}, err
		}
	}
	last := v.last
	l.SetCommitted(min(v.commit, last.index))
	if known := max(d.index, l.options.VerifiedTo, l.committed.Load()); known > last.index {
		after, end := l.durableAnchor(d, known), int64(0)
		if after.Known && d.id == s.id {
			end = d.place
		}
		r := v.rest(s, known, after, end)
		r.Open = !after.Known
		r.clean = r.clean && v.next.place == s.length()
		v.damage, last = append(v.damage, r), tail{known, after.Term}
	}
	return v.damage, last, nil
}

// restoreHeaders writes the headers of headless segments again, where the
// first frame shows that the name is right and the entry before is readable.
func (l *Log) restoreHeaders() error {
	for i, s := range l.segments {
		if !s.headless {
			continue
		}
		w := newWindow(s, s.length())
		h, ok, err := w.header(s.id, segmentHeaderBytes)
		w.free()
		if err != nil {
			return err
		}
		if ok && h.index != s.first || !ok && i+1 < len(l.segments) {
			continue // the name, or the first frame, is wrong as well
		}
		if !ok && max(l.openEnd.index, l.committed.Load(), l.options.VerifiedTo) > s.prevIndex {
			continue
		}
		term, known := l.termBefore(s)
		if !known || ok && h.term < term {
			continue
		}
		if err := l.writeHeader(s, term); err != nil {
			return err
		}
		if err := l.syncFile(s.handle.file, s.path); err != nil {
			return err
		}
		l.logger.Warn("segment header restored", "segment", s.name)
	}
	return nil
}

// termBefore is the term of the entry before s; 0, known, where the start of
// the log lies within s and nobody will ask.
func (l *Log) termBefore(s *segment) (term uint64, known bool) {
	if s.prevIndex < l.start.Index {
		return 0, true
	}
	return l.termOf(s.prevIndex)
}

// termOf is the term of an entry whose header verifies.
func (l *Log) termOf(index uint64) (term uint64, known bool) {
	l.mu.RLock()
	if index == l.start.Index {
		defer l.mu.RUnlock()
		return l.start.Term, true
	}
	if d := l.inDamage(index); d != nil {
		defer l.mu.RUnlock()
		return d.Term, d.Pinned
	}
	if len(l.segments) == 0 || l.segments[0].first > index {
		l.mu.RUnlock()
		return 0, false
	}
	s := l.acquire(index)
	l.mu.RUnlock()
	defer s.handle.drop()
	_, h, err := s.find(index)
	return h.term, err == nil
}

// writeHeader writes the header of s, unsynced.
func (l *Log) writeHeader(s *segment, prevTerm uint64) error {
	n, err := s.handle.file.WriteAt(encodeSegmentHeader(s.first, s.prevIndex, prevTerm, s.id), 0)
	if err != nil || n < segmentHeaderBytes {
		return l.fatal("write", s.path, shortWrite(err))
	}
	l.mu.Lock()
	s.prevTerm, s.headless = prevTerm, false
	l.mu.Unlock()
	s.reach(segmentHeaderBytes)
	return nil
}

// unbound forgets where the frames of s end: behind damage there may be more.
func (s *segment) unbound() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end = 0
}

// reach notes that frames reach up to place, at least.
func (s *segment) reach(place int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.size = max(s.size, place)
	if s.end != 0 {
		s.end = max(s.end, place)
	}
}

var errNotDamaged = fmt.Errorf("the log is not quarantined")
