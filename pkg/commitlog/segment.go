package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"sync"

	"github.com/logd-io/logd/pkg/vfs"
)

// A segment is a file <first index>-<id>.seg (decimal, hexadecimal) that begins
// with a header, little endian; frames follow it without a gap.
//
//	 0        8         12     16      24         32         40    48      52     64
//	+--------+---------+------+-------+----------+----------+----+-------+-------+
//	| magic  | version | zero | first | previous | previous | id | crc   | zeros |
//	| 8 B    | u32     | u32  | index | index    | term     |u64 | u32   |       |
//	+--------+---------+------+-------+----------+----------+----+-------+-------+
//
// crc is crc32c of bytes 0–48. previous is the entry before first. ids rise: the
// upper half of an id counts segments, the lower is random, so that no frame of
// a file deleted long ago verifies in a file that got its blocks.
//
// The newest segment is longer than its frames, preallocated, zeros behind
// them. Every other one ends with its last frame.
const (
	segmentMagic       = "LOGDSEG1"
	segmentVersion     = 1
	segmentHeaderBytes = 64
	segmentSuffix      = ".seg"
	freeSuffix         = ".free"
	// pointEvery is how far apart remembered places of a segment are: what a
	// lookup by index has to scan at most.
	pointEvery = 64 << 10
)

// segment is an open segment file.
type segment struct {
	name      string
	path      string
	id        uint64
	first     uint64 // index its first frame has
	prevIndex uint64
	prevTerm  uint64
	handle    *handle
	trust     bool // a planted bug: payloads are not verified
	headless  bool // its header does not verify: prevTerm is not known; guarded by Log.mu

	// The rest changes while readers look, and is guarded by mu, which is
	// never held across I/O.
	mu     sync.Mutex
	end    int64   // place behind the last frame; 0: not known yet
	size   int64   // of the file
	points []point // rising; known frames, about one every pointEvery bytes
	hint   point   // the frame after the one read last
}

// point is a frame whose place is known.
type point struct {
	index uint64
	place int64
}

func segmentName(first, id uint64) string {
	return fmt.Sprintf("%020d-%016x%s", first, id, segmentSuffix)
}

func freeName(id uint64) string { return fmt.Sprintf("%016x%s", id, freeSuffix) }

// parseSegmentName is the inverse of segmentName.
func parseSegmentName(name string) (first, id uint64, ok bool) {
	base, found := strings.CutSuffix(name, segmentSuffix)
	a, b, dash := strings.Cut(base, "-")
	if !found || !dash {
		return 0, 0, false
	}
	first, err1 := strconv.ParseUint(a, 10, 64)
	id, err2 := strconv.ParseUint(b, 16, 64)
	return first, id, err1 == nil && err2 == nil && segmentName(first, id) == name
}

func encodeSegmentHeader(first, prevIndex, prevTerm, id uint64) []byte {
	b := make([]byte, segmentHeaderBytes)
	le := binary.LittleEndian
	copy(b, segmentMagic)
	le.PutUint32(b[8:], segmentVersion)
	le.PutUint64(b[16:], first)
	le.PutUint64(b[24:], prevIndex)
	le.PutUint64(b[32:], prevTerm)
	le.PutUint64(b[40:], id)
	le.PutUint32(b[48:], crc(b[:48]))
	return b
}

// openSegment opens the segment called name for reading and writing and checks
// its header. One that is damaged makes it headless, where that is allowed.
func openSegment(fsys vfs.FS, dir, name string, first, id uint64, headless bool) (*segment, error) {
	p := dir + "/" + name
	f, err := fsys.OpenReadWrite(p)
	if err != nil {
		return nil, fmt.Errorf("open segment %s: %w", p, err)
	}
	s := &segment{name: name, path: p, id: id, first: first, handle: newHandle(f)}
	err = s.readHeader()
	if headless && isCorrupt(err) {
		s.headless, s.prevIndex, s.prevTerm = true, first-1, 0
		return s, nil
	}
	if err != nil {
		return nil, errors.Join(err, s.handle.release())
	}
	return s, nil
}

func (s *segment) readHeader() error {
	size, err := s.handle.file.Size()
	if err != nil {
		return fmt.Errorf("size of segment %s: %w", s.path, err)
	}
	s.size = size
	damaged := func(why string) error {
		return &CorruptError{Path: s.path, Index: s.first, Reason: "segment header: " + why}
	}
	var b [segmentHeaderBytes]byte
	if size < segmentHeaderBytes {
		return damaged("file too short")
	}
	if err := readFull(s.handle.file, b[:], 0); err != nil {
		return fmt.Errorf("read segment %s: %w", s.path, err)
	}
	le := binary.LittleEndian
	switch {
	case crc(b[:48]) != le.Uint32(b[48:]):
		return damaged("checksum")
	case string(b[:8]) != segmentMagic || le.Uint32(b[8:]) != segmentVersion:
		return damaged("unknown format")
	case le.Uint64(b[16:]) != s.first || le.Uint64(b[40:]) != s.id:
		return damaged("belongs to another file")
	}
	s.prevIndex, s.prevTerm = le.Uint64(b[24:]), le.Uint64(b[32:])
	if s.prevIndex+1 != s.first {
		return damaged("first index does not follow the previous one")
	}
	return nil
}

// extend notes that frames now reach up to end, the newest points among them.
func (s *segment) extend(end int64, points []point) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range points {
		s.note(p)
	}
	s.end = end
}

// note remembers p if it is far enough behind the last remembered; mu is held.
func (s *segment) note(p point) {
	if n := len(s.points); n > 0 && p.place < s.points[n-1].place+pointEvery {
		return
	}
	s.points = append(s.points, p)
}

// cut forgets everything from index and place on; the file ends there.
func (s *segment) cut(index uint64, place int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := sort.Search(len(s.points), func(i int) bool { return s.points[i].index >= index })
	s.points = s.points[:n]
	s.hint = point{}
	s.end, s.size = place, place
}

// before returns the nearest known frame at or before index, and the place
// behind the last frame (0: unknown).
func (s *segment) before(index uint64) (p point, end int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p = point{index: s.first, place: segmentHeaderBytes}
	n := sort.Search(len(s.points), func(i int) bool { return s.points[i].index > index })
	if n > 0 {
		p = s.points[n-1]
	}
	if s.hint.index > p.index && s.hint.index <= index {
		p = s.hint
	}
	return p, s.end
}

// remember notes frames found by a scan that began at a known frame, so that
// the points stay rising; next is the frame a sequential reader wants next.
func (s *segment) remember(found []point, next point) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != 0 && next.place > s.end {
		return // cut meanwhile
	}
	for _, p := range found {
		if n := len(s.points); n == 0 || p.index > s.points[n-1].index {
			s.note(p)
		}
	}
	s.hint = next
}

func (s *segment) length() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size
}

// unused is what is preallocated behind the last frame.
func (s *segment) unused() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end == 0 {
		return 0
	}
	return s.size - s.end
}

// frameEnd is the place that no frame reaches beyond.
func (s *segment) frameEnd() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != 0 {
		return s.end
	}
	return s.size
}

// readFull reads len(b) bytes or fails.
func readFull(f vfs.File, b []byte, off int64) error {
	if n, err := f.ReadAt(b, off); n < len(b) {
		return shortRead(n, len(b), err)
	}
	return nil
}

// shortRead is the error of a read of n bytes where want were asked for.
func shortRead(n, want int, err error) error {
	if err == nil {
		err = fmt.Errorf("short read: %d of %d bytes", n, want)
	}
	return err
}
