package commitlog

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/logd-io/logd/pkg/vfs"
)

// openAtOnce is how many segments Open reads the headers of at a time.
const openAtOnce = 16

// recoverEntries brings up the entries: what Append acknowledged, and of what
// it was writing when the process ended, a prefix.
func (l *Log) recoverEntries() error {
	var err error
	if l.start, err = l.readStart(); err != nil {
		return err
	}
	// After a kill its name may not be durable yet, and what it outlaws goes now.
	if err := l.syncDir(); err != nil {
		return err
	}
	d, hasEnd, err := l.openDurable()
	if err != nil {
		return err
	}
	names, err := l.inventory()
	if err != nil {
		return err
	}
	l.used(l.start.floor)
	l.used(d.id)
	if r := l.options.Reset; r != nil && l.start.Index < r.Index {
		if l.start, err = l.outlaw(*r); err != nil {
			return err
		}
		hasEnd = false
	}
	l.SetCommitted(max(l.options.KnownCommit, l.options.VerifiedTo, l.start.Index))
	l.last = tail{l.start.Index, l.start.Term}
	if err := l.openSegments(names); err != nil {
		return err
	}
	// A later segment that follows an earlier entry than the durable end names
	// says that the log was shortened after.
	for _, s := range l.segments {
		if hasEnd && s.id > d.id && s.prevIndex < d.index {
			hasEnd = false
		}
	}
	if !hasEnd || d.index < l.start.Index {
		d = durableEnd{}
	}
	return l.settleSegments(d)
}

// settleSegments recovers the segments, or quarantines the log, if it may.
func (l *Log) settleSegments(d durableEnd) error {
	l.openEnd = d
	if err := l.restoreHeaders(); err != nil {
		return err
	}
	err := l.recoverSegments(d)
	if err == nil {
		l.noteHead()
	}
	if l.options.AllowDamage && isCorrupt(err) {
		return l.quarantine(d, err)
	}
	return err
}

// reaches reports a log that ends, with the entry last, before what was
// durable.
func (l *Log) reaches(last uint64, d durableEnd) error {
	if known := max(d.index, l.options.VerifiedTo, l.options.KnownCommit); last < known {
		return &CorruptError{Path: l.dir, Index: last + 1,
			Reason: fmt.Sprintf("the log ends at entry %d, but %d was durable", last, known)}
	}
	return nil
}

// inventory lists the segment files, and removes what no log can be in: files
// never finished, and spares, which get new ids.
func (l *Log) inventory() (segments []string, err error) {
	if l.options.AllowDamage {
		if err := l.rename(); err != nil {
			return nil, err
		}
	}
	names, err := l.fs.List(l.dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", l.dir, err)
	}
	for _, name := range names {
		switch {
		case strings.HasSuffix(name, vfs.TempSuffix), strings.HasSuffix(name, freeSuffix):
			if err := l.remove(name); err != nil {
				return nil, err
			}
		case strings.HasSuffix(name, segmentSuffix):
			_, id, ok := parseSegmentName(name)
			if !ok && l.options.AllowDamage {
				l.logger.Warn("file ignored: it is no segment", "file", name)
				continue // what it may have been is missing
			}
			if !ok {
				return nil, &CorruptError{Path: l.path(name), Reason: "not a segment's name"}
			}
			l.used(id)
			segments = append(segments, name)
		}
	}
	return segments, nil
}

// openSegments opens the segments that are at or above the start, and removes
// the others: what Reset or SetStart left when it was interrupted.
func (l *Log) openSegments(names []string) error {
	outlawed := func(name string) bool {
		_, id, _ := parseSegmentName(name)
		return id < l.start.floor
	}
	for _, name := range names {
		if outlawed(name) {
			if err := l.remove(name); err != nil {
				return err
			}
		}
	}
	if err := l.readSegments(slices.DeleteFunc(names, outlawed)); err != nil {
		return err
	}
	slices.SortFunc(l.segments, func(a, b *segment) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.id, b.id))
	})
	for len(l.segments) > 1 && l.segments[1].prevIndex <= l.start.Index {
		s := l.segments[0]
		l.segments = l.segments[1:]
		if err := l.discard(s); err != nil {
			return err
		}
	}
	for i, s := range l.segments {
		switch {
		case i > 0 && s.first == l.segments[i-1].first:
			return s.corrupt(point{s.first, 0}, "two segments begin at this entry")
		case i > 0 && s.id < l.segments[i-1].id:
			return s.corrupt(point{s.first, 0}, "older than the segment before it")
		}
	}
	l.metrics.segments.Set(float64(len(l.segments)))
	return nil
}

// readSegments opens the segments, many at once: what it takes is the time until a
// cold disk has read a header, and there are as many as the log is long.
func (l *Log) readSegments(names []string) error {
	opened := make([]*segment, len(names))
	var g errgroup.Group
	g.SetLimit(openAtOnce)
	for i, name := range names {
		g.Go(func() (err error) {
			first, id, _ := parseSegmentName(name)
			opened[i], err = openSegment(l.fs, l.dir, name, first, id, l.options.AllowDamage)
			return err
		})
	}
	err := g.Wait()
	for _, s := range opened {
		if s != nil {
			s.trust = l.options.Planted.TrustPayloads
			l.segments = append(l.segments, s)
		}
	}
	return err
}

// recoverSegments walks the segments that have entries above the newest
// checkpoint, and settles the last one's tail.
func (l *Log) recoverSegments(d durableEnd) error {
	above := max(l.options.VerifiedTo, l.start.Index)
	if s := l.beheaded(); s != nil && (s.prevIndex > above || !l.options.AllowDamage) {
		return s.corrupt(point{s.first, 0}, fmt.Sprintf("entries from %d on are missing before it", l.start.Index+1))
	}
	for i, s := range l.segments {
		if i+1 == len(l.segments) {
			return l.recoverTail(s, d)
		}
		next := l.segments[i+1]
		if next.prevIndex <= above {
			continue // not read
		}
		v, err := l.walk(s, next.prevIndex, d)
		if err != nil {
			return err
		}
		if v.damage != "" {
			return s.corrupt(v.next, v.damage+", and a later segment exists")
		}
		if v.last.index != next.prevIndex || v.last.term != next.prevTerm && !next.headless {
			return next.corrupt(point{next.first, 0}, "does not follow the segment before it")
		}
	}
	if err := l.reaches(l.start.Index, d); err != nil {
		return err
	}
	l.mu.Lock()
	l.last = tail{l.start.Index, l.start.Term}
	l.mu.Unlock()
	return l.syncDir()
}

// verdict is what a walk found.
type verdict struct {
	last    tail
	next    point  // where the frame after the last good one is, or would be
	damage  string // why next is no frame though something is there; "": a clean end
	commit  uint64 // highest in any frame
	rewrite int64  // place of the first frame that may not be durable yet
}

// walk verifies the frames of s in order, up to the entry limit: headers all,
// payloads above the newest checkpoint. Damage below the checkpoint is passed
// over; it shows when it is read.
func (l *Log) walk(s *segment, limit uint64, d durableEnd) (verdict, error) {
	above := max(l.options.VerifiedTo, l.start.Index)
	w := newWindow(s, s.size)
	defer w.free()
	v := verdict{last: tail{s.prevIndex, s.prevTerm}, next: point{s.first, segmentHeaderBytes}, rewrite: segmentHeaderBytes}
	var found []point
	for v.next.index <= limit {
		h, ok, err := w.header(s.id, v.next.place)
		if err != nil {
			return v, err
		}
		if !ok {
			if v.damage, err = w.tailDamage(v.next.place); err != nil {
				return v, err
			}
			skip := l.options.Planted.SkipDamage
			if v.damage == "" || v.next.index > above && !skip {
				break
			}
			at, place, more, err := w.search(s.id, v.next.place+frameAlign)
			if err != nil {
				return v, err
			}
			if !more || at.index <= v.next.index || at.index > above+1 && !skip {
				break
			}
			v.damage, v.next, h = "", point{at.index, place}, at
		}
		if h.index != v.next.index || h.term < v.last.term {
			return v, s.corrupt(v.next, fmt.Sprintf("entry %d of term %d follows entry %d of term %d", h.index, h.term, v.last.index, v.last.term))
		}
		v.commit = max(v.commit, h.commit)
		if h.index > above {
			b, err := w.at(v.next.place, h.bytes())
			if err != nil {
				return v, err
			}
			if !h.verifyPayload(b) && !s.trust {
				v.damage = "payload checksum"
				break
			}
		}
		if len(found) == 0 || v.next.place >= found[len(found)-1].place+pointEvery {
			found = append(found, v.next)
		}
		v.last = tail{h.index, h.term}
		v.next = point{h.index + 1, v.next.place + h.bytes()}
		if h.index <= above {
			v.rewrite = v.next.place
		}
	}
	if d.id == s.id {
		v.rewrite = min(max(v.rewrite, d.place), v.next.place)
	}
	s.extend(v.next.place, found)
	return v, nil
}

// tailDamage tells the clean end of a segment, zeros or nothing, from damage.
func (w *window) tailDamage(place int64) (string, error) {
	clean, err := w.zeros(place)
	if err != nil || clean {
		return "", err
	}
	return "frame header checksum", nil
}

// recoverTail settles the last segment: it cuts a torn tail, writes again what
// may not be durable, and syncs, before anything reports those entries.
func (l *Log) recoverTail(s *segment, d durableEnd) error {
	v, err := l.walk(s, ^uint64(0), d)
	if err != nil {
		return err
	}
	if v.damage != "" {
		if err := l.judge(s, v, d); err != nil {
			return err
		}
	}
	// Before anything is written: a durable end that is lowered here would make
	// the next Open believe it.
	if err := l.reaches(v.last.index, d); err != nil {
		return err
	}
	l.SetCommitted(min(v.commit, v.last.index))
	l.mu.Lock()
	l.last = v.last
	l.mu.Unlock()
	end := durableEnd{index: v.last.index, term: v.last.term, id: s.id, place: v.next.place}
	switch {
	case v.next.place == segmentHeaderBytes:
		// Nothing is left of it. It does not stay even where it could: it may be
		// too short for an entry, and another would then begin at the same one.
		if err := l.bound(s, d); err != nil {
			return err
		}
		l.mu.Lock()
		l.segments = slices.Clone(l.segments[:len(l.segments)-1])
		l.mu.Unlock()
		if err := l.discard(s); err != nil {
			return err
		}
		if err := l.syncDir(); err != nil {
			return err
		}
		return l.writeDurable(end)
	case v.damage == "":
		l.active = s
	default:
		if err := l.bound(s, d); err != nil {
			return err
		}
		l.logger.Warn("cutting a torn tail", "segment", s.name, "place", v.next.place, "last", v.last.index)
		if err := s.handle.file.Truncate(v.next.place); err != nil {
			return l.fatal("truncate", s.path, err)
		}
		s.cut(v.next.index, v.next.place)
	}
	if err := l.rewrite(s, v.rewrite, v.next.place); err != nil {
		return err
	}
	if err := l.syncFile(s.handle.file, s.path); err != nil {
		return err
	}
	if err := l.syncDir(); err != nil {
		return err
	}
	if d.cut != 0 {
		return l.lowerDurable(end) // what is appended here from now on counts
	}
	return l.writeDurable(end)
}

// bound makes durable, before a cut, that no more than what d says is known to
// be; without d, no more than the segments before s.
func (l *Log) bound(s *segment, d durableEnd) error {
	if d.id != s.id {
		d = durableEnd{index: s.prevIndex, term: s.prevTerm, id: s.id, place: segmentHeaderBytes}
	}
	return l.lowerDurable(d)
}

// judge decides whether damage at v.next in the last segment is a torn tail: a
// write that a crash interrupted, which therefore nobody was told of. It is
// one only above the durable end, above every known commit, and with no frame
// behind it that a later write made, for a write begins only when the one
// before it is synced. A good frame of the same write proves nothing: a disk
// keeps the sectors of an unsynced write in any combination.
func (l *Log) judge(s *segment, v verdict, d durableEnd) error {
	if l.options.Planted.CutAnyDamage {
		return nil
	}
	index := v.next.index
	switch {
	case d.index >= index:
		return s.corrupt(v.next, v.damage+" below the durable end")
	case l.committed.Load() >= index:
		return s.corrupt(v.next, v.damage+" in a committed entry")
	case v.commit >= index:
		return s.corrupt(v.next, v.damage+" in an entry that an earlier frame says is committed")
	case d.cut != 0 && d.id == s.id && d.place <= v.next.place:
		return nil // a truncation, interrupted: the rest of its block goes first
	}
	w := newWindow(s, s.size)
	defer w.free()
	for place := v.next.place; ; {
		h, at, ok, err := w.search(s.id, place)
		switch {
		case err != nil:
			return err
		case !ok:
			return nil
		case h.index-min(uint64(h.ordinal), h.index) > index:
			return s.corrupt(v.next, fmt.Sprintf("%s, and entry %d was written after it", v.damage, h.index))
		case h.commit >= index:
			return s.corrupt(v.next, fmt.Sprintf("%s in an entry that a later frame says is committed", v.damage))
		}
		place = at + frameAlign
	}
}

// rewrite writes the bytes of s between two places again. After a kill they
// may be in the page cache alone, and even marked clean by a failed sync.
func (l *Log) rewrite(s *segment, from, to int64) error {
	w := newWindow(s, to)
	defer w.free()
	for from < to {
		b, err := w.at(from, windowBytes)
		if err != nil {
			return err
		}
		if n, err := s.handle.file.WriteAt(b, from); err != nil || n < len(b) {
			return l.fatal("write", s.path, shortWrite(err))
		}
		from += int64(len(b))
	}
	return nil
}
