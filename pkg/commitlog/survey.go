package commitlog

import "fmt"

// surveyed is what a survey of one segment found.
type surveyed struct {
	damage []*damage
	last   tail   // of the last frame whose header verifies
	next   point  // behind it
	commit uint64 // highest in any frame
	headed bool   // the term before the first frame is known
	tail   string // why next is no frame though something is there; "": a clean end
}

// survey verifies every frame of s, header and payload, up to the entry limit
// and the place end, and goes on behind damage. What is damaged from the last
// good frame on is not in the list: how far that reaches, the file does not
// say.
func (l *Log) survey(s *segment, limit uint64, end int64) (v surveyed, err error) {
	return l.surveyPaced(s, limit, end, nil)
}

// surveyPaced is survey that calls pace, when not nil, before it reads so many
// bytes more.
func (l *Log) surveyPaced(s *segment, limit uint64, end int64, pace func(int64) error) (v surveyed, err error) {
	w := newWindow(s, end)
	defer w.free()
	w.pace = pace
	prevTerm, known := l.head(s)
	v = surveyed{last: tail{s.prevIndex, prevTerm}, next: point{s.first, segmentHeaderBytes}, headed: known}
	add := func(d *damage) {
		d.seg, d.Path, d.Place = s, s.path, v.next.place
		d.Before = Anchor{Index: v.last.index, Term: v.last.term, Known: known}
		v.damage = append(v.damage, d)
	}
	for v.next.index <= limit {
		h, ok, err := w.header(s.id, v.next.place)
		if err != nil {
			return v, err
		}
		if !ok || h.index != v.next.index || h.term < v.last.term {
			if ok {
				v.tail = fmt.Sprintf("frame of entry %d, term %d behind entry %d, term %d", h.index, h.term, v.last.index, v.last.term)
			} else if v.tail, err = w.tailDamage(v.next.place); err != nil || v.tail == "" {
				return v, err
			}
			h, at, found, err := w.searchAfter(s.id, v.next, limit, v.last.term)
			if err != nil || !found {
				return v, err
			}
			add(&damage{Damage: Damage{First: v.next.index, Last: h.index - 1, Reason: v.tail,
				After: Anchor{Index: h.index, Term: h.term, Known: true}}, end: at})
			v.tail = ""
			v.last, v.next, known = tail{h.index - 1, 0}, point{h.index, at}, false
			continue
		}
		b, err := w.at(v.next.place, h.bytes())
		if err != nil {
			return v, err
		}
		if !h.verifyPayload(b) {
			add(&damage{Damage: Damage{First: h.index, Last: h.index, Pinned: true, Term: h.term, Reason: "payload checksum",
				After: Anchor{Index: h.index, Term: h.term, Known: true}}, header: h, end: v.next.place + h.bytes()})
		}
		v.commit = max(v.commit, h.commit)
		v.last, v.next, known = tail{h.index, h.term}, point{h.index + 1, v.next.place + h.bytes()}, true
	}
	return v, nil
}

// searchAfter returns the first frame behind a damaged one at p that can belong
// there: its index is higher, by no more than the frames there is room for, and
// its term no lower than the one before.
func (w *window) searchAfter(id uint64, p point, limit, term uint64) (h frameHeader, at int64, ok bool, err error) {
	for place := p.place + frameAlign; ; place = at + frameAlign {
		h, at, ok, err = w.search(id, place)
		if err != nil || !ok {
			return h, at, false, err
		}
		room := uint64(at-p.place) / frameHeaderBytes
		if h.index > p.index && h.index <= limit && h.index-p.index <= room && h.term >= term {
			return h, at, true, nil
		}
	}
}

// rest is the damage from the last good frame of v on, up to the entry last,
// which ends at the place end (0: unknown).
func (v *surveyed) rest(s *segment, last uint64, after Anchor, end int64) *damage {
	reason := v.tail
	clean := reason == ""
	if clean {
		reason = "frames are missing"
	}
	known := v.headed || v.last.index != s.prevIndex
	return &damage{seg: s, end: end, clean: clean, Damage: Damage{
		First: v.next.index, Last: last, After: after,
		Before: Anchor{Index: v.last.index, Term: v.last.term, Known: known},
		Path:   s.path, Place: v.next.place, Reason: reason,
	}}
}
