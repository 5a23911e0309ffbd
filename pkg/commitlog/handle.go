package commitlog

import (
	"sync/atomic"

	"github.com/logd-io/logd/pkg/vfs"
)

// handle is an open file shared by the log and its readers. It is closed when
// the last of them lets go, so that retention never pulls a file from under a
// reader.
type handle struct {
	file vfs.File
	mm   vfs.Mapping  // may be nil
	refs atomic.Int64 // holders; at 0 the file is closed, for good
	err  error        // of the close; read by whoever dropped the last reference
}

// newHandle returns a handle with one holder, the caller.
func newHandle(f vfs.File) *handle {
	h := &handle{file: f}
	h.refs.Store(1)
	return h
}

// acquire adds a holder; false when the file is closed already.
func (h *handle) acquire() bool {
	for {
		n := h.refs.Load()
		if n == 0 {
			return false
		}
		if h.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// release drops a holder, and closes the file after the last.
func (h *handle) release() error {
	if h.refs.Add(-1) != 0 {
		return nil
	}
	if h.mm != nil {
		h.err = h.mm.Close()
	}
	if h.file != nil {
		if err := h.file.Close(); h.err == nil {
			h.err = err
		}
	}
	return h.err
}

// drop is release for a reader, who has nobody to tell of a failed close; the
// bytes it wanted were read.
func (h *handle) drop() { _ = h.release() }
