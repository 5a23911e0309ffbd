package commitlog

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/logd-io/logd/pkg/vfs"
)

// Inspection looks at the files of a log that nobody has open, as they are. It
// opens nothing for writing and judges nothing: what a start would make of
// damage, Open says.
type Inspection struct {
	Start Start
	Floor uint64      // segments with a lower id belong to a log that was emptied
	End   *DurableEnd // nil: absent or unreadable, which is the same

	Segments []SegmentInfo // by first entry
	Offsets  []OffsetFileInfo

	fs       vfs.FS
	dir      string
	found    func(Finding)
	segments []*segment // of Segments, where its file can be opened
}

// DurableEnd is the newest entry known to be synced.
type DurableEnd struct {
	Index, Term uint64
	Segment     uint64 // id
	Place       int64  // behind the entry's frame
	Cut         bool   // what the segment has behind it counts for nothing
}

// SegmentState says what a start does with a segment.
type SegmentState string

// The states of SegmentInfo.State.
const (
	SegmentSealed SegmentState = "sealed"
	SegmentActive SegmentState = "active" // the newest: it may get more entries
	SegmentBelow  SegmentState = "below start"
	SegmentOld    SegmentState = "emptied" // of a log that was emptied
)

// SegmentInfo describes a segment. Last is 0 where only its frames could tell.
type SegmentInfo struct {
	File        string
	ID          uint64
	First, Last uint64
	Bytes       int64
	State       SegmentState
}

// OffsetFileInfo describes a file of the offset index.
type OffsetFileInfo struct {
	File  string
	First uint64
	Bytes int64
}

// FindingKind says what a finding is about, for those who know what follows.
type FindingKind string

// The kinds of findings.
const (
	FindStart   FindingKind = "start record"
	FindEnd     FindingKind = "durable end"
	FindSegment FindingKind = "segment"
	FindHeader  FindingKind = "frame header"
	FindPayload FindingKind = "payload"
	FindMissing FindingKind = "missing entries"
	FindOffsets FindingKind = "offset index"
	FindFile    FindingKind = "unknown file"
)

// Finding is a piece of damage.
type Finding struct {
	Kind  FindingKind
	Path  string
	Place int64  // bytes into the file
	Index uint64 // the entry that is, or should be, there; 0: none or unknown
	What  string
}

// Frame is an entry and where it is. Data is valid until the call it was passed
// to returns. Of a Damaged one only the header verifies.
type Frame struct {
	Entry
	Segment    string
	Place      int64
	Ordinal    uint16 // frames before it in the same write
	Commit     uint64 // highest commit index its writer knew
	PayloadCRC uint32
	Damaged    bool
}

// OffsetRecord is a record of the offset index.
type OffsetRecord struct {
	Applied
	Newest    int64 // highest timestamp of this and all earlier batches
	Place     int64 // of the entry's frame in its segment
	File      string
	FilePlace int64
}

// Inspect reads the small files and the headers in dir. It tells found of each
// piece of damage; its own error is a disk that cannot be read.
func Inspect(fsys vfs.FS, dir string, found func(Finding)) (_ *Inspection, err error) {
	n := &Inspection{fs: fsys, dir: dir, found: found}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if err := n.readSmall(); err != nil {
		return nil, err
	}
	names, err := fsys.List(dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	for _, name := range names {
		info, err := fsys.Stat(dir + "/" + name)
		if err != nil {
			return nil, fmt.Errorf("stat %s/%s: %w", dir, name, err)
		}
		switch {
		case strings.HasSuffix(name, segmentSuffix):
			first, id, ok := parseSegmentName(name)
			if !ok {
				n.find(FindFile, name, 0, 0, "not a segment's name")
				continue
			}
			n.Segments = append(n.Segments, SegmentInfo{File: name, ID: id, First: first, Bytes: info.Size})
		case strings.HasSuffix(name, offsetSuffix):
			first, err := strconv.ParseUint(strings.TrimSuffix(name, offsetSuffix), 10, 64)
			if err != nil || offsetFileName(first) != name {
				n.find(FindFile, name, 0, 0, "not an offset file's name")
				continue
			}
			n.Offsets = append(n.Offsets, OffsetFileInfo{File: name, First: first, Bytes: info.Size})
		}
	}
	return n, n.openSegments()
}

func (n *Inspection) path(name string) string { return n.dir + "/" + name }

func (n *Inspection) find(kind FindingKind, name string, place int64, index uint64, what string) {
	n.found(Finding{Kind: kind, Path: n.path(name), Place: place, Index: index, What: what})
}

// readSmall reads the start record, its copy, and the durable end.
func (n *Inspection) readSmall() error {
	start, _, err := n.small(startFile, startMagic, FindStart)
	if err != nil {
		return err
	}
	second, _, err := n.small(startCopy, startMagic, FindStart)
	if err != nil {
		return err
	}
	switch {
	case start == nil:
		start = second
	case second != nil && *second != *start:
		n.find(FindStart, startCopy, 0, 0, "not the same as "+startFile)
	}
	if start != nil {
		n.Start, n.Floor = Start{start[0], start[1], start[2]}, start[3]
	}
	end, zero, err := n.small(durableFile, durableMagic, FindEnd)
	if err == nil && end != nil && !zero {
		n.End = &DurableEnd{end[0], end[1], end[2], int64(end[3]), end[4] == 1}
	}
	return err
}

// small reads one of the small files; nil when it is absent or does not verify.
// zero: it was made, and nothing was ever written to it.
func (n *Inspection) small(name, magic string, kind FindingKind) (f *[5]uint64, zero bool, err error) {
	b, err := vfs.ReadFile(n.fs, n.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read %s: %w", n.path(name), err)
	}
	fields, ok := decodeSmall(b, magic)
	switch {
	case kind == FindEnd && allZeros(b):
		return nil, true, nil
	case !ok:
		n.find(kind, name, 0, 0, "does not verify")
		return nil, false, nil
	case len(b) != smallBytes || !allZeros(b[52:]):
		n.find(kind, name, 52, 0, "something stands where nothing is")
	}
	return &fields, false, nil
}

func allZeros(b []byte) bool { return !slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) }

// openSegments opens those that a start would, checks their headers, and finds
// out what each is.
func (n *Inspection) openSegments() error {
	slices.SortFunc(n.Segments, func(a, b SegmentInfo) int { return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.ID, b.ID)) })
	n.segments = make([]*segment, len(n.Segments))
	var live []int
	for i := range n.Segments {
		s := &n.Segments[i]
		if s.ID < n.Floor {
			s.State = SegmentOld
			continue
		}
		file, err := n.fs.Open(n.path(s.File))
		if err != nil {
			return fmt.Errorf("open segment %s: %w", n.path(s.File), err)
		}
		seg := &segment{name: s.File, path: n.path(s.File), id: s.ID, first: s.First, handle: newHandle(file)}
		n.segments[i] = seg
		if err := n.readHeader(seg); err != nil {
			return err
		}
		live = append(live, i)
	}
	for k, i := range live {
		s := &n.Segments[i]
		s.State = SegmentActive
		if k+1 < len(live) {
			next := n.segments[live[k+1]]
			s.State, s.Last = SegmentSealed, next.prevIndex
			if next.prevIndex <= n.Start.Index {
				s.State = SegmentBelow
			}
		}
	}
	return nil
}

// readHeader checks a segment's header. What it should say is in the file's
// name, so that the frames can be read all the same.
func (n *Inspection) readHeader(s *segment) error {
	err := s.readHeader()
	var corrupt *CorruptError
	switch {
	case errors.As(err, &corrupt):
		n.find(FindSegment, s.name, 0, s.first, corrupt.Reason)
		s.prevIndex, s.prevTerm = s.first-1, 0
		return nil
	case err != nil:
		return err
	}
	var b [segmentHeaderBytes]byte
	if err := readFull(s.handle.file, b[:], 0); err != nil {
		return fmt.Errorf("read segment %s: %w", s.path, err)
	}
	if !allZeros(b[52:]) {
		n.find(FindSegment, s.name, 52, s.first, "something stands where nothing is")
	}
	return nil
}

// Close closes the files.
func (n *Inspection) Close() (err error) {
	for i, s := range n.segments {
		if s != nil {
			err = errors.Join(err, s.handle.release())
			n.segments[i] = nil
		}
	}
	return err
}
