package commitlog

import (
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"
)

// maxReadBytes bounds one Read, whatever it is asked for.
const maxReadBytes = 16 << 20

// readSlack is what one read may take beside twice the bytes of records asked for:
// frames have headers, and entries more than records.
const readSlack = 64 << 10

var batchPool = sync.Pool{New: func() any { return new([]batch) }}

// Read returns the batches from the one that contains off on: whole batches,
// as many as fit in maxBytes, but at least one. It may return fewer than there
// are. *OutOfRangeError outside [Lowest, Visible).
//
// What comes from the disk is verified against its frame's checksum. Read
// never waits for a writer, and may be called by any number of readers.
func (l *Log) Read(off uint64, maxBytes int) ([]RecordBatch, error) {
	return l.ReadInto(off, maxBytes, heap)
}

func heap(n int) []byte { return make([]byte, n) }

// ReadInto is Read into memory of the caller's. room is asked for n bytes, whatever
// is in them, each time something comes from the disk: once as a rule, and never for
// what the tail cache has. The batches' records lie in it, or in memory that nobody
// changes; what room gave may be used again when they are not needed any more.
func (l *Log) ReadInto(off uint64, maxBytes int, room func(n int) []byte) ([]RecordBatch, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	found := batchPool.Get().(*[]batch)
	defer func() {
		*found = (*found)[:0]
		batchPool.Put(found)
	}()
	maxBytes = min(maxBytes, maxReadBytes)
	for {
		l.mu.RLock()
		shape := l.shape
		l.mu.RUnlock()
		out, err := l.read(off, maxBytes, found, room)
		if err == nil {
			return out, nil
		}
		if !l.reshaped(shape) {
			var corrupt *CorruptError
			if errors.As(err, &corrupt) && corrupt.Index != 0 {
				err = l.examine(corrupt.Index, err)
			}
			return nil, err
		}
		// Retention or a reset took the file from under us: look again.
	}
}

func (l *Log) read(off uint64, maxBytes int, list *[]batch, room func(int) []byte) ([]RecordBatch, error) {
	found, err := l.lookup(off, maxBytes, (*list)[:0])
	*list = found
	if err != nil {
		return nil, err
	}
	out := make([]RecordBatch, 0, len(found))
	l.mu.RLock()
	if l.closed {
		l.mu.RUnlock()
		return nil, ErrClosed
	}
	for i := range found {
		b := &found[i]
		it, ok := l.cache.get(b.Index)
		if !ok {
			break
		}
		if out, ok = b.cut(out, it.entry.Data); !ok {
			l.mu.RUnlock()
			return nil, l.misplaced(b)
		}
	}
	if len(out) > 0 {
		l.mu.RUnlock()
		l.metrics.hits.Inc()
		return out, nil
	}
	first := found[0].Index
	if first <= l.start.Index || first > l.last.index {
		l.mu.RUnlock()
		return nil, l.misplaced(&found[0])
	}
	if d := l.inDamage(first); d != nil {
		l.mu.RUnlock()
		return nil, d.corrupt(first)
	}
	s := l.acquire(first)
	// Batches of the next segment are for the next Read.
	if i := sort.Search(len(l.segments), func(i int) bool { return l.segments[i].first > first }); i < len(l.segments) {
		next := l.segments[i].first
		found = found[:sort.Search(len(found), func(i int) bool { return found[i].Index >= next })]
	}
	l.mu.RUnlock()
	defer s.handle.drop()
	l.metrics.misses.Inc()
	return l.readFrames(s, near(found, int64(maxBytes)), out, room)
}

// lookup appends to dst the batches of the index from the one that contains
// off on, maxBytes of records, at least one.
func (l *Log) lookup(off uint64, maxBytes int, dst []batch) ([]batch, error) {
	l.mu.RLock()
	if l.closed {
		l.mu.RUnlock()
		return dst, ErrClosed // the files are not listed any more
	}
	if off < l.lowest || off >= l.visible {
		err := &OutOfRangeError{Offset: off, Lowest: l.lowest, Next: l.visible}
		l.mu.RUnlock()
		return dst, err
	}
	if len(l.recent) > 0 && off >= l.recent[0].FirstOffset {
		defer l.mu.RUnlock()
		n := sort.Search(len(l.recent), func(i int) bool { return l.recent[i].FirstOffset > off })
		for i := n - 1; i < len(l.recent); i++ {
			b := &l.recent[i]
			if maxBytes -= int(b.Len); maxBytes < 0 && len(dst) > 0 {
				break
			}
			dst = append(dst, *b)
		}
		return dst, nil
	}
	n := sort.Search(len(l.sealed), func(i int) bool { return l.sealed[i].first > off })
	f := l.sealed[n-1]
	if !f.handle.acquire() {
		panic(fmt.Sprintf("commitlog: listed offset file %s is closed", f.name))
	}
	l.mu.RUnlock()
	defer f.handle.drop()
	i, err := f.search(func(b *batch) bool { return b.FirstOffset > off })
	if err != nil {
		return dst, l.blame(f, err)
	}
	for i--; i < f.count; i++ {
		b, err := f.at(max(i, 0))
		if err != nil && len(dst) > 0 {
			break // the next Read reports it
		}
		if err != nil {
			return dst, l.blame(f, err)
		}
		if maxBytes -= int(b.Len); maxBytes < 0 && len(dst) > 0 {
			break
		}
		dst = append(dst, b)
	}
	return dst, nil
}

// near drops from the end of found, but for the first, what is too far away for one
// pread: between two batches there may be any number of entries without any.
func near(found []batch, maxBytes int64) []batch {
	n := len(found)
	for n > 1 && found[n-1].frameEnd()-found[0].place > 2*maxBytes+readSlack {
		n--
	}
	return found[:n]
}

// frameEnd is where the frame that b is in ends at the earliest.
func (b *batch) frameEnd() int64 { return b.place + frameBytes(int(b.Pos)+int(b.Len)) }

// readFrames reads what the batches lead to in s with one pread, more only
// when the first frame is longer than its batches told.
func (l *Log) readFrames(s *segment, found []batch, out []RecordBatch, room func(int) []byte) ([]RecordBatch, error) {
	begin := point{found[0].Index, found[0].place}
	last := &found[len(found)-1]
	limit := s.frameEnd()
	end := min(last.frameEnd(), limit)
	if begin.place < segmentHeaderBytes || end < begin.place+frameHeaderBytes {
		end = begin.place
	}
	var buf []byte
	if end > begin.place {
		buf = room(int(end - begin.place))
	}
	n, err := s.handle.file.ReadAt(buf, begin.place)
	if n < len(buf) && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s at %d: %w", s.path, begin.place, shortRead(n, len(buf), err))
	}
	clear(buf[n:]) // where the file is too short, zeros stand, and do not verify
	h, ok := decodeHeader(buf, s.id, begin.place)
	if !ok || h.index != begin.index {
		// The index is wrong, or the frame damaged: the segment decides.
		e, err := s.entry(begin.index)
		if err != nil {
			return nil, err
		}
		return l.cutAll(out, found, e)
	}
	if n := h.bytes(); n > int64(len(buf)) {
		whole := room(int(n))
		if err := readFull(s.handle.file, whole[copy(whole, buf):], begin.place+int64(len(buf))); errors.Is(err, io.EOF) {
			return nil, s.corrupt(begin, "the file is too short")
		} else if err != nil {
			return nil, fmt.Errorf("read %s at %d: %w", s.path, begin.place, err)
		}
		buf = whole
	}
	for len(found) > 0 {
		p := point{found[0].Index, found[0].place}
		at := p.place - begin.place
		if at < 0 || at+frameHeaderBytes > int64(len(buf)) {
			break
		}
		h, ok := decodeHeader(buf[at:], s.id, p.place)
		if !ok || at+h.bytes() > int64(len(buf)) {
			if ok || len(out) > 0 {
				break // not all of it was read; the next Read begins with it
			}
			return nil, s.corrupt(p, "frame header checksum")
		}
		e, err := s.verified(buf[at:], p)
		if err != nil {
			if len(out) > 0 {
				break // the next Read reports it
			}
			return nil, err
		}
		if out, err = l.cutAll(out, found, e); err != nil {
			return nil, err
		}
		for found = found[1:]; len(found) > 0 && found[0].Index == e.Index; {
			found = found[1:]
		}
	}
	return out, nil
}

// cutAll appends the batches at the head of found that are in e.
func (l *Log) cutAll(out []RecordBatch, found []batch, e Entry) ([]RecordBatch, error) {
	for i := range found {
		if found[i].Index != e.Index {
			break
		}
		var ok bool
		if out, ok = found[i].cut(out, e.Data); !ok {
			return nil, l.misplaced(&found[i])
		}
	}
	return out, nil
}

// cut appends b, its records taken from its entry's data.
func (b *batch) cut(out []RecordBatch, data []byte) ([]RecordBatch, bool) {
	end := uint64(b.Pos) + uint64(b.Len)
	if end > uint64(len(data)) {
		return out, false
	}
	return append(out, RecordBatch{
		FirstOffset: b.FirstOffset,
		Count:       b.Count,
		Timestamp:   b.Timestamp,
		Records:     data[b.Pos:end:end],
	}), true
}

// misplaced says that the index leads to no such records.
func (l *Log) misplaced(b *batch) error {
	return &CorruptError{Path: l.dir, Index: b.Index,
		Reason: fmt.Sprintf("the offset index places offset %d where its entry has no records", b.FirstOffset)}
}

// OffsetAt returns the lowest readable offset whose batch has a timestamp at
// or after unixNano; Visible when none has.
func (l *Log) OffsetAt(unixNano int64) uint64 {
	late := func(b *batch) bool { return b.newest >= unixNano }
	l.mu.RLock()
	lowest := l.lowest
	i := sort.Search(len(l.sealed), func(i int) bool { return l.sealed[i].newest >= unixNano })
	if i == len(l.sealed) {
		defer l.mu.RUnlock()
		n := sort.Search(len(l.recent), func(i int) bool { return late(&l.recent[i]) })
		if n == len(l.recent) {
			return max(l.visible, lowest)
		}
		return max(l.recent[n].FirstOffset, lowest)
	}
	f := l.sealed[i]
	held := f.handle.acquire()
	l.mu.RUnlock()
	if !held {
		return max(f.first, lowest) // closed
	}
	defer f.handle.drop()
	n, err := f.search(late)
	if err != nil || n == f.count {
		return max(f.first, lowest) // damaged: too early is safe
	}
	b, err := f.at(n)
	if err != nil {
		return max(f.first, lowest)
	}
	return max(b.FirstOffset, lowest)
}
