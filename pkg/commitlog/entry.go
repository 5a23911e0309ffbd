package commitlog

import (
	"errors"
	"fmt"
	"io"
	"sort"
)

// Entry returns the entry at index: from the cache, else from its segment,
// verified. ErrNotFound, bare, outside [First, Last]; *CorruptError when it is
// there but damaged. It never waits for a writer.
func (l *Log) Entry(index uint64) (Entry, error) {
	if err := l.check(); err != nil {
		return Entry{}, err
	}
	for {
		l.mu.RLock()
		if index <= l.start.Index || index > l.last.index || l.closed {
			l.mu.RUnlock()
			return Entry{}, ErrNotFound
		}
		if it, ok := l.cache.get(index); ok {
			e := it.entry
			l.mu.RUnlock()
			return e, nil
		}
		if d := l.inDamage(index); d != nil {
			l.mu.RUnlock()
			return Entry{}, d.corrupt(index)
		}
		s, shape := l.acquire(index), l.shape
		l.mu.RUnlock()
		e, err := s.entry(index)
		s.handle.drop()
		if err == nil {
			return e, nil
		}
		if !l.reshaped(shape) {
			return e, l.examine(index, err)
		}
		// A truncation took the file from under us: look again.
	}
}

// Cached returns the entry at index if the tail cache has it.
func (l *Log) Cached(index uint64) (Entry, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if index <= l.start.Index || l.closed {
		return Entry{}, false
	}
	it, ok := l.cache.get(index)
	if !ok {
		return Entry{}, false
	}
	return it.entry, true
}

// acquire returns the segment that has index, held for the caller. The log has
// that entry; mu is held.
func (l *Log) acquire(index uint64) *segment {
	n := sort.Search(len(l.segments), func(i int) bool { return l.segments[i].first > index })
	s := l.segments[n-1]
	if !s.handle.acquire() {
		panic(fmt.Sprintf("commitlog: listed segment %s is closed", s.name))
	}
	return s
}

// reshaped reports whether entries went away since shape was read.
func (l *Log) reshaped(shape uint64) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.shape != shape
}

// entry reads the entry at index, which s has or once had.
func (s *segment) entry(index uint64) (Entry, error) {
	p, h, err := s.find(index)
	if err != nil {
		return Entry{}, err
	}
	b := make([]byte, h.bytes())
	if err := readFull(s.handle.file, b, p.place); errors.Is(err, io.EOF) {
		return Entry{}, s.corrupt(p, "the file is too short")
	} else if err != nil {
		return Entry{}, fmt.Errorf("read %s at %d: %w", s.path, p.place, err)
	}
	return s.verified(b, p)
}

// verified returns the entry in b, the whole frame expected at p.
func (s *segment) verified(b []byte, p point) (Entry, error) {
	h, ok := decodeHeader(b, s.id, p.place)
	switch {
	case !ok:
		return Entry{}, s.corrupt(p, "frame header checksum")
	case h.index != p.index:
		return Entry{}, s.corrupt(p, fmt.Sprintf("frame of entry %d in its place", h.index))
	case !h.verifyPayload(b) && !s.trust:
		return Entry{}, s.corrupt(p, "payload checksum")
	}
	return h.entry(b), nil
}

func (s *segment) corrupt(p point, reason string) error {
	return &CorruptError{Path: s.path, Place: p.place, Index: p.index, Reason: reason}
}

// find returns the place of index and its header, which verifies. It scans
// from the nearest place it knows, and remembers what it passes.
func (s *segment) find(index uint64) (point, frameHeader, error) {
	p, end := s.before(index)
	if end == 0 {
		end = s.length()
	}
	w := newWindow(s, end)
	defer w.free()
	var passed []point
	step := p.place
	for {
		h, ok, err := w.header(s.id, p.place)
		if err != nil {
			return p, h, err
		}
		if !ok || h.index != p.index {
			// Damage: go on behind it, unless it is the frame we want.
			damaged := p
			h, p.place, ok, err = w.search(s.id, p.place+frameAlign)
			if err != nil {
				return p, h, err
			}
			if !ok || h.index > index || h.index <= damaged.index {
				damaged.index = index
				return damaged, h, s.corrupt(damaged, "frame header checksum")
			}
			p.index = h.index
		}
		if p.index == index {
			s.remember(passed, point{index + 1, p.place + h.bytes()})
			return p, h, nil
		}
		p = point{p.index + 1, p.place + h.bytes()}
		if p.place >= step+pointEvery {
			passed, step = append(passed, p), p.place
		}
	}
}
