package commitlog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
)

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
	if isFull(err) {
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
		return nil, errors.Join(l.fatal("rename", l.path(free), err), f.Close())
	}
	if err := l.syncDir(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	l.metrics.bytes.Add(float64(len(b)))
	return &segment{
		name: name, path: l.path(name), id: id, handle: newHandle(f),
		first: prev.index + 1, prevIndex: prev.index, prevTerm: prev.term,
		size: int64(len(b)), end: int64(len(b)),
	}, nil
}
