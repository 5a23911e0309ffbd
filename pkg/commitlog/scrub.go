package commitlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Scrubbed is the progress of Scrub, over all its passes.
type Scrubbed struct {
	Bytes    uint64    // read and verified since Open
	Position uint64    // entry that the pass under way has reached; 0: none is
	Passes   uint64    // finished since Open
	LastPass time.Time // when the newest one finished
}

// Scrub reads and verifies everything the log has on disk once: segment
// headers, every frame's header and payload up to the durable end, the offset
// index, the start record. It goes on behind damage, which it notes as a read
// would (Damage, OnDamage), and returns when the pass is over, ctx ends (its
// cause), the log closes, or the disk does not read.
//
// The pass begins with the segment that has the entry from, which a pass that was
// cut short had reached (Scrubbed.Position); a log that has no such entry is read
// from its start, as with 0.
//
// pace is called before so many bytes are read, holding no lock, and sets the
// speed by blocking. Scrub may run beside everything else; it fills no cache,
// and skips what is truncated, retained or reset away meanwhile. One pass runs
// at a time.
func (l *Log) Scrub(ctx context.Context, from uint64, pace func(ctx context.Context, bytes int64) error) error {
	l.scrubbing.Lock()
	defer l.scrubbing.Unlock()
	step := func(n int64) error {
		if err := l.check(); err != nil {
			return err
		}
		if err := pace(ctx, n); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		l.mu.Lock()
		l.scrubbed.Bytes += uint64(n)
		l.mu.Unlock()
		l.metrics.scrubBytes.Add(float64(n))
		return nil
	}
	if from > l.Last() {
		from = 0
	}
	for index := from; ; {
		next, err := l.scrubSegment(index, step)
		if err != nil {
			return err
		}
		if next <= index {
			break
		}
		index = next
	}
	if err := l.scrubOffsets(step); err != nil {
		return err
	}
	if err := l.scrubStart(step); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.scrubbed.Position = 0
	l.scrubbed.Passes++
	l.scrubbed.LastPass = time.Now()
	l.metrics.scrubPasses.Inc()
	return nil
}

// scrubSegment verifies the segment that has the entry index, or the first one
// behind it, and returns the entry to go on with: 0 at the end.
func (l *Log) scrubSegment(index uint64, step func(int64) error) (uint64, error) {
	for {
		l.mu.RLock()
		index = max(index, l.start.Index+1)
		if l.closed {
			l.mu.RUnlock()
			return 0, ErrClosed
		}
		if index > l.last.index || len(l.segments) == 0 {
			l.mu.RUnlock()
			return 0, nil
		}
		index = max(index, l.segments[0].first)
		s, next, shape, last := l.acquire(index), l.behind(index), l.shape, l.last
		quarantined := l.quarantined
		l.mu.RUnlock()
		if quarantined {
			s.handle.drop()
			return 0, nil // Open has looked at it all; the rest is for later
		}
		l.mu.Lock()
		l.scrubbed.Position = index
		l.mu.Unlock()
		list, err := l.surveyLive(s, next, last, step)
		s.handle.drop()
		l.mu.RLock()
		same := l.shape == shape
		l.mu.RUnlock()
		switch {
		case !same:
			continue // something was cut or mended meanwhile
		case err != nil:
			return 0, err
		}
		to := last.index
		if next != nil {
			to = next.prevIndex
		}
		if !l.replaceDamage(s.first, to, list, shape) {
			continue
		}
		return to + 1, l.report(l.scrubHeader(s))
	}
}

// scrubHeader verifies a segment's header. What it says is known while the
// segment is open, so it is written again.
func (l *Log) scrubHeader(s *segment) error {
	var b [segmentHeaderBytes]byte
	if !s.handle.acquire() {
		return nil
	}
	defer s.handle.drop()
	l.mu.RLock()
	want := encodeSegmentHeader(s.first, s.prevIndex, s.prevTerm, s.id)
	headless := s.headless
	l.mu.RUnlock()
	err := readFull(s.handle.file, b[:], 0)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return fmt.Errorf("read segment %s: %w", s.path, err)
	case err == nil && bytes.Equal(b[:52], want[:52]), headless:
		return nil
	}
	l.writing.Lock()
	defer l.finish()
	if err := l.check(); err != nil {
		return err
	}
	if !slices.Contains(l.segments, s) {
		return nil
	}
	l.logger.Error("segment header is damaged and written again", "segment", s.name)
	if err := l.writeHeader(s, s.prevTerm); err != nil {
		return err
	}
	return l.syncFile(s.handle.file, s.path)
}

// scrubOffsets verifies the offset index: every record, and that the frame it
// leads to is that of the entry it names.
func (l *Log) scrubOffsets(step func(int64) error) error {
	for from := uint64(0); ; {
		l.mu.RLock()
		i := slices.IndexFunc(l.sealed, func(f *offsetFile) bool { return f.first >= from })
		if i < 0 {
			l.mu.RUnlock()
			break
		}
		f := l.sealed[i]
		held := f.handle.acquire()
		l.mu.RUnlock()
		if !held {
			return ErrClosed
		}
		err := l.scrubOffsetFile(f, step)
		f.handle.drop()
		if err != nil {
			return err
		}
		from = f.first + 1
	}
	return l.report(l.scrubNewest(step))
}

func (l *Log) scrubOffsetFile(f *offsetFile, step func(int64) error) error {
	const some = windowBytes / offsetRecordBytes
	header := make([]byte, offsetRecordBytes)
	if err := readFull(f.handle.file, header, 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: %w", f.path, err)
	}
	l.mu.RLock()
	want := l.encodeOffsetHeader(f.first)
	l.mu.RUnlock()
	if !bytes.Equal(header[:28], want[:28]) {
		l.spoiled(f, "header")
		return nil
	}
	next := f.first
	var buf []byte
	for n := range f.count {
		if n%some == 0 {
			// Read, not mapped: a disk that does not is then an error.
			buf = make([]byte, min(some, f.count-n)*offsetRecordBytes)
			if err := step(int64(len(buf))); err != nil {
				return err
			}
			if err := readFull(f.handle.file, buf, f.place(n)); err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("read %s: %w", f.path, err)
			}
		}
		b, ok := decodeBatch(buf[n%some*offsetRecordBytes:])
		switch {
		case !ok:
			l.spoiled(f, fmt.Sprintf("record %d does not verify", n))
			return nil
		case b.FirstOffset != next:
			l.spoiled(f, fmt.Sprintf("record %d begins at offset %d, not %d", n, b.FirstOffset, next))
			return nil
		}
		next = b.next()
		if reason := l.leads(&b); reason != "" {
			l.spoiled(f, fmt.Sprintf("record %d: %s", n, reason))
			return nil
		}
	}
	return nil
}

// leads says what is wrong with where b leads, when the frame there verifies
// and is another's. Damage to the frame is not the index's.
func (l *Log) leads(b *batch) string {
	l.mu.RLock()
	if b.Index <= l.start.Index || l.closed {
		l.mu.RUnlock()
		return "" // below the start: it goes with its file
	}
	if b.Index > l.last.index {
		l.mu.RUnlock()
		return fmt.Sprintf("there is no entry %d", b.Index)
	}
	if l.inDamage(b.Index) != nil || l.segments[0].first > b.Index {
		l.mu.RUnlock()
		return ""
	}
	s := l.acquire(b.Index)
	l.mu.RUnlock()
	defer s.handle.drop()
	var raw [frameHeaderBytes]byte
	if b.place < segmentHeaderBytes || readFull(s.handle.file, raw[:], b.place) != nil {
		return "it leads outside its segment"
	}
	h, ok := decodeHeader(raw[:], s.id, b.place)
	switch {
	case !ok:
		if _, _, err := s.find(b.Index); err != nil {
			return "" // the frame is damaged, not the index
		}
		return "it leads to no frame"
	case h.index != b.Index:
		return fmt.Sprintf("it leads to entry %d, not %d", h.index, b.Index)
	case uint64(b.Pos)+uint64(b.Len) > uint64(h.length):
		return "it leads behind its entry's data"
	}
	return ""
}

// scrubNewest compares the newest file of the offset index with what is known
// of it in memory, and writes what differs again.
func (l *Log) scrubNewest(step func(int64) error) error {
	l.publishing.Lock()
	f := l.offsetFile
	n := len(l.recent) - l.unwritten
	l.publishing.Unlock()
	if f == nil {
		return nil
	}
	if err := step(f.place(n)); err != nil {
		return err
	}
	l.publishing.Lock()
	defer l.publishing.Unlock()
	if err := l.check(); err != nil {
		return err
	}
	if l.offsetFile != f {
		return nil // sealed meanwhile: the next pass reads it
	}
	want := l.encodeOffsetHeader(f.first)
	for i := range l.recent[:len(l.recent)-l.unwritten] {
		want = appendBatch(want, &l.recent[i])
	}
	got := make([]byte, len(want))
	err := readFull(f.handle.file, got, 0)
	if err == nil && bytes.Equal(got, want) {
		return nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: %w", f.path, err)
	}
	l.logger.Error("offset file is damaged and written again", "file", f.path)
	if n, err := f.handle.file.WriteAt(want, 0); err != nil || n < len(want) {
		return l.fatal("write", f.path, shortWrite(err))
	}
	if err := f.handle.file.Sync(); err != nil {
		return l.fatal("sync", f.path, err)
	}
	return nil
}

// scrubStart compares the start record and its copy with what is known, and
// writes what differs again.
func (l *Log) scrubStart(step func(int64) error) error {
	if err := step(2 * smallBytes); err != nil {
		return err
	}
	return l.report(func() error {
		l.writing.Lock()
		defer l.finish()
		if err := l.check(); err != nil {
			return err
		}
		if l.start == (startRecord{}) {
			return nil // there is none
		}
		for _, name := range []string{startFile, startCopy} {
			r, state, err := l.readStartFile(name)
			if err != nil {
				return err
			}
			if state == startGood && r == l.start {
				continue
			}
			l.logger.Error("start record is damaged and written again", "file", name)
			if err := l.writeStartFile(name, l.start); err != nil {
				return err
			}
		}
		return nil
	}())
}
