package commitlog

import (
	"errors"
	"slices"
	"sort"
)

// TruncateSuffix drops the entries from index from on, durably. It refuses,
// with *CommittedError, to reach an entry known to be committed. From beyond
// Last is nothing to do.
//
// The cut ends its segment: the next entry opens a new one, with a new id, so
// nothing that was cut can ever verify again. That segment is preallocated
// first: *NoSpaceError changes nothing, and the entries to come have their room.
func (l *Log) TruncateSuffix(from uint64) error { return l.report(l.truncateSuffix(from)) }

func (l *Log) truncateSuffix(from uint64) error {
	l.writing.Lock()
	defer l.finish()
	if err := l.check(); err != nil {
		return err
	}
	if from > l.last.index {
		return nil
	}
	if c := l.committed.Load(); from <= c && !l.options.Planted.CutCommitted {
		return &CommittedError{From: from, Committed: c}
	}
	if err := l.refuse(); err != nil {
		return err
	}
	if err := l.preallocate(0, l.options.SegmentBytes); err != nil {
		return err
	}
	n := sort.Search(len(l.segments), func(i int) bool { return l.segments[i].first > from }) - 1
	s := l.segments[n]
	end, err := s.endBefore(from)
	if err != nil {
		return err
	}
	// A crash inside the cut may leave any part of what is cut.
	end.cut = 1
	return l.cutAt(n, from, end)
}

// cutAt drops the entries from the one called from on, which is, or would be,
// at end in the segment n; -1: in none.
func (l *Log) cutAt(n int, from uint64, end durableEnd) error {
	if err := l.lowerDurable(end); err != nil {
		return err
	}
	var s *segment
	keep := n + 1
	if n >= 0 {
		if s = l.segments[n]; from == s.first {
			keep = n
		}
	}
	gone := l.segments[keep:]
	l.mu.Lock()
	l.cache.truncate(from)
	l.last = tail{end.index, end.term}
	l.forgetDamage(from)
	l.segments = slices.Clone(l.segments[:keep])
	if keep > n && s != nil {
		// With the shape: who looks for an entry from now on reads no further than
		// the file will reach, and who began before looks again.
		s.cut(from, end.place)
	}
	l.shape++
	l.mu.Unlock()
	l.active = nil

	// Newest first, each for good before the next: a crash between leaves a
	// shorter log, never one with a hole.
	for i, g := range slices.Backward(gone) {
		err := l.discard(g)
		if err == nil {
			err = l.syncDir()
		}
		if err != nil {
			drop(gone[:i], nil)
			return err
		}
	}
	if keep == n || s == nil {
		return nil
	}
	if l.options.Planted.AppendAfterCut {
		size, err := s.handle.file.Size()
		s.size, l.active = size, s
		return err
	}
	if err := s.handle.file.Truncate(end.place); err != nil {
		return l.fatal("truncate", s.path, err)
	}
	if err := l.syncFile(s.handle.file, s.path); err != nil {
		return err
	}
	return l.syncDir()
}

// endBefore is the durable end of a log that ends just before the entry from,
// which s has.
func (s *segment) endBefore(from uint64) (durableEnd, error) {
	d := durableEnd{index: s.prevIndex, term: s.prevTerm, id: s.id, place: segmentHeaderBytes}
	if from == s.first {
		return d, nil
	}
	p, h, err := s.find(from - 1)
	if err != nil {
		return d, err
	}
	return durableEnd{index: h.index, term: h.term, id: s.id, place: p.place + h.bytes()}, nil
}

// discard removes a segment's file, which is no part of the log any more, and lets go
// of it whether that works or not; readers that hold it read on.
func (l *Log) discard(s *segment) error {
	if err := l.remove(s.name); err != nil {
		s.handle.drop()
		return err
	}
	if err := s.handle.release(); err != nil {
		return l.fatal("close", s.path, err)
	}
	l.metrics.segments.Dec()
	return nil
}

// drop lets go of files that are no part of the log any more and that a fatal fault
// keeps from being removed. Close knows nothing of them.
func drop(segments []*segment, files []*offsetFile) {
	for _, s := range segments {
		s.handle.drop()
	}
	for _, f := range files {
		f.handle.drop()
	}
}

// Reset empties the log, durably: the next entry is s.Index+1 and the next
// offset s.Offset. It is for a checkpoint installed from elsewhere. The new
// start record outlaws the old files before any of them goes; *NoSpaceError says
// that there was no room for it, and leaves everything but the spares.
func (l *Log) Reset(s Start) error { return l.report(l.reset(s)) }

func (l *Log) reset(s Start) error {
	l.writing.Lock()
	defer l.finish()
	l.publishing.Lock()
	defer l.publishing.Unlock()
	if err := l.check(); err != nil {
		return err
	}
	r, err := l.outlaw(s)
	if err != nil {
		return err
	}
	segments, files := l.segments, l.sealed
	if l.offsetFile != nil {
		files = append(slices.Clone(files), l.offsetFile)
	}
	l.active, l.offsetFile, l.unwritten = nil, nil, 0
	l.mu.Lock()
	l.start, l.last = r, tail{s.Index, s.Term}
	l.segments, l.sealed, l.recent = nil, nil, nil
	l.cache = cache{limit: l.options.CacheBytes}
	l.visible, l.lowest = s.Offset, s.Offset
	l.setDamage(nil)
	l.setDamagedOffsets(nil)
	l.quarantined, l.openEnd = false, durableEnd{}
	l.shape++
	l.wake()
	l.mu.Unlock()
	l.SetCommitted(s.Index)
	return l.discardAll(segments, files)
}

// discardAll is discard of many, and one sync of the directory.
func (l *Log) discardAll(segments []*segment, files []*offsetFile) error {
	for i, s := range segments {
		if err := l.discard(s); err != nil {
			drop(segments[i+1:], files)
			return err
		}
	}
	for i, f := range files {
		if err := l.discardOffsets(f); err != nil {
			drop(nil, files[i+1:])
			return err
		}
	}
	return l.syncDir()
}

// outlaw makes a start record durable under which no present file counts. Where it
// finds no room for that, all but the spares is as it was.
func (l *Log) outlaw(s Start) (startRecord, error) {
	was := l.durableBuf
	// Nothing is claimed while neither the old log nor the new counts for sure.
	if err := l.lowerDurable(durableEnd{}); err != nil {
		return startRecord{}, err
	}
	// A spare keeps its id, which is then below the floor.
	if err := l.discardSpares(); err != nil {
		return startRecord{}, err
	}
	l.lastCounter++
	r := startRecord{Start: s, floor: floorOf(l.lastCounter)}
	err := l.writeStart(r)
	var full *NoSpaceError
	if errors.As(err, &full) {
		if err := l.restoreDurable(was); err != nil {
			return startRecord{}, err
		}
	}
	return r, err
}

// SetStart moves the beginning of the log up to s, an entry it has: retention.
// When it returns the start record is durable, and the segments and offset files
// wholly below it are no part of the log any more; Sweep removes them. A start
// at or below the present one changes nothing, and neither does *NoSpaceError;
// DropSpare makes room.
func (l *Log) SetStart(s Start) error { return l.report(l.setStart(s)) }

// DropSpare gives up the preallocated segments. It is for a full disk on which
// something small has to be written that frees more than they.
func (l *Log) DropSpare() error { return l.report(l.dropSpare()) }

func (l *Log) dropSpare() error {
	l.writing.Lock()
	defer l.finish()
	if err := l.check(); err != nil {
		return err
	}
	if err := l.discardSpares(); err != nil {
		return err
	}
	return l.syncDir()
}

// discardSpares removes the spares; their ids are used.
func (l *Log) discardSpares() error {
	for len(l.spares) > 0 {
		sp := l.spares[0]
		l.spares = l.spares[1:] // Close closes the others
		if err := sp.file.Close(); err != nil {
			return l.fatal("close", l.path(freeName(sp.id)), err)
		}
		if err := l.remove(freeName(sp.id)); err != nil {
			return err
		}
	}
	l.spares = nil
	l.spareBytes.Store(0)
	l.spareReady.Store(false)
	return nil
}

func (l *Log) setStart(s Start) error {
	l.writing.Lock()
	defer l.finish()
	l.publishing.Lock()
	defer l.publishing.Unlock()
	if err := l.check(); err != nil {
		return err
	}
	if s.Index <= l.start.Index {
		return nil
	}
	if s.Index > l.last.index {
		return &GapError{Want: l.last.index, Got: s.Index}
	}
	r := startRecord{Start: s, floor: l.start.floor}
	if err := l.writeStart(r); err != nil {
		return err
	}
	n := 0
	for n+1 < len(l.segments) && l.segments[n+1].prevIndex <= s.Index {
		n++
	}
	m := 0
	for m < len(l.sealed) && l.sealed[m].next <= s.Offset {
		m++
	}
	segments, files := l.segments[:n], l.sealed[:m]
	l.mu.Lock()
	l.start = r
	l.segments = slices.Clone(l.segments[n:])
	l.sealed = slices.Clone(l.sealed[m:])
	l.lowest = max(l.lowest, s.Offset)
	l.forgetDamage(^uint64(0))
	if m > 0 {
		l.forgetOffsets(0, files[m-1].next)
	}
	l.shape++
	l.gone.add(segments, files)
	l.mu.Unlock()
	l.SetCommitted(s.Index)
	return nil
}
