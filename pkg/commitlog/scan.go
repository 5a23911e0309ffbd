package commitlog

import (
	"fmt"
	"sync"

	"github.com/logd-io/logd/pkg/vfs"
)

// windowBytes is how much a scan reads at once.
const windowBytes = 64 << 10

// window reads a file forward through a buffer.
type window struct {
	file vfs.File
	path string
	end  int64 // nothing beyond it is read
	off  int64 // place of buf
	buf  []byte
	room []byte
	pace func(bytes int64) error // nil: as fast as it goes
}

var windowPool = sync.Pool{New: func() any { return &window{room: make([]byte, windowBytes)} }}

func newWindow(s *segment, end int64) *window {
	w := windowPool.Get().(*window)
	*w = window{file: s.handle.file, path: s.path, end: end, room: w.room}
	return w
}

func (w *window) free() {
	room := w.room
	if len(room) > 16*windowBytes {
		room = make([]byte, windowBytes) // a giant frame's is not kept
	}
	*w = window{room: room}
	windowPool.Put(w)
}

// at returns the n bytes at place, fewer at the end, valid until the next call.
func (w *window) at(place, n int64) ([]byte, error) {
	n = min(n, w.end-place)
	if n <= 0 {
		return nil, nil
	}
	if place < w.off || place+n > w.off+int64(len(w.buf)) {
		if int64(len(w.room)) < n {
			w.room = make([]byte, n)
		}
		w.buf, w.off = w.room[:min(int64(len(w.room)), w.end-place)], place
		if w.pace != nil {
			if err := w.pace(int64(len(w.buf))); err != nil {
				w.buf = nil
				return nil, err
			}
		}
		if err := readFull(w.file, w.buf, place); err != nil {
			w.buf = nil
			if w.cutShort() {
				return w.at(place, n)
			}
			return nil, fmt.Errorf("read %s at %d: %w", w.path, place, err)
		}
	}
	return w.buf[place-w.off:][:n], nil
}

// cutShort says whether the file is shorter than it was known to be, and takes
// note of it: what is missing then is damage, not a disk that does not read.
func (w *window) cutShort() bool {
	size, err := w.file.Size()
	if err != nil || size >= w.end {
		return false
	}
	w.end = size
	return true
}

// header decodes the frame header at place; ok is false when none verifies.
func (w *window) header(id uint64, place int64) (h frameHeader, ok bool, err error) {
	b, err := w.at(place, frameHeaderBytes)
	if err != nil {
		return h, false, err
	}
	h, ok = decodeHeader(b, id, place)
	if ok && place+h.bytes() > w.end {
		ok = false
	}
	return h, ok, nil
}

// search returns the first place from place on, in steps of frameAlign, where
// a header verifies.
func (w *window) search(id uint64, place int64) (h frameHeader, at int64, ok bool, err error) {
	for place+frameHeaderBytes <= w.end {
		b, err := w.at(place, min(int64(len(w.room)), w.end-place))
		if err != nil {
			return h, 0, false, err
		}
		i := int64(0)
		for ; i+frameHeaderBytes <= int64(len(b)); i += frameAlign {
			if h, ok := decodeHeader(b[i:], id, place+i); ok {
				return h, place + i, true, nil
			}
		}
		place += i
	}
	return h, 0, false, nil
}

// zeros reports whether nothing but zeros stands from place to the end.
func (w *window) zeros(place int64) (bool, error) {
	for place < w.end {
		b, err := w.at(place, min(int64(len(w.room)), w.end-place))
		if err != nil {
			return false, err
		}
		for _, c := range b {
			if c != 0 {
				return false, nil
			}
		}
		place += int64(len(b))
	}
	return true, nil
}
