package main

import (
	"path"
	"strings"
	"sync"
	"syscall"

	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// disk is a memfs that is full, fails or lies when told to. It knows files by
// the names they have now, where faultfs knows them by those they were opened by.
type disk struct {
	*memfs.FS
	lie       lie // nil: honest
	full      bool
	failSync  int        // the so manyth sync from now on fails; 0: none
	failWrite int        // likewise, and that write stops in the middle
	opening   sync.Mutex // Open opens many files at once, and nothing else happens then
	open      map[string][]*file
}

// event is an operation about to happen.
type event struct {
	kind string // sync, syncdir, rename, remove, write, truncate
	name string // base name, now
	to   string // of a rename, base name
	dir  string
	file *file
	off  int64
	data []byte // of a write; a lie may replace it
	size int64
}

// lie decides about an operation; true: it is reported as done, and was not.
type lie func(d *disk, e *event) bool

func newDisk(mem *memfs.FS) *disk { return &disk{FS: mem, open: map[string][]*file{}} }

func (d *disk) lies(e *event) bool { return d.lie != nil && d.lie(d, e) }

type file struct {
	vfs.File
	d    *disk
	name string
	note int // a lie's own
}

func (d *disk) opened(f vfs.File, err error, name string) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	w := &file{File: f, d: d, name: path.Clean(name)}
	d.opening.Lock()
	defer d.opening.Unlock()
	d.open[w.name] = append(d.open[w.name], w)
	return w, nil
}

func (d *disk) Create(name string) (vfs.File, error) {
	if d.full && !is(name, ".off") { // publishing has no way to wait
		return nil, syscall.ENOSPC
	}
	f, err := d.FS.Create(name)
	return d.opened(f, err, name)
}

func (d *disk) Open(name string) (vfs.File, error) {
	f, err := d.FS.Open(name)
	return d.opened(f, err, name)
}

func (d *disk) OpenReadWrite(name string) (vfs.File, error) {
	f, err := d.FS.OpenReadWrite(name)
	return d.opened(f, err, name)
}

func (d *disk) Rename(from, to string) error {
	from, to = path.Clean(from), path.Clean(to)
	if d.lies(&event{kind: "rename", name: path.Base(from), to: path.Base(to), dir: path.Dir(from)}) {
		return nil
	}
	return d.rename(from, to)
}

func (d *disk) rename(from, to string) error {
	if err := d.FS.Rename(from, to); err != nil {
		return err
	}
	moved := d.open[from]
	delete(d.open, from)
	for _, f := range moved {
		f.name = to
	}
	d.open[to] = moved
	return nil
}

func (d *disk) Remove(name string) error {
	if d.lies(&event{kind: "remove", name: path.Base(name), dir: path.Dir(name)}) {
		return nil
	}
	return d.FS.Remove(name)
}

func (d *disk) SyncDir(dir string) error {
	if d.lies(&event{kind: "syncdir", dir: path.Clean(dir)}) {
		return nil
	}
	return d.FS.SyncDir(dir)
}

func (f *file) WriteAt(b []byte, off int64) (int, error) {
	if f.d.failWrite > 0 {
		if f.d.failWrite--; f.d.failWrite == 0 {
			n, _ := f.File.WriteAt(b[:len(b)/2], off) // it fails anyway
			return n, syscall.EIO
		}
	}
	if f.d.lie != nil {
		e := event{kind: "write", name: path.Base(f.name), file: f, off: off, data: b}
		if f.d.lie(f.d, &e) {
			return len(b), nil
		}
		_, err := f.File.WriteAt(e.data, e.off)
		return len(b), err
	}
	return f.File.WriteAt(b, off)
}

func (f *file) Truncate(size int64) error {
	if f.d.lies(&event{kind: "truncate", name: path.Base(f.name), file: f, size: size}) {
		return nil
	}
	return f.File.Truncate(size)
}

func (f *file) Allocate(size int64) error {
	if f.d.full {
		return syscall.ENOSPC
	}
	return f.File.Allocate(size)
}

// Sync that fails leaves the file as a kernel does: what was written is marked
// clean, and no later sync writes it.
func (f *file) Sync() error {
	if f.d.failSync > 0 {
		if f.d.failSync--; f.d.failSync == 0 {
			f.File.(interface{ MarkClean() }).MarkClean()
			return syscall.EIO
		}
	}
	if f.d.lies(&event{kind: "sync", name: path.Base(f.name), file: f}) {
		return nil
	}
	return f.File.Sync()
}

func (f *file) Close() error {
	f.d.opening.Lock()
	defer f.d.opening.Unlock()
	files := f.d.open[f.name]
	for i, g := range files {
		if g == f {
			f.d.open[f.name] = append(files[:i:i], files[i+1:]...)
			break
		}
	}
	return f.File.Close()
}

func is(name, suffix string) bool { return strings.HasSuffix(name, suffix) }
