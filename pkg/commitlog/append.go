package commitlog

import (
	"errors"
	"slices"
	"syscall"
	"time"

	"github.com/logd-io/logd/pkg/vfs"
)

// maxKeptBuffer is how large the encode buffer may stay between calls.
const maxKeptBuffer = 8 << 20

// spare is a preallocated segment without a header or a first index.
type spare struct {
	id   uint64
	size int64
	file vfs.File
}

// Append stores the entries, which must follow the last one, in one write and
// one sync, and returns when they are durable. A call that crosses the end of
// a segment syncs the old one first. It keeps the entries' data, not the slice.
//
// *GapError, *TermError, *TooLargeError, *DamagedError and *NoSpaceError change nothing; any
// other failure is fatal, and after a crash any prefix may be there.
func (l *Log) Append(entries []Entry) error {
	if err := l.append(entries); err != nil {
		return l.report(err)
	}
	// Declared failed while the disk was at something: nobody may hear of success.
	if f := l.failed.Load(); f != nil {
		return f
	}
	return nil
}

func (l *Log) append(entries []Entry) error {
	l.writing.Lock()
	defer l.finish()
	if err := l.check(); err != nil {
		return err
	}
	if len(entries) == 0 {
		return nil
	}
	if err := l.refuse(); err != nil {
		return err
	}
	// Only a holder of the writing lock changes last.
	prev := l.last
	if err := follow(prev, entries); err != nil {
		return err
	}
	if err := l.reserve(entries); err != nil {
		return err
	}
	begin := time.Now()
	end, err := l.write(prev, entries)
	if err != nil {
		return err
	}
	if f := l.failed.Load(); f != nil {
		return f
	}
	if err := l.writeDurable(end); err != nil {
		return err
	}
	if f := l.failed.Load(); f != nil {
		return f
	}
	l.mu.Lock()
	for i := range entries {
		l.cache.push(&entries[i], l.placed[i])
	}
	l.last = tail{end.index, end.term}
	l.mu.Unlock()
	l.metrics.append.Observe(time.Since(begin).Seconds())
	l.metrics.entries.Add(float64(len(entries)))
	if cap(l.buf) > maxKeptBuffer {
		l.buf = nil
	}
	return l.prepare()
}

// follow checks that the entries may stand behind prev.
func follow(prev tail, entries []Entry) error {
	for i := range entries {
		e := &entries[i]
		switch {
		case e.Index != prev.index+1:
			return &GapError{Want: prev.index + 1, Got: e.Index}
		case e.Term < prev.term:
			return &TermError{Index: e.Index, Term: e.Term, Previous: prev.term}
		case len(e.Data) > MaxEntryBytes:
			return &TooLargeError{Index: e.Index, Bytes: uint64(len(e.Data))}
		}
		prev = tail{e.Index, e.Term}
	}
	return nil
}

// reserve makes sure that every segment the entries need is preallocated, so
// that a full disk is met before anything is written.
func (l *Log) reserve(entries []Entry) error {
	var place, size int64
	if l.active != nil {
		place, size = l.active.end, l.active.size
	}
	need := 0
	for i := range entries {
		n := frameBytes(len(entries[i].Data))
		if place+n > size {
			size = max(l.options.SegmentBytes, segmentHeaderBytes+n)
			if err := l.preallocate(need, size); err != nil {
				return err
			}
			need++
			place = segmentHeaderBytes
		}
		place += n
	}
	return nil
}

// preallocate makes the nth spare at least size bytes long.
func (l *Log) preallocate(nth int, size int64) error {
	if nth == len(l.spares) {
		id := l.nextID()
		p := l.path(freeName(id))
		f, err := l.fs.Create(p)
		if err != nil {
			return l.noSpace("create", p, err)
		}
		l.spares = append(l.spares, spare{id: id, file: f})
	}
	s := &l.spares[nth]
	if s.size >= size {
		return nil
	}
	if err := s.file.Allocate(size); err != nil {
		return l.noSpace("allocate", l.path(freeName(s.id)), err)
	}
	l.spareBytes.Add(size - s.size)
	s.size = size
	return nil
}

// noSpace tells a full disk from a broken one.
func (l *Log) noSpace(op, path string, err error) error {
	if isFull(err) {
		return &NoSpaceError{Err: err}
	}
	return l.fatal(op, path, err)
}

func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// prepare preallocates the next segment when the active one is half full. A
// full disk is then told by Stats, and by the Append that needs the segment.
func (l *Log) prepare() error {
	ready := len(l.spares) > 0 && l.spares[0].size > 0
	l.spareReady.Store(ready)
	if ready || l.active.end < l.active.size/2 {
		return nil
	}
	var full *NoSpaceError
	err := l.preallocate(0, l.options.SegmentBytes)
	if errors.As(err, &full) {
		l.metrics.noSpace.Inc()
		return nil
	}
	l.spareReady.Store(err == nil)
	return err
}

// write puts the entries behind prev, a write and a sync for each segment they
// touch, and returns the new durable end.
func (l *Log) write(prev tail, entries []Entry) (durableEnd, error) {
	// A frame says only what is known of entries already stored.
	commit := min(l.committed.Load(), prev.index)
	l.buf, l.points, l.placed = l.buf[:0], l.points[:0], l.placed[:0]
	var place int64
	if l.active != nil {
		place = l.active.end
	}
	for i := range entries {
		e := &entries[i]
		n := frameBytes(len(e.Data))
		switch {
		case l.active == nil || place+n > l.active.size:
			if err := l.seal(place); err != nil {
				return durableEnd{}, err
			}
			if err := l.roll(prev); err != nil {
				return durableEnd{}, err
			}
			place = segmentHeaderBytes
		case len(l.points) > maxOrdinal:
			if err := l.flush(place); err != nil {
				return durableEnd{}, err
			}
		}
		l.buf = appendFrame(l.buf, e, l.active.id, place, uint16(len(l.points)), commit)
		l.points = append(l.points, point{e.Index, place})
		l.placed = append(l.placed, place)
		place += n
		prev = tail{e.Index, e.Term}
	}
	err := l.flush(place)
	return durableEnd{index: prev.index, term: prev.term, id: l.active.id, place: place}, err
}

// flush writes what is encoded, up to end, and syncs it.
func (l *Log) flush(end int64) error {
	if err := l.writeBuf(end); err != nil {
		return err
	}
	if err := l.syncFile(l.active.handle.file, l.active.path); err != nil {
		return err
	}
	l.active.extend(end, l.points)
	l.buf, l.points = l.buf[:0], l.points[:0]
	return nil
}

func (l *Log) writeBuf(end int64) error {
	if len(l.buf) == 0 {
		return nil
	}
	n, err := l.active.handle.file.WriteAt(l.buf, end-int64(len(l.buf)))
	if err != nil || n < len(l.buf) {
		return l.fatal("write", l.active.path, shortWrite(err))
	}
	l.metrics.bytes.Add(float64(n))
	return nil
}

// seal ends the active segment at end: everything in it is durable before the
// next one exists.
func (l *Log) seal(end int64) error {
	s := l.active
	if s == nil {
		return nil
	}
	if err := l.writeBuf(end); err != nil {
		return err
	}
	if end < s.size {
		if err := s.handle.file.Truncate(end); err != nil {
			return l.fatal("truncate", s.path, err)
		}
	}
	if err := l.syncFile(s.handle.file, s.path); err != nil {
		return err
	}
	s.extend(end, l.points)
	s.mu.Lock()
	s.size = end
	s.mu.Unlock()
	l.buf, l.points = l.buf[:0], l.points[:0]
	return nil
}

// roll turns a spare into the active segment, whose first entry follows prev.
func (l *Log) roll(prev tail) error {
	sp := l.spares[0]
	first := prev.index + 1
	free, name := l.path(freeName(sp.id)), segmentName(first, sp.id)
	n, err := sp.file.WriteAt(encodeSegmentHeader(first, prev.index, prev.term, sp.id), 0)
	if err != nil || n < segmentHeaderBytes {
		return l.fatal("write", free, shortWrite(err))
	}
	if err := sp.file.Sync(); err != nil {
		return l.fatal("sync", free, err)
	}
	switch err := l.fs.Rename(free, l.path(name)); {
	case isFull(err) && prev.index == l.last.index:
		// No room for a longer name, and nothing of this call is written.
		return &NoSpaceError{Err: err}
	case err != nil:
		return l.fatal("rename", free, err)
	}
	if err := l.syncDir(); err != nil {
		return err
	}
	s := &segment{
		name: name, path: l.path(name), id: sp.id, handle: newHandle(sp.file),
		first: first, prevIndex: prev.index, prevTerm: prev.term,
		size: sp.size, end: segmentHeaderBytes,
	}
	s.trust = l.options.Planted.TrustPayloads
	l.spares = slices.Delete(l.spares, 0, 1)
	l.spareBytes.Add(-sp.size)
	l.active = s
	l.mu.Lock()
	l.segments = append(slices.Clone(l.segments), s)
	l.mu.Unlock()
	l.metrics.segments.Inc()
	return nil
}
