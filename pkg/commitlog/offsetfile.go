package commitlog

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/logd-io/logd/pkg/vfs"
)

// The offset index is files <first offset>.off (decimal), little endian: a
// header, then a record for each applied batch, in offset order.
//
//	 0        8       16       24    28     56
//	+--------+-------+--------+-----+-------+
//	| magic  | first | floor  | crc | zeros |     header
//	|        | u64   | u64    | u32 |       |
//	+--------+-------+--------+-----+-------+
//	 0        8       16      24         32     36    40    44      48    52   56
//	+--------+-------+-------+----------+------+-----+-----+-------+-----+------+
//	| first  | entry | time  | newest   | count| pos | len | place | crc | zero |
//	| offset | index | i64   | time i64 | u32  | u32 | u32 | /8 u32| u32 | u32  |
//	+--------+-------+-------+----------+------+-----+-----+-------+-----+------+
//
// newest time is the highest time so far, so that it can be searched by. place
// is the entry's frame within its segment; pos and len are the batch's records
// within the entry's data. floor is that of the start record the file was made
// under.
//
// These files are derived and never trusted: they are made in place and synced
// late, a record that does not verify ends the index, and what one leads to
// counts only if the frame there says that it is the entry.
const (
	offsetMagic       = "LOGDOFF1"
	offsetRecordBytes = 56 // the header is as long
	offsetSuffix      = ".off"
)

// batch is a record of the offset index.
type batch struct {
	Applied
	newest int64 // highest Timestamp of this and all earlier batches
	place  int64 // of the entry's frame in its segment
}

func (b *batch) next() uint64 { return b.FirstOffset + uint64(b.Count) }

func appendBatch(buf []byte, b *batch) []byte {
	var r [offsetRecordBytes]byte
	le := binary.LittleEndian
	le.PutUint64(r[0:], b.FirstOffset)
	le.PutUint64(r[8:], b.Index)
	le.PutUint64(r[16:], uint64(b.Timestamp))
	le.PutUint64(r[24:], uint64(b.newest))
	le.PutUint32(r[32:], b.Count)
	le.PutUint32(r[36:], b.Pos)
	le.PutUint32(r[40:], b.Len)
	le.PutUint32(r[44:], uint32(b.place/frameAlign))
	le.PutUint32(r[48:], crc(r[:48]))
	return append(buf, r[:]...)
}

// decodeBatch decodes the record that r begins with.
func decodeBatch(r []byte) (b batch, ok bool) {
	le := binary.LittleEndian
	b = batch{
		Applied: Applied{
			FirstOffset: le.Uint64(r[0:]),
			Index:       le.Uint64(r[8:]),
			Timestamp:   int64(le.Uint64(r[16:])),
			Count:       le.Uint32(r[32:]),
			Pos:         le.Uint32(r[36:]),
			Len:         le.Uint32(r[40:]),
		},
		newest: int64(le.Uint64(r[24:])),
		place:  int64(le.Uint32(r[44:])) * frameAlign,
	}
	return b, b.Count > 0 && crc(r[:48]) == le.Uint32(r[48:])
}

// offsetFile is a file of the offset index.
type offsetFile struct {
	name   string
	path   string
	first  uint64 // offset it begins with
	handle *handle
	// Of a sealed file; the log keeps those of the newest in memory.
	count  int
	next   uint64 // offset it ends before
	newest int64  // highest time in it and before it
	data   []byte // its records, mapped; nil where the FS maps nothing
	synced bool   // of the newest file: its name is durable; guarded by publishing
	trust  bool   // a planted bug: records are not verified
}

func offsetFileName(first uint64) string { return fmt.Sprintf("%020d%s", first, offsetSuffix) }

func (f *offsetFile) place(n int) int64 { return int64(n+1) * offsetRecordBytes }

// at returns record n of a sealed file.
func (f *offsetFile) at(n int) (batch, error) {
	var room [offsetRecordBytes]byte
	r := room[:]
	if f.data != nil {
		r = f.data[f.place(n):][:offsetRecordBytes]
	} else if err := readFull(f.handle.file, r, f.place(n)); err != nil {
		return batch{}, fmt.Errorf("read %s: %w", f.path, err)
	}
	b, ok := decodeBatch(r)
	if !ok && !f.trust {
		return b, &CorruptError{Path: f.path, Place: f.place(n), Reason: "offset record"}
	}
	return b, nil
}

// search returns the first record for which after is true, count when none is.
func (f *offsetFile) search(after func(*batch) bool) (n int, err error) {
	n = sort.Search(f.count, func(i int) bool {
		b, e := f.at(i)
		if e != nil {
			err = e
			return true
		}
		return after(&b)
	})
	return n, err
}

// createOffsetFile starts the file that begins with the offset first.
func (l *Log) createOffsetFile(first uint64) (*offsetFile, error) {
	name := offsetFileName(first)
	f := &offsetFile{name: name, path: l.path(name), first: first}
	file, err := l.fs.Create(f.path)
	if err != nil {
		return nil, l.noSpace("create", f.path, err)
	}
	f.handle = newHandle(file)
	n, err := file.WriteAt(l.encodeOffsetHeader(first), 0)
	if isFull(err) {
		if rerr := errors.Join(f.handle.release(), l.fs.Remove(f.path)); rerr != nil {
			return nil, l.fatal("remove", f.path, rerr)
		}
		return nil, &NoSpaceError{Err: err}
	}
	if err != nil || n < offsetRecordBytes {
		return nil, l.fatal("write", f.path, errors.Join(shortWrite(err), f.handle.release()))
	}
	return f, nil
}

// openOffsetFile opens a file of the index. ok is false when it is not one, or of a
// log that was emptied since.
func (l *Log) openOffsetFile(name string) (f *offsetFile, ok bool, err error) {
	first, err := strconv.ParseUint(strings.TrimSuffix(name, offsetSuffix), 10, 64)
	if err != nil || offsetFileName(first) != name {
		return nil, false, nil //nolint:nilerr // no file of ours
	}
	f = &offsetFile{name: name, path: l.path(name), first: first, next: first, trust: l.options.Planted.TrustOffsets}
	file, err := l.fs.OpenReadWrite(f.path)
	if err != nil {
		return nil, false, fmt.Errorf("open %s: %w", f.path, err)
	}
	f.handle = newHandle(file)
	var h [offsetRecordBytes]byte
	n, err := file.ReadAt(h[:], 0)
	switch {
	case n < len(h) && (err == nil || errors.Is(err, io.EOF)):
		return f, false, nil
	case n < len(h):
		return f, false, fmt.Errorf("read %s: %w", f.path, err)
	}
	le := binary.LittleEndian
	return f, string(h[:8]) == offsetMagic && crc(h[:24]) == le.Uint32(h[24:]) &&
		le.Uint64(h[8:]) == first && le.Uint64(h[16:]) == l.start.floor, nil
}

// load reads the file whole, up to the last record that verifies and follows the
// one before it, and sets next and newest by it.
func (f *offsetFile) load() (recs []batch, err error) {
	size, err := f.handle.file.Size()
	if err != nil {
		return nil, fmt.Errorf("size of %s: %w", f.path, err)
	}
	b := make([]byte, size)
	if err := readFull(f.handle.file, b, 0); err != nil && size > 0 {
		return nil, fmt.Errorf("read %s: %w", f.path, err)
	}
	f.next, f.newest = f.first, 0
	for b = b[min(offsetRecordBytes, len(b)):]; len(b) >= offsetRecordBytes; b = b[offsetRecordBytes:] {
		r, ok := decodeBatch(b)
		if !ok && !(f.trust && r.Count > 0) || r.FirstOffset != f.next {
			break
		}
		recs = append(recs, r)
		f.next, f.newest = r.next(), r.newest
	}
	return recs, nil
}

// openSealed opens a full file of the index by its first and last records alone,
// so that a long log opens as fast as a short one: it was synced before another
// file began, and what has rotted since shows when it is read, or to the scrub.
func (l *Log) openSealed(f *offsetFile) error {
	f.count = l.options.OffsetBatches
	size, err := f.handle.file.Size()
	if err != nil {
		return fmt.Errorf("size of %s: %w", f.path, err)
	}
	if size < f.place(f.count) {
		return errDamagedIndex
	}
	last, err := f.at(f.count - 1)
	if err != nil {
		return damaged(err)
	}
	head, err := f.at(0)
	if err != nil {
		return damaged(err)
	}
	if head.FirstOffset != f.first {
		return errDamagedIndex
	}
	if err := l.mapFile(f); err != nil {
		return err
	}
	f.next, f.newest = last.next(), last.newest
	return nil
}

// errDamagedIndex ends the usable part of the index.
var errDamagedIndex = errors.New("damaged offset file")

// damaged tells damage, which ends the index, from a disk that does not read.
func damaged(err error) error {
	var corrupt *CorruptError
	if errors.As(err, &corrupt) {
		return errDamagedIndex
	}
	return err
}

// mapFile maps a file that does not change any more, where the FS can.
func (l *Log) mapFile(f *offsetFile) error {
	m, ok := l.fs.(vfs.Mapper)
	if !ok {
		return nil
	}
	mm, err := m.Map(f.path)
	if err != nil {
		return fmt.Errorf("map %s: %w", f.path, err)
	}
	f.handle.mm, f.data = mm, mm.Bytes()
	return nil
}

// discardOffsets removes a file of the index; readers that hold it read on.
func (l *Log) discardOffsets(f *offsetFile) error {
	if err := l.remove(f.name); err != nil {
		f.handle.drop()
		return err
	}
	if err := f.handle.release(); err != nil {
		return l.fatal("close", f.path, err)
	}
	return nil
}

// sortOffsetNames keeps the names of offset files, in offset order.
func sortOffsetNames(names []string) []string {
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, offsetSuffix) })
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(a, b) })
	return names
}
