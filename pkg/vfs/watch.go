package vfs

import (
	"sync"
)

// Watch gives fsys with a record of the changing operations that are under way,
// so that one which hangs is seen. Reads, which hang for a while on a sound disk
// that is busy, are not in it.
func Watch(fsys FS) (FS, *Ops) {
	w := &watched{FS: fsys, ops: &Ops{m: make(map[uint64]Op)}}
	if m, ok := fsys.(Mapper); ok {
		return &watchedMapper{w, m}, w.ops
	}
	return w, w.ops
}

// Op is an operation under way.
type Op struct {
	ID   uint64 // rises, in the order operations begin; never 0
	What string // "sync", "write", …
	Path string
}

func (o Op) String() string { return o.What + " " + o.Path }

// Ops are the operations under way. It is safe for concurrent use.
type Ops struct {
	mu   sync.Mutex
	last uint64        // ID of the newest; guarded by mu
	m    map[uint64]Op // by ID; guarded by mu
}

// Oldest returns the operation that began first of those under way; its ID is 0
// when there is none.
func (o *Ops) Oldest() Op {
	o.mu.Lock()
	defer o.mu.Unlock()
	var first Op
	for id, op := range o.m {
		if first.ID == 0 || id < first.ID {
			first = op
		}
	}
	return first
}

// do runs f as an operation.
func (o *Ops) do(what, path string, f func() error) error {
	o.mu.Lock()
	o.last++
	id := o.last
	o.m[id] = Op{ID: id, What: what, Path: path}
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		delete(o.m, id)
		o.mu.Unlock()
	}()
	return f()
}

type watchedMapper struct {
	*watched
	Mapper
}

type watched struct {
	FS
	ops *Ops
}

func (w *watched) file(what, name string, open func(string) (File, error)) (f File, err error) {
	err = w.ops.do(what, name, func() (err error) {
		f, err = open(name)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &watchedFile{File: f, ops: w.ops, name: name}, nil
}

func (w *watched) Create(name string) (File, error) { return w.file("create", name, w.FS.Create) }

func (w *watched) OpenReadWrite(name string) (File, error) {
	return w.file("open", name, w.FS.OpenReadWrite)
}

func (w *watched) Rename(oldname, newname string) error {
	return w.ops.do("rename", oldname, func() error { return w.FS.Rename(oldname, newname) })
}

func (w *watched) Remove(name string) error {
	return w.ops.do("remove", name, func() error { return w.FS.Remove(name) })
}

func (w *watched) MkdirAll(dir string) error {
	return w.ops.do("make directory", dir, func() error { return w.FS.MkdirAll(dir) })
}

func (w *watched) SyncDir(dir string) error {
	return w.ops.do("sync directory", dir, func() error { return w.FS.SyncDir(dir) })
}

func (w *watched) Free(dir string) (free uint64, err error) {
	err = w.ops.do("look for free space in", dir, func() (err error) {
		free, err = w.FS.Free(dir)
		return err
	})
	return free, err
}

type watchedFile struct {
	File
	ops  *Ops
	name string // it was opened by
}

func (f *watchedFile) WriteAt(b []byte, off int64) (n int, err error) {
	err = f.ops.do("write", f.name, func() (err error) {
		n, err = f.File.WriteAt(b, off)
		return err
	})
	return n, err
}

func (f *watchedFile) Truncate(size int64) error {
	return f.ops.do("truncate", f.name, func() error { return f.File.Truncate(size) })
}

func (f *watchedFile) Allocate(size int64) error {
	return f.ops.do("allocate", f.name, func() error { return f.File.Allocate(size) })
}

func (f *watchedFile) Sync() error { return f.ops.do("sync", f.name, f.File.Sync) }
