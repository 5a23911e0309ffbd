package commitlog

import (
	"fmt"
)

// Frames reads every byte of the segments that a start would open, in order,
// but for those that end before the entry from, and calls each for every frame
// whose header verifies. It tells of damage, and goes on behind it. An error of
// each ends it.
func (n *Inspection) Frames(from uint64, each func(*Frame) error) error {
	// What the log must begin behind; its first segment may reach further back.
	prev, known := tail{n.Start.Index, n.Start.Term}, false
	for i, s := range n.segments {
		if s == nil || n.Segments[i].State == SegmentBelow {
			continue
		}
		if n.Segments[i].State == SegmentSealed && n.Segments[i].Last < from {
			continue
		}
		switch {
		case !known && from > n.Start.Index+1:
		case !known && s.prevIndex > n.Start.Index:
			n.find(FindMissing, s.name, 0, n.Start.Index+1, fmt.Sprintf("entries %d to %d are missing before it", n.Start.Index+1, s.prevIndex))
		case known && s.prevIndex != prev.index:
			n.find(FindMissing, s.name, 0, min(prev.index+1, s.first), fmt.Sprintf("it follows entry %d, but the segment before it ends with %d", s.prevIndex, prev.index))
		case known && s.prevTerm != prev.term && s.prevTerm != 0:
			n.find(FindSegment, s.name, 32, s.first, fmt.Sprintf("it follows term %d, but the segment before it ends in %d", s.prevTerm, prev.term))
		case known && s.id < n.Segments[i-1].ID:
			n.find(FindSegment, s.name, 40, s.first, "older than the segment before it")
		}
		var err error
		if prev, err = n.walk(s, n.Segments[i].State == SegmentActive, each); err != nil {
			return err
		}
		known = true
		if n.Segments[i].State == SegmentActive {
			n.Segments[i].Last = prev.index
		}
	}
	if d := n.End; d != nil && d.Index > prev.index && n.claims(d) {
		n.find(FindMissing, durableFile, 0, prev.index+1, fmt.Sprintf("the log ends at entry %d, but %d was durable", prev.index, d.Index))
	}
	return nil
}

// claims says whether the durable end still counts: no later segment says that
// the log was shortened since.
func (n *Inspection) claims(d *DurableEnd) bool {
	for _, s := range n.segments {
		if s != nil && s.id > d.Segment && s.prevIndex < d.Index {
			return false
		}
	}
	return d.Index > n.Start.Index
}

// walk reads one segment whole, and returns its last entry.
func (n *Inspection) walk(s *segment, active bool, each func(*Frame) error) (tail, error) {
	size := s.size
	if n.End != nil && n.End.Cut && n.End.Segment == s.id {
		size = min(size, n.End.Place) // a truncation that a crash may have interrupted
	}
	w := newWindow(s, size)
	defer w.free()
	prev := tail{s.prevIndex, s.prevTerm}
	for place := int64(segmentHeaderBytes); place < size; {
		h, ok, err := w.header(s.id, place)
		if err != nil {
			return prev, err
		}
		if !ok {
			clean, err := w.zeros(place)
			if err != nil {
				return prev, err
			}
			if clean && active {
				break
			}
			at, next, more, err := w.search(s.id, place+frameAlign)
			// One that belongs there: there is room for the entries before it.
			for more && err == nil && (at.index <= prev.index || at.index-prev.index-1 > uint64(next-place)/frameHeaderBytes || next+at.bytes() > size) {
				at, next, more, err = w.search(s.id, next+frameAlign)
			}
			switch {
			case err != nil:
				return prev, err
			case !more:
				n.find(FindHeader, s.name, place, prev.index+1, "no frame verifies from here to the end of the segment, and it is not empty")
				return prev, nil
			}
			n.find(FindHeader, s.name, place, prev.index+1, fmt.Sprintf("frame header checksum; the next good frame is entry %d at %d", at.index, next))
			h, place = at, next
			prev.index = h.index - 1
		}
		if h.index != prev.index+1 {
			n.find(FindHeader, s.name, place, h.index, fmt.Sprintf("entry %d follows entry %d", h.index, prev.index))
		}
		if h.term < prev.term {
			n.find(FindHeader, s.name, place, h.index, fmt.Sprintf("term %d follows term %d", h.term, prev.term))
		}
		b, err := w.at(place, h.bytes())
		if err != nil {
			return prev, err
		}
		whole := h.verifyPayload(b)
		if !whole {
			n.find(FindPayload, s.name, place, h.index, "payload checksum")
		}
		err = each(&Frame{
			Entry: h.entry(b), Segment: s.name, Place: place, Ordinal: h.ordinal,
			Commit: h.commit, PayloadCRC: h.payloadCRC, Damaged: !whole,
		})
		if err != nil {
			return prev, err
		}
		prev = tail{h.index, h.term}
		place += h.bytes()
	}
	return prev, nil
}
