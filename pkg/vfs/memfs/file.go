package memfs

import (
	"io"
	"io/fs"
	"syscall"
)

type file struct {
	fs     *FS
	node   *inode // the same inode whatever its name, as with a descriptor
	inode  uint64
	name   string
	write  bool
	closed bool // guarded by fs.mu
}

func (f *file) enter(op string, write bool) error {
	switch {
	case f.closed:
		return pathError(op, f.name, fs.ErrClosed)
	case write && !f.write:
		return pathError(op, f.name, syscall.EBADF)
	}
	return nil
}

func (f *file) ReadAt(b []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.enter("read", false); err != nil {
		return 0, err
	}
	if n := f.node.live.read(b, off); n < len(b) {
		return n, io.EOF
	}
	return len(b), nil
}

func (f *file) WriteAt(b []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.enter("write", true); err != nil {
		return 0, err
	}
	if len(b) == 0 {
		return 0, nil
	}
	f.fs.do(op{kind: opWrite, inode: f.inode, off: off, data: append([]byte(nil), b...)})
	return len(b), nil
}

func (f *file) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.node.live.size, f.enter("size", false)
}

func (f *file) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.enter("truncate", true); err != nil {
		return err
	}
	f.fs.do(op{kind: opResize, inode: f.inode, size: size})
	return nil
}

func (f *file) Allocate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.enter("allocate", true); err != nil {
		return err
	}
	if size > f.node.live.size {
		f.fs.do(op{kind: opResize, inode: f.inode, size: size})
	}
	return nil
}

func (f *file) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.enter("sync", false); err != nil {
		return err
	}
	f.fs.syncs++
	f.fs.do(op{kind: opSync, inode: f.inode})
	return nil
}

func (f *file) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.enter("close", false); err != nil {
		return err
	}
	f.closed = true
	f.node.opens--
	return nil
}

// MarkClean is [FS.MarkClean] of an open file, whatever its name is by now.
func (f *file) MarkClean() {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.fs.do(op{kind: opMarkClean, inode: f.inode})
}
