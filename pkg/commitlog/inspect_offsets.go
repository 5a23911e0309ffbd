package commitlog

import (
	"encoding/binary"
	"fmt"

	"github.com/logd-io/logd/pkg/vfs"
)

// OffsetRecords reads every byte of the offset index and calls each for every
// record that verifies, in offset order, up to the first that does not: the
// index ends there. An error of each ends it.
func (n *Inspection) OffsetRecords(each func(*OffsetRecord) error) error {
	next, whole := uint64(0), false // where the index ends; whole: a file was read
	newest := int64(0)
	for i := range n.Offsets {
		o := &n.Offsets[i]
		b, err := vfs.ReadFile(n.fs, n.path(o.File))
		if err != nil {
			return fmt.Errorf("read %s: %w", n.path(o.File), err)
		}
		le := binary.LittleEndian
		switch {
		case len(b) < offsetRecordBytes || string(b[:8]) != offsetMagic || crc(b[:24]) != le.Uint32(b[24:]) || !allZeros(b[28:offsetRecordBytes]):
			n.find(FindOffsets, o.File, 0, 0, "header does not verify")
			return nil
		case le.Uint64(b[8:]) != o.First:
			n.find(FindOffsets, o.File, 8, 0, "belongs to another file")
			return nil
		case le.Uint64(b[16:]) != n.Floor:
			return nil // of a log that was emptied
		case whole && o.First != next, !whole && o.First > n.Start.Offset:
			n.find(FindOffsets, o.File, 0, 0, fmt.Sprintf("begins with offset %d where %d must come next", o.First, max(next, n.Start.Offset)))
			return nil
		}
		next, whole = o.First, true
		for at := int64(offsetRecordBytes); at < int64(len(b)); at += offsetRecordBytes {
			rest := b[at:]
			var r batch
			ok := len(rest) >= offsetRecordBytes
			if ok {
				r, ok = decodeBatch(rest)
			}
			switch {
			case !ok || !allZeros(rest[52:offsetRecordBytes]):
				n.find(FindOffsets, o.File, at, 0, fmt.Sprintf("record of offset %d does not verify", next))
				return nil
			case r.FirstOffset != next || r.newest < max(newest, r.Timestamp):
				n.find(FindOffsets, o.File, at, r.Index, fmt.Sprintf("record of offset %d where %d must come next", r.FirstOffset, next))
				return nil
			}
			next, newest = r.next(), r.newest
			err := each(&OffsetRecord{Applied: r.Applied, Newest: r.newest, Place: r.place, File: o.File, FilePlace: at})
			if err != nil {
				return err
			}
		}
	}
	return nil
}
