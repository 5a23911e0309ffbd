package vfs

import (
	"errors"
	"io"
)

// ErrLocked is returned by [FS.Lock] when someone else, another process or
// another opener in this one, holds the lock.
var ErrLocked = errors.New("locked by another process")

// FS is a filesystem. Names are slash-separated paths; errors satisfy
// errors.Is with fs.ErrNotExist and fs.ErrExist where those apply.
type FS interface {
	// Create makes a new file, open for reading and writing; it fails with
	// fs.ErrExist when there is one of that name.
	Create(name string) (File, error)
	// Open opens an existing file for reading.
	Open(name string) (File, error)
	// OpenReadWrite opens an existing file for reading and writing.
	OpenReadWrite(name string) (File, error)
	// Rename moves a file, replacing newname if it exists. It is atomic, and
	// durable once the directory is synced.
	Rename(oldname, newname string) error
	// Remove deletes a file. Files opened before stay readable.
	Remove(name string) error
	// List returns the base names in dir, sorted.
	List(dir string) ([]string, error)
	// MkdirAll makes dir and its parents, mode 0700. A directory it made is
	// durable: its parents are synced.
	MkdirAll(dir string) error
	// Stat describes a file or directory.
	Stat(name string) (Info, error)
	// SyncDir makes the names in dir durable: creations, renames, removals.
	SyncDir(dir string) error
	// Lock takes an exclusive lock on the file name, made if absent, until the
	// Closer is closed or the process ends. It does not wait: ErrLocked.
	Lock(name string) (io.Closer, error)
	// Free returns the bytes that may still be written below dir.
	Free(dir string) (uint64, error)
}

// Info describes a file.
type Info struct {
	Size  int64 // bytes; 0 for a directory
	IsDir bool
}

// File is an open file. ReadAt and WriteAt may be called concurrently with
// each other and with Sync; Close may not.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Size returns the length in bytes, preallocated space included.
	Size() (int64, error)
	// Truncate sets the length; bytes beyond an old length read as zeros.
	Truncate(size int64) error
	// Allocate reserves disk space so that the file is at least size bytes
	// long. What was not written reads as zeros.
	Allocate(size int64) error
	// Sync makes the bytes and the length durable (fdatasync). After an error
	// nothing is known about what is durable, and calling it again proves
	// nothing.
	Sync() error
}

// Mapper is implemented by an FS that can map whole files into memory.
type Mapper interface {
	// Map maps the file read-only at its present length. The file must not be
	// shortened while the mapping lives.
	Map(name string) (Mapping, error)
}

// Mapping is a mapped file. Bytes must not be used after Close.
type Mapping interface {
	Bytes() []byte
	Close() error
}
