// Package overlay keeps in memory whatever is changed of a filesystem, and
// leaves that filesystem alone.
//
// The invariant: no call changes the filesystem below. What was changed reads
// as if it had been, through the same overlay, until the overlay is dropped.
//
// It shows what opening a stopped node's directory would do, and looks into it
// as the node would, without doing anything to it. Memory is that of the bytes
// changed, in pages; a preallocated file costs nothing before it is written. It
// is not for files that somebody else is changing.
package overlay

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"sync"

	"github.com/logd-io/logd/pkg/vfs"
)

// FS is an overlay. It is safe for concurrent use.
type FS struct {
	below vfs.FS

	mu    sync.Mutex
	files map[string]*node // by name; a nil one was removed; guarded by mu
	dirs  map[string]bool  // made here; guarded by mu
	locks map[string]bool  // held here, without a file below; guarded by mu
}

var _ vfs.FS = (*FS)(nil)

// New returns an overlay of below in which nothing is changed yet.
func New(below vfs.FS) *FS {
	return &FS{below: below, files: map[string]*node{}, dirs: map[string]bool{}, locks: map[string]bool{}}
}

// Changed names the files that differ from what is below, in order.
func (f *FS) Changed() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for name, n := range f.files {
		if n == nil {
			if _, err := f.below.Stat(name); errors.Is(err, fs.ErrNotExist) {
				continue // made here, and removed
			}
		} else if !n.changed() {
			continue
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// lookup returns the node of name, made from the file below if need be.
func (f *FS) lookup(op, name string) (*node, error) {
	if n, known := f.files[name]; known {
		if n == nil {
			return nil, pathError(op, name, fs.ErrNotExist)
		}
		return n, nil
	}
	info, err := f.below.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir:
		return nil, pathError(op, name, errors.New("is a directory"))
	}
	n := &node{below: name, whole: info.Size, shown: info.Size, size: info.Size, pages: map[int64][]byte{}}
	f.files[name] = n
	return n, nil
}

func (f *FS) isDir(dir string) bool {
	if f.dirs[dir] {
		return true
	}
	info, err := f.below.Stat(dir)
	return err == nil && info.IsDir
}

// Create implements [vfs.FS].
func (f *FS) Create(name string) (vfs.File, error) {
	name = path.Clean(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.isDir(path.Dir(name)) {
		return nil, pathError("create", name, fs.ErrNotExist)
	}
	if _, err := f.lookup("create", name); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(pathError("create", name, fs.ErrExist), err)
	}
	n := &node{whole: -1, pages: map[int64][]byte{}}
	f.files[name] = n
	return &file{node: n, name: name, write: true}, nil
}

// Open implements [vfs.FS].
func (f *FS) Open(name string) (vfs.File, error) { return f.open(name, false) }

// OpenReadWrite implements [vfs.FS]; the file below is opened for reading.
func (f *FS) OpenReadWrite(name string) (vfs.File, error) { return f.open(name, true) }

func (f *FS) open(name string, write bool) (vfs.File, error) {
	name = path.Clean(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.lookup("open", name)
	if err != nil {
		return nil, err
	}
	h := &file{node: n, name: name, write: write}
	if n.below != "" {
		if h.below, err = f.below.Open(n.below); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// Rename implements [vfs.FS].
func (f *FS) Rename(oldname, newname string) error {
	oldname, newname = path.Clean(oldname), path.Clean(newname)
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.lookup("rename", oldname)
	if err != nil {
		return err
	}
	n.whole = -1
	f.files[oldname], f.files[newname] = nil, n
	return nil
}

// Remove implements [vfs.FS].
func (f *FS) Remove(name string) error {
	name = path.Clean(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.lookup("remove", name); err != nil {
		return err
	}
	f.files[name] = nil
	return nil
}

// List implements [vfs.FS].
func (f *FS) List(dir string) ([]string, error) {
	dir = path.Clean(dir)
	f.mu.Lock()
	defer f.mu.Unlock()
	names, err := f.below.List(dir)
	if err != nil && !(errors.Is(err, fs.ErrNotExist) && f.dirs[dir]) {
		return nil, err
	}
	for name, n := range f.files {
		if path.Dir(name) != dir {
			continue
		}
		i, there := slices.BinarySearch(names, path.Base(name))
		switch {
		case n == nil && there:
			names = slices.Delete(names, i, i+1)
		case n != nil && !there:
			names = slices.Insert(names, i, path.Base(name))
		}
	}
	for d := range f.dirs {
		if i, there := slices.BinarySearch(names, path.Base(d)); path.Dir(d) == dir && d != dir && !there {
			names = slices.Insert(names, i, path.Base(d))
		}
	}
	return names, nil
}

// MkdirAll implements [vfs.FS].
func (f *FS) MkdirAll(dir string) error {
	dir = path.Clean(dir)
	f.mu.Lock()
	defer f.mu.Unlock()
	for ; !f.isDir(dir); dir = path.Dir(dir) {
		f.dirs[dir] = true
	}
	return nil
}

// Stat implements [vfs.FS].
func (f *FS) Stat(name string) (vfs.Info, error) {
	name = path.Clean(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.isDir(name) {
		return vfs.Info{IsDir: true}, nil
	}
	n, err := f.lookup("stat", name)
	if err != nil {
		return vfs.Info{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return vfs.Info{Size: n.size}, nil
}

// SyncDir implements [vfs.FS]: nothing here outlives the process.
func (f *FS) SyncDir(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.isDir(path.Clean(dir)) {
		return pathError("sync", dir, fs.ErrNotExist)
	}
	return nil
}

// Lock takes the lock below, so that who holds it is seen. Where there is no
// such file none is made: then nobody else can hold it.
func (f *FS) Lock(name string) (io.Closer, error) {
	name = path.Clean(name)
	if _, err := f.below.Stat(name); !errors.Is(err, fs.ErrNotExist) {
		return f.below.Lock(name)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.locks[name] {
		return nil, pathError("lock", name, vfs.ErrLocked)
	}
	f.locks[name] = true
	return &lock{f, name}, nil
}

type lock struct {
	fs   *FS
	name string
}

func (l *lock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	delete(l.fs.locks, l.name)
	return nil
}

// Free implements [vfs.FS].
func (f *FS) Free(dir string) (uint64, error) { return f.below.Free(dir) }

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}
