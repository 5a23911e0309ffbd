package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"github.com/logd-io/logd/pkg/vfs"
)

// The two small files beside the segments, little endian, 64 bytes each.
//
// start is replaced atomically, and then start.copy is, with the same bytes: it
// counts where start does not verify or is gone. It says where the log begins; segments with an
// id below floor, and offset files made under another floor, belong to a log
// that Reset emptied.
//
//	 0        8       16     24       32      40      48    52      64
//	+--------+-------+------+--------+-------+-------+-----+-------+
//	| magic  | index | term | offset | floor | zeros | crc | zeros |
//	+--------+-------+------+--------+-------+-------+-----+-------+
//
// durable-end is overwritten in place after every sync of a segment, itself
// unsynced, and synced before anything shortens the log. Unreadable means
// absent. cut is 1 when what its segment has behind place was truncated, and
// may be there still, whole or in part.
//
//	 0        8       16     24       32      40      48    52      64
//	+--------+-------+------+--------+-------+-------+-----+-------+
//	| magic  | index | term | id     | place | cut   | crc | zeros |
//	+--------+-------+------+--------+-------+-------+-----+-------+
const (
	startMagic   = "LOGDSTA1"
	durableMagic = "LOGDEND1"
	smallBytes   = 64

	startFile   = "start"
	startCopy   = "start.copy"
	durableFile = "durable-end"
	lockFile    = "lock"
)

type startRecord struct {
	Start
	floor uint64
}

// durableEnd is the end of what is known to be synced.
type durableEnd struct {
	index, term uint64
	id          uint64 // segment
	place       int64  // behind the entry's frame
	cut         uint64 // 1: what follows in the segment counts for nothing
}

func encodeSmall(b []byte, magic string, f [5]uint64) {
	clear(b[:smallBytes])
	copy(b, magic)
	for i, v := range f {
		binary.LittleEndian.PutUint64(b[8+8*i:], v)
	}
	binary.LittleEndian.PutUint32(b[48:], crc(b[:48]))
}

func decodeSmall(b []byte, magic string) (f [5]uint64, ok bool) {
	if len(b) < smallBytes || string(b[:8]) != magic || crc(b[:48]) != binary.LittleEndian.Uint32(b[48:]) {
		return f, false
	}
	for i := range f {
		f[i] = binary.LittleEndian.Uint64(b[8+8*i:])
	}
	return f, true
}

// readStart returns the start record, from its copy if need be, and makes sure
// that it is there twice.
func (l *Log) readStart() (startRecord, error) {
	r, state, err := l.readStartFile(startFile)
	if err != nil {
		return r, err
	}
	second, copied, err := l.readStartFile(startCopy)
	switch {
	case err != nil:
		return r, err
	case state != startGood && copied == startGood:
		l.logger.Warn("start record restored from its copy", "index", second.Index)
		return second, l.unlessFull(l.writeStart(second))
	case state == startBad || copied == startBad && state == startAbsent:
		return r, &CorruptError{Path: l.path(startFile), Reason: "start record"}
	case state == startGood && (copied != startGood || second != r):
		return r, l.copyStart(r)
	}
	return r, nil
}

// unlessFull lets Open go on where a full disk has no room for a second copy.
func (l *Log) unlessFull(err error) error {
	var full *NoSpaceError
	if !errors.As(err, &full) {
		return err
	}
	l.logger.Warn("the start record is there once only: the disk is full", "err", full.Err)
	return nil
}

const (
	startAbsent = iota
	startBad
	startGood
)

func (l *Log) readStartFile(name string) (r startRecord, state int, err error) {
	b, err := vfs.ReadFile(l.fs, l.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return r, startAbsent, nil
	}
	if err != nil {
		return r, startBad, fmt.Errorf("read %s: %w", l.path(name), err)
	}
	f, ok := decodeSmall(b, startMagic)
	if !ok {
		return r, startBad, nil
	}
	return startRecord{Start{f[0], f[1], f[2]}, f[3]}, startGood, nil
}

// writeStart makes r durable, twice. An error that says the disk is full leaves
// the old one.
func (l *Log) writeStart(r startRecord) error {
	if err := l.writeStartFile(startFile, r); err != nil {
		return err
	}
	return l.copyStart(r)
}

// copyStart makes the second copy of r, which start holds durably. A full disk
// has none then, until Open or the scrub finds room, rather than an older one:
// that would bring back what r ended.
func (l *Log) copyStart(r startRecord) error {
	err := l.writeStartFile(startCopy, r)
	var full *NoSpaceError
	if !errors.As(err, &full) {
		return err
	}
	switch err := l.fs.Remove(l.path(startCopy)); {
	case err == nil:
		if err := l.syncDir(); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return l.fatal("remove", l.path(startCopy), err)
	}
	return l.unlessFull(full)
}

func (l *Log) writeStartFile(name string, r startRecord) error {
	var b [smallBytes]byte
	encodeSmall(b[:], startMagic, [5]uint64{r.Index, r.Term, r.Offset, r.floor})
	if err := vfs.WriteFileAtomic(l.fs, l.path(name), b[:]); err != nil {
		return l.noSpace("write", l.path(name), err)
	}
	return nil
}

// openDurable opens the durable end's file, made if absent. ok is false when
// it holds none.
func (l *Log) openDurable() (d durableEnd, ok bool, err error) {
	p := l.path(durableFile)
	f, err := l.fs.OpenReadWrite(p)
	if errors.Is(err, fs.ErrNotExist) {
		if f, err = l.fs.Create(p); err != nil {
			return d, false, fmt.Errorf("create %s: %w", p, err)
		}
		l.durable = f
		if err := f.Allocate(smallBytes); err != nil {
			return d, false, fmt.Errorf("allocate %s: %w", p, err)
		}
		if err := errors.Join(f.Sync(), l.fs.SyncDir(l.dir)); err != nil {
			return d, false, fmt.Errorf("sync %s: %w", p, err)
		}
		return d, false, nil
	}
	if err != nil {
		return d, false, fmt.Errorf("open %s: %w", p, err)
	}
	l.durable = f
	if readFull(f, l.durableBuf[:], 0) != nil {
		return d, false, nil //nolint:nilerr // too short is as good as absent
	}
	v, ok := decodeSmall(l.durableBuf[:], durableMagic)
	return durableEnd{index: v[0], term: v[1], id: v[2], place: int64(v[3]), cut: v[4]}, ok, nil
}

// writeDurable notes the durable end without syncing it.
func (l *Log) writeDurable(d durableEnd) error {
	encodeSmall(l.durableBuf[:], durableMagic, [5]uint64{d.index, d.term, d.id, uint64(d.place), d.cut})
	return l.putDurable()
}

func (l *Log) putDurable() error {
	if n, err := l.durable.WriteAt(l.durableBuf[:], 0); err != nil || n < smallBytes {
		return l.fatal("write", l.path(durableFile), shortWrite(err))
	}
	return nil
}

// lowerDurable makes a lower durable end durable: it comes before whatever
// shortens the log.
func (l *Log) lowerDurable(d durableEnd) error {
	if err := l.writeDurable(d); err != nil {
		return err
	}
	return l.syncDurable()
}

// restoreDurable makes durable again what the durable end's file held: what was
// to shorten the log did not happen.
func (l *Log) restoreDurable(was [smallBytes]byte) error {
	l.durableBuf = was
	if err := l.putDurable(); err != nil {
		return err
	}
	return l.syncDurable()
}

func (l *Log) syncDurable() error {
	if err := l.durable.Sync(); err != nil {
		return l.fatal("sync", l.path(durableFile), err)
	}
	return nil
}
