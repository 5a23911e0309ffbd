// Package faultfs makes a filesystem fail where a test says so.
//
// The invariant: an operation that no rule matches is passed on unchanged, and
// one that a rule fails did not happen, except for what a short write wrote.
//
// Tests wrap any vfs.FS with it. It loses nothing by itself; memfs does.
package faultfs

import (
	"io"
	"path"

	"github.com/logd-io/logd/pkg/vfs"
)

// Kind is a kind of operation.
type Kind string

// The operations, as vfs.FS and vfs.File name them.
const (
	Create   Kind = "create"
	Open     Kind = "open" // for reading or writing
	Rename   Kind = "rename"
	Remove   Kind = "remove"
	List     Kind = "list"
	MkdirAll Kind = "mkdir"
	Stat     Kind = "stat"
	SyncDir  Kind = "syncdir"
	Lock     Kind = "lock"
	Free     Kind = "free"
	Read     Kind = "read"
	Write    Kind = "write"
	Size     Kind = "size"
	Truncate Kind = "truncate"
	Allocate Kind = "allocate"
	Sync     Kind = "sync"
	Close    Kind = "close"
)

// Op is an operation about to happen.
type Op struct {
	Kind  Kind
	Path  string // of a rename: the old name; of a file: the name it was opened by
	Place int64  // of a read or write
	Bytes int    // of a read or write
}

// FS fails operations of the one it wraps. It is safe for concurrent use.
type FS struct {
	fs    vfs.FS
	rules []Rule
}

var _ vfs.FS = (*FS)(nil)

// Wrap returns fs with rules. The first that matches an operation decides it,
// but every rule sees every operation, so that each counts its own.
func Wrap(fs vfs.FS, rules ...Rule) *FS { return &FS{fs: fs, rules: rules} }

// check lets the rules decide about op. n ≥ 0: a write stops after n bytes.
func (f *FS) check(op Op) (n int, err error) {
	var decided *Rule
	for i := range f.rules {
		if f.rules[i].when(op) && decided == nil {
			decided = &f.rules[i]
		}
	}
	if decided == nil {
		return -1, nil
	}
	return decided.then(op)
}

func (f *FS) fails(kind Kind, name string) error {
	_, err := f.check(Op{Kind: kind, Path: name})
	return err
}

func (f *FS) open(kind Kind, name string, open func(string) (vfs.File, error)) (vfs.File, error) {
	if err := f.fails(kind, name); err != nil {
		return nil, err
	}
	under, err := open(name)
	if err != nil {
		return nil, err
	}
	return &file{File: under, fs: f, name: name}, nil
}

// Create implements [vfs.FS].
func (f *FS) Create(name string) (vfs.File, error) { return f.open(Create, name, f.fs.Create) }

// Open implements [vfs.FS].
func (f *FS) Open(name string) (vfs.File, error) { return f.open(Open, name, f.fs.Open) }

// OpenReadWrite implements [vfs.FS].
func (f *FS) OpenReadWrite(name string) (vfs.File, error) {
	return f.open(Open, name, f.fs.OpenReadWrite)
}

// Rename implements [vfs.FS].
func (f *FS) Rename(oldname, newname string) error {
	if err := f.fails(Rename, oldname); err != nil {
		return err
	}
	return f.fs.Rename(oldname, newname)
}

// Remove implements [vfs.FS].
func (f *FS) Remove(name string) error {
	if err := f.fails(Remove, name); err != nil {
		return err
	}
	return f.fs.Remove(name)
}

// List implements [vfs.FS].
func (f *FS) List(dir string) ([]string, error) {
	if err := f.fails(List, dir); err != nil {
		return nil, err
	}
	return f.fs.List(dir)
}

// MkdirAll implements [vfs.FS].
func (f *FS) MkdirAll(dir string) error {
	if err := f.fails(MkdirAll, dir); err != nil {
		return err
	}
	return f.fs.MkdirAll(dir)
}

// Stat implements [vfs.FS].
func (f *FS) Stat(name string) (vfs.Info, error) {
	if err := f.fails(Stat, name); err != nil {
		return vfs.Info{}, err
	}
	return f.fs.Stat(name)
}

// SyncDir implements [vfs.FS].
func (f *FS) SyncDir(dir string) error {
	if err := f.fails(SyncDir, dir); err != nil {
		return err
	}
	return f.fs.SyncDir(dir)
}

// Lock implements [vfs.FS].
func (f *FS) Lock(name string) (io.Closer, error) {
	if err := f.fails(Lock, name); err != nil {
		return nil, err
	}
	return f.fs.Lock(name)
}

// Free implements [vfs.FS]; a disk that a rule fails has none.
func (f *FS) Free(dir string) (uint64, error) {
	if err := f.fails(Free, dir); err != nil {
		return 0, err
	}
	return f.fs.Free(dir)
}

type file struct {
	vfs.File
	fs   *FS
	name string
}

func (f *file) ReadAt(b []byte, off int64) (int, error) {
	if _, err := f.fs.check(Op{Kind: Read, Path: f.name, Place: off, Bytes: len(b)}); err != nil {
		return 0, err
	}
	return f.File.ReadAt(b, off)
}

func (f *file) WriteAt(b []byte, off int64) (int, error) {
	n, err := f.fs.check(Op{Kind: Write, Path: f.name, Place: off, Bytes: len(b)})
	if n < 0 && err == nil {
		return f.File.WriteAt(b, off)
	}
	if n = min(max(n, 0), len(b)); n > 0 {
		if m, werr := f.File.WriteAt(b[:n], off); werr != nil {
			return m, werr
		}
	}
	return n, err
}

func (f *file) Size() (int64, error) {
	if err := f.fs.fails(Size, f.name); err != nil {
		return 0, err
	}
	return f.File.Size()
}

func (f *file) Truncate(size int64) error {
	if err := f.fs.fails(Truncate, f.name); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *file) Allocate(size int64) error {
	if err := f.fs.fails(Allocate, f.name); err != nil {
		return err
	}
	return f.File.Allocate(size)
}

func (f *file) Sync() error {
	if err := f.fs.fails(Sync, f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

// Close always closes, whatever a rule answers.
func (f *file) Close() error {
	err := f.fs.fails(Close, f.name)
	if cerr := f.File.Close(); err == nil {
		err = cerr
	}
	return err
}

// match is path.Match on the base name; a bad pattern is the test's mistake.
func match(pattern, name string) bool {
	ok, err := path.Match(pattern, path.Base(name))
	if err != nil {
		panic(err)
	}
	return ok
}
