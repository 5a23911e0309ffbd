package commitlog

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/logd-io/logd/pkg/vfs"
)

// OffsetDamage is a sealed file of the offset index that cannot be read
// everywhere: some of the offsets in [First, Next) are not found. The entries
// are not concerned.
type OffsetDamage struct {
	First, Next uint64
	Path        string
	Reason      string
}

// DamagedOffsets returns the files of the offset index known to be damaged,
// rising.
func (l *Log) DamagedOffsets() []OffsetDamage {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return slices.Clone(l.damagedOffsets)
}

// spoiled notes damage to f, once, and tells it; no lock is held.
func (l *Log) spoiled(f *offsetFile, reason string) {
	d := OffsetDamage{First: f.first, Next: f.next, Path: f.path, Reason: reason}
	l.mu.Lock()
	if !slices.Contains(l.sealed, f) || slices.ContainsFunc(l.damagedOffsets, func(o OffsetDamage) bool { return o.First == f.first }) {
		l.mu.Unlock()
		return
	}
	list := append(slices.Clone(l.damagedOffsets), d)
	slices.SortFunc(list, func(a, b OffsetDamage) int {
		if a.First < b.First {
			return -1
		}
		return 1
	})
	l.setDamagedOffsets(list)
	l.mu.Unlock()
	l.tellOffsets(d)
}

// tellOffsets reports damage; no lock is held.
func (l *Log) tellOffsets(d OffsetDamage) {
	l.logger.Error("offset file is damaged", "file", d.Path, "first", d.First, "next", d.Next, "reason", d.Reason)
	if l.options.OnOffsetDamage != nil {
		l.options.OnOffsetDamage(d)
	}
}

// setDamagedOffsets replaces the list; mu is held.
func (l *Log) setDamagedOffsets(list []OffsetDamage) {
	l.damagedOffsets = list
	l.metrics.damagedOffsets.Set(float64(len(list)))
}

// forgetOffsets takes the files that begin in [from, to) off the list; mu is
// held.
func (l *Log) forgetOffsets(from, to uint64) {
	l.setDamagedOffsets(slices.DeleteFunc(slices.Clone(l.damagedOffsets), func(d OffsetDamage) bool { return from <= d.First && d.First < to }))
}

// RepairOffsets makes the sealed file of the offset index that begins at first
// anew, durably. batches are what the state machine accepted of its offsets,
// as once published: it replays them from a checkpoint at or below. An
// *OffsetGapError says that they are not exactly the file's. Readers go on.
func (l *Log) RepairOffsets(first uint64, batches []Applied) error {
	return l.report(l.repairOffsets(first, batches))
}

func (l *Log) repairOffsets(first uint64, batches []Applied) error {
	l.publishing.Lock()
	defer l.publishing.Unlock()
	if err := l.check(); err != nil {
		return err
	}
	i := slices.IndexFunc(l.sealed, func(f *offsetFile) bool { return f.first == first })
	if i < 0 {
		return nil // it is gone meanwhile, or unsealed
	}
	old := l.sealed[i]
	var newest int64
	if i > 0 {
		newest = l.sealed[i-1].newest
	}
	next := first
	b := l.encodeOffsetHeader(first)
	for j := range batches {
		r := batch{Applied: batches[j]}
		if r.FirstOffset != next || r.Count == 0 {
			return &OffsetGapError{Want: next, Got: r.FirstOffset}
		}
		place, err := l.placeOf(r.Index)
		if err != nil {
			return fmt.Errorf("repair offset %d in entry %d: %w", r.FirstOffset, r.Index, err)
		}
		newest = max(newest, r.Timestamp)
		r.place, r.newest = place, newest
		b = appendBatch(b, &r)
		next = r.next()
	}
	if next != old.next || len(batches) != old.count {
		return &OffsetGapError{Want: old.next, Got: next}
	}
	if err := vfs.WriteFileAtomic(l.fs, old.path, b); err != nil {
		return l.noSpace("write", old.path, err)
	}
	file, err := l.fs.OpenReadWrite(old.path)
	if err != nil {
		return l.fatal("open", old.path, err)
	}
	f := &offsetFile{name: old.name, path: old.path, first: first, handle: newHandle(file),
		count: old.count, next: next, newest: newest, synced: true}
	if err := l.mapFile(f); err != nil {
		f.handle.drop()
		return l.fatal("map", f.path, err)
	}
	l.mu.Lock()
	l.sealed = slices.Clone(l.sealed)
	l.sealed[i] = f
	l.forgetOffsets(first, first+1)
	l.mu.Unlock()
	old.handle.drop()
	l.logger.Info("offset file repaired", "file", f.path)
	return nil
}

// encodeOffsetHeader makes the header of the file that begins with first.
func (l *Log) encodeOffsetHeader(first uint64) []byte {
	h := make([]byte, offsetRecordBytes)
	copy(h, offsetMagic)
	binary.LittleEndian.PutUint64(h[8:], first)
	binary.LittleEndian.PutUint64(h[16:], l.start.floor)
	binary.LittleEndian.PutUint32(h[24:], crc(h[:24]))
	return h
}

// blame notes that a read of f met err, and returns it.
func (l *Log) blame(f *offsetFile, err error) error {
	if isCorrupt(err) {
		l.spoiled(f, err.Error())
	}
	return err
}
