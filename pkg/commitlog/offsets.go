package commitlog

import (
	"errors"
	"fmt"
	"slices"
	"sort"
)

// recoverOffsets opens what is usable of the offset index: from the start on,
// without a gap, up to the first damage. The rest is removed, and published
// again when the state machine replays.
func (l *Log) recoverOffsets() error {
	names, err := l.fs.List(l.dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", l.dir, err)
	}
	names = sortOffsetNames(names)
	next := l.start.Offset
	l.visible, l.lowest = next, next
	for i, name := range names {
		usable, err := l.recoverOffsetFile(name, i+1 == len(names))
		if err != nil {
			return err
		}
		gone := names[i:]
		switch {
		case usable && l.offsetFile == nil:
			continue
		case usable:
			// It is the newest; or Rewind cut it, and a crash kept those behind.
			gone = gone[1:]
		default:
			l.logger.Warn("dropping the offset index from here on", "file", name, "next", l.visible)
		}
		for _, name := range gone {
			if err := l.remove(name); err != nil {
				return err
			}
		}
		break
	}
	if l.offsetFile == nil && len(l.sealed) > 0 {
		return l.unseal()
	}
	return nil
}

// recoverOffsetFile adds one file to the index; false when it does not fit.
func (l *Log) recoverOffsetFile(name string, newest bool) (bool, error) {
	var known uint64 // where the index ends; only the first file may begin below
	if n := len(l.sealed); n > 0 {
		known = l.sealed[n-1].next
	}
	f, ok, err := l.openOffsetFile(name)
	drop := func() (bool, error) {
		if f == nil {
			return false, err
		}
		return false, errors.Join(err, f.handle.release())
	}
	switch {
	case err != nil:
		return drop()
	case !ok:
		// Of a log that was emptied since, or damaged: it goes alone. Whether those
		// behind it fit without it shows when they are looked at.
		if _, err := drop(); err != nil {
			return false, err
		}
		return true, l.remove(name)
	case len(l.sealed) > 0 && f.first != known:
		return drop()
	case len(l.sealed) == 0 && f.first > l.start.Offset:
		return drop()
	}
	sealed := false
	if !newest {
		if err = l.openSealed(f); err != nil && !errors.Is(err, errDamagedIndex) {
			return drop()
		}
		sealed = err == nil
	}
	if sealed && f.next <= l.start.Offset {
		// SetStart removed it together with the ones behind, and a crash kept it.
		return true, l.discardOffsets(f)
	}
	if sealed {
		l.sealed = append(l.sealed, f)
		l.visible = f.next
		return true, nil
	}
	recs, err := f.load()
	if err != nil {
		return drop()
	}
	if f.next < l.start.Offset {
		return drop()
	}
	if err := f.handle.file.Truncate(f.place(len(recs))); err != nil {
		return false, l.fatal("truncate", f.path, err)
	}
	l.offsetFile, l.recent, l.visible = f, recs, f.next
	return true, nil
}

// unseal makes the newest sealed file the one that gets the next batch. Readers
// see it as the one or as the other, never as neither.
func (l *Log) unseal() error {
	sealed := l.sealed[len(l.sealed)-1]
	f, ok, err := l.openOffsetFile(sealed.name)
	if err == nil && !ok {
		err = &CorruptError{Path: sealed.path, Reason: "offset file changed while open"}
	}
	var recs []batch
	if err == nil {
		recs, err = f.load()
	}
	if err != nil {
		if f != nil {
			err = errors.Join(err, f.handle.release())
		}
		return err
	}
	l.offsetFile = f
	l.mu.Lock()
	l.sealed = slices.Clone(l.sealed[:len(l.sealed)-1])
	l.forgetOffsets(sealed.first, ^uint64(0))
	l.recent, l.visible = recs, f.next
	l.mu.Unlock()
	if err := sealed.handle.release(); err != nil {
		return fmt.Errorf("close %s: %w", sealed.path, err)
	}
	return nil
}

// Publish makes batches readable, in offset order: it extends the offset
// index, moves Visible, and wakes who waits. Batches below Visible are skipped,
// as a replay repeats them; a gap is an *OffsetGapError. Nothing is synced, and
// on a full disk nothing is written until there is room.
func (l *Log) Publish(batches []Applied) error { return l.report(l.publish(batches)) }

func (l *Log) publish(batches []Applied) error {
	l.publishing.Lock()
	defer l.publishing.Unlock()
	if err := l.check(); err != nil {
		return err
	}
	// Only a holder of the publishing lock changes what is read here.
	next := l.visible
	newest := l.newestTime()
	applied := uint64(0)
	l.fresh = l.fresh[:0]
	for i := range batches {
		b := batch{Applied: batches[i]}
		applied = max(applied, b.Index)
		if b.Count == 0 || b.next() <= next {
			continue
		}
		if b.FirstOffset != next {
			return &OffsetGapError{Want: next, Got: b.FirstOffset}
		}
		place, err := l.placeOf(b.Index)
		if err != nil {
			return fmt.Errorf("publish offset %d in entry %d: %w", b.FirstOffset, b.Index, err)
		}
		newest = max(newest, b.Timestamp)
		b.place, b.newest = place, newest
		l.fresh = append(l.fresh, b)
		next = b.next()
	}
	if len(l.fresh) > 0 {
		if err := l.show(); err != nil {
			return err
		}
	}
	l.SetCommitted(applied)
	if applied > l.applied.Load() {
		l.applied.Store(applied)
	}
	return nil
}

// newestTime is the highest timestamp published.
func (l *Log) newestTime() int64 {
	switch {
	case len(l.recent) > 0:
		return l.recent[len(l.recent)-1].newest
	case len(l.sealed) > 0:
		return l.sealed[len(l.sealed)-1].newest
	}
	return 0
}

// show makes the fresh batches readable and writes them to the index's files. A
// full disk keeps them in memory alone: the index is derived, and a node must not
// end for it.
func (l *Log) show() error {
	l.mu.Lock()
	l.recent = append(l.recent, l.fresh...)
	l.visible = l.recent[len(l.recent)-1].next()
	l.wake()
	l.mu.Unlock()
	l.unwritten += len(l.fresh)
	var full *NoSpaceError
	if err := l.writeOffsets(); !errors.As(err, &full) {
		return err
	}
	if l.metrics.noSpace.Inc(); l.unwritten == len(l.fresh) {
		l.logger.Warn("the disk is full: the offset index grows in memory only", "err", full)
	}
	return nil
}

// writeOffsets brings the files of the index up to recent. A *NoSpaceError leaves
// what is missing to the next call.
func (l *Log) writeOffsets() error {
	for l.unwritten > 0 {
		written := len(l.recent) - l.unwritten
		switch {
		case l.offsetFile == nil:
			f, err := l.createOffsetFile(l.recent[0].FirstOffset)
			if err != nil {
				return err
			}
			l.offsetFile = f
		case written >= l.options.OffsetBatches:
			if err := l.sealOffsets(written); err != nil {
				return err
			}
		default:
			n := min(l.unwritten, l.options.OffsetBatches-written)
			if err := l.writeBatches(l.recent[written:written+n], written); err != nil {
				return err
			}
			l.unwritten -= n
		}
	}
	return nil
}

// writeBatches writes batches behind the first n of the newest file.
func (l *Log) writeBatches(batches []batch, n int) error {
	f := l.offsetFile
	l.offsetBuf = l.offsetBuf[:0]
	for i := range batches {
		l.offsetBuf = appendBatch(l.offsetBuf, &batches[i])
	}
	switch n, err := f.handle.file.WriteAt(l.offsetBuf, f.place(n)); {
	case isFull(err):
		return &NoSpaceError{Err: err} // what was written is written again
	case err != nil || n < len(l.offsetBuf):
		return l.fatal("write", f.path, shortWrite(err))
	}
	return nil
}

// sealOffsets syncs the newest file, which holds the first n of recent, and maps
// it; the next batch begins another.
func (l *Log) sealOffsets(n int) error {
	f := l.offsetFile
	if err := f.handle.file.Sync(); err != nil {
		return l.fatal("sync", f.path, err)
	}
	if !f.synced {
		if err := l.syncDir(); err != nil {
			return err
		}
	}
	if err := l.mapFile(f); err != nil {
		return l.fatal("map", f.path, err)
	}
	last := &l.recent[n-1]
	f.count, f.next, f.newest = n, last.next(), last.newest
	l.offsetFile = nil
	l.mu.Lock()
	l.sealed = append(slices.Clone(l.sealed), f)
	l.recent = slices.Clone(l.recent[n:])
	l.mu.Unlock()
	return nil
}

// placeOf returns the place of the entry at index in its segment.
func (l *Log) placeOf(index uint64) (int64, error) {
	for {
		l.mu.RLock()
		if index <= l.start.Index || index > l.last.index || l.closed {
			l.mu.RUnlock()
			return 0, ErrNotFound
		}
		if it, ok := l.cache.get(index); ok {
			place := it.place
			l.mu.RUnlock()
			return place, nil
		}
		if d := l.inDamage(index); d != nil && !d.Pinned {
			l.mu.RUnlock()
			return 0, d.corrupt(index)
		}
		s, shape := l.acquire(index), l.shape
		l.mu.RUnlock()
		p, _, err := s.find(index)
		s.handle.drop()
		if err == nil || !l.reshaped(shape) {
			return p.place, err
		}
	}
}

// Rewind drops the offset index from the offset next on: the state machine was
// restored to a checkpoint that ends there, and will publish the rest again.
// It is called once after Open, before anything is served. An
// *OffsetGapError says that the index does not reach next, through damage, or
// that no batch begins there: an earlier checkpoint has to be restored.
func (l *Log) Rewind(next uint64) error { return l.report(l.rewind(next)) }

func (l *Log) rewind(next uint64) error {
	l.publishing.Lock()
	defer l.publishing.Unlock()
	if err := l.check(); err != nil {
		return err
	}
	if l.unwritten > 0 {
		// A checkpoint holds none of these: it syncs the index first.
		written := len(l.recent) - l.unwritten
		l.mu.Lock()
		l.visible = l.recent[written].FirstOffset
		l.recent = l.recent[:written:written]
		l.mu.Unlock()
		l.unwritten = 0
	}
	if next > l.visible || next < l.start.Offset {
		return &OffsetGapError{Want: l.visible, Got: next}
	}
	for len(l.sealed) > 0 && (l.offsetFile == nil || next <= l.offsetFile.first) {
		f := l.offsetFile
		if err := l.unseal(); err != nil {
			return err
		}
		if f != nil {
			if err := l.discardOffsets(f); err != nil {
				return err
			}
		}
	}
	keep := sort.Search(len(l.recent), func(i int) bool { return l.recent[i].FirstOffset >= next })
	end := next
	if keep > 0 {
		end = l.recent[keep-1].next()
	} else if l.offsetFile != nil {
		end = l.offsetFile.first // if that is lower, its first record does not verify
	}
	if f := l.offsetFile; f != nil {
		if err := f.handle.file.Truncate(f.place(keep)); err != nil {
			return l.fatal("truncate", f.path, err)
		}
	}
	l.mu.Lock()
	l.recent = l.recent[:keep:keep]
	l.visible = min(end, next)
	l.mu.Unlock()
	if end != next {
		return &OffsetGapError{Want: end, Got: next}
	}
	if keep > 0 {
		// The checkpoint holds it: it was applied.
		l.SetCommitted(l.recent[keep-1].Index)
		l.applied.Store(l.recent[keep-1].Index)
	} else {
		l.applied.Store(l.start.Index)
	}
	return nil
}

// Applied is an entry up to which the state machine is for sure: that of the
// newest batch published, or kept by Rewind.
func (l *Log) Applied() uint64 { return l.applied.Load() }

// SyncOffsets makes the index durable as far as it is published: part of every
// checkpoint. Publishing goes on meanwhile. *NoSpaceError: a part is in memory
// alone.
func (l *Log) SyncOffsets() error { return l.report(l.syncOffsets()) }

func (l *Log) syncOffsets() error {
	l.publishing.Lock()
	if err := l.check(); err != nil {
		l.publishing.Unlock()
		return err
	}
	if err := l.writeOffsets(); err != nil {
		l.publishing.Unlock()
		return err
	}
	f := l.offsetFile
	if f == nil || !f.handle.acquire() {
		l.publishing.Unlock()
		return nil // sealed files are synced
	}
	named := f.synced
	l.publishing.Unlock()
	err := f.handle.file.Sync()
	if err != nil {
		err = l.fatal("sync", f.path, err)
	} else if !named {
		err = l.syncDir()
	}
	l.publishing.Lock()
	defer l.publishing.Unlock()
	f.synced = f.synced || err == nil
	f.handle.drop()
	return err
}

// SetLowest raises the lowest readable offset; it never falls.
func (l *Log) SetLowest(off uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lowest = max(l.lowest, off)
}

// Lowest returns the lowest readable offset.
func (l *Log) Lowest() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.lowest
}

// Visible returns the offset the next record gets: what is readable ends
// before it.
func (l *Log) Visible() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.visible
}
