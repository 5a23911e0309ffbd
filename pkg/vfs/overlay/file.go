package overlay

import (
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"

	"github.com/logd-io/logd/pkg/vfs"
)

const pageBytes = 4096

// node is a file: pages written here over what the file below has.
type node struct {
	below string // name of the file below; "" for one made here
	whole int64  // size of the file below under the same name; -1: it is another

	mu    sync.Mutex
	shown int64 // how much of the file below shows
	size  int64
	pages map[int64][]byte // by number, each of pageBytes
}

func (n *node) changed() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.whole != n.size || n.shown != n.size || len(n.pages) > 0
}

// file is an open file.
type file struct {
	node  *node
	name  string
	below vfs.File // nil for one made here
	write bool
	shut  atomic.Bool
}

// page reads page number p into b, pageBytes of it; node.mu is held.
func (f *file) page(p int64, b []byte) error {
	n := f.node
	if own, ok := n.pages[p]; ok {
		copy(b, own)
		return nil
	}
	clear(b)
	if have := min(n.shown-p*pageBytes, pageBytes); have > 0 {
		if got, err := f.below.ReadAt(b[:have], p*pageBytes); int64(got) < have {
			return fmt.Errorf("read %s below the overlay: %w", f.name, err)
		}
	}
	return nil
}

// ReadAt implements [vfs.File].
func (f *file) ReadAt(b []byte, off int64) (int, error) {
	n := f.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if off >= n.size {
		return 0, io.EOF
	}
	want := min(int64(len(b)), n.size-off)
	if len(n.pages) == 0 && off+want <= n.shown {
		got, err := f.below.ReadAt(b[:want], off) // the common case, at full speed
		if int64(got) < want {
			return got, err
		}
	} else {
		var page [pageBytes]byte
		for done := int64(0); done < want; {
			at := off + done
			if err := f.page(at/pageBytes, page[:]); err != nil {
				return int(done), err
			}
			done += int64(copy(b[done:want], page[at%pageBytes:]))
		}
	}
	if want < int64(len(b)) {
		return int(want), io.EOF
	}
	return int(want), nil
}

// WriteAt implements [vfs.File].
func (f *file) WriteAt(b []byte, off int64) (int, error) {
	if !f.write {
		return 0, pathError("write", f.name, fs.ErrPermission)
	}
	n := f.node
	n.mu.Lock()
	defer n.mu.Unlock()
	for done := 0; done < len(b); {
		at := off + int64(done)
		p := at / pageBytes
		page, own := n.pages[p]
		if !own {
			page = make([]byte, pageBytes)
			if err := f.page(p, page); err != nil {
				return done, err
			}
			n.pages[p] = page
		}
		done += copy(page[at%pageBytes:], b[done:])
	}
	n.size = max(n.size, off+int64(len(b)))
	return len(b), nil
}

// Size implements [vfs.File].
func (f *file) Size() (int64, error) {
	f.node.mu.Lock()
	defer f.node.mu.Unlock()
	return f.node.size, nil
}

// Truncate implements [vfs.File].
func (f *file) Truncate(size int64) error {
	if !f.write {
		return pathError("truncate", f.name, fs.ErrPermission)
	}
	n := f.node
	n.mu.Lock()
	defer n.mu.Unlock()
	n.shown = min(n.shown, size)
	for p, page := range n.pages {
		switch begin := p * pageBytes; {
		case begin >= size:
			delete(n.pages, p)
		case begin+pageBytes > size:
			clear(page[size-begin:])
		}
	}
	n.size = size
	return nil
}

// Allocate implements [vfs.File]. It reserves nothing.
func (f *file) Allocate(size int64) error {
	if !f.write {
		return pathError("allocate", f.name, fs.ErrPermission)
	}
	f.node.mu.Lock()
	defer f.node.mu.Unlock()
	f.node.size = max(f.node.size, size)
	return nil
}

// Sync implements [vfs.File]: nothing here outlives the process.
func (f *file) Sync() error { return nil }

// Close implements [vfs.File].
func (f *file) Close() error {
	switch {
	case f.shut.Swap(true):
		return pathError("close", f.name, fs.ErrClosed)
	case f.below == nil:
		return nil
	}
	return f.below.Close()
}
