package faultfs

import (
	"io/fs"
	"path"
	"sync"
	"syscall"

	"github.com/logd-io/logd/pkg/vfs"
)

// Quota is a filesystem of a limited size: what would exceed it fails with
// ENOSPC and changes nothing, but for a write, of which what fits is written.
// Files count with their length, and no more once they are removed. It is safe
// for concurrent use.
type Quota struct {
	vfs.FS

	mu      sync.Mutex
	limit   int64
	outside int64            // bytes taken by others; guarded by mu
	used    int64            // by our files; guarded by mu
	nodes   map[string]*node // by path; guarded by mu
}

// node is a file, whatever it is called.
type node struct {
	size int64 // guarded by Quota.mu
	gone bool  // removed, or replaced; guarded by Quota.mu
}

var _ vfs.FS = (*Quota)(nil)

// NewQuota limits fsys to so many bytes. The files below dir count already.
func NewQuota(fsys vfs.FS, dir string, limit int64) (*Quota, error) {
	q := &Quota{FS: fsys, limit: limit, nodes: make(map[string]*node)}
	if _, err := fsys.Stat(dir); err != nil {
		return q, nil //nolint:nilerr // there is nothing yet
	}
	return q, q.count(dir)
}

func (q *Quota) count(dir string) error {
	names, err := q.FS.List(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		name := path.Join(dir, n)
		info, err := q.FS.Stat(name)
		if err == nil && info.IsDir {
			err = q.count(name)
		} else if err == nil {
			q.nodes[name] = &node{size: info.Size}
			q.used += info.Size
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Outside sets how many bytes others have taken; more than are left fill it.
func (q *Quota) Outside(bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.outside = bytes
}

// Used returns the bytes that the files here take.
func (q *Quota) Used() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.used
}

// left is what may still be written; mu is held.
func (q *Quota) left() int64 { return max(0, q.limit-q.outside-q.used) }

// Free implements [vfs.FS].
func (q *Quota) Free(string) (uint64, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return uint64(q.left()), nil
}

// Create implements [vfs.FS]; a full disk has no room for a name either.
func (q *Quota) Create(name string) (vfs.File, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.left() == 0 {
		return nil, &fs.PathError{Op: "create", Path: name, Err: syscall.ENOSPC}
	}
	f, err := q.FS.Create(name)
	if err != nil {
		return nil, err
	}
	n := &node{}
	q.nodes[path.Clean(name)] = n
	return &quotaFile{File: f, q: q, node: n, name: name}, nil
}

// OpenReadWrite implements [vfs.FS].
func (q *Quota) OpenReadWrite(name string) (vfs.File, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f, err := q.FS.OpenReadWrite(name)
	if err != nil {
		return nil, err
	}
	n := q.nodes[path.Clean(name)]
	if n == nil { // outside of dir
		n = &node{}
		if n.size, err = f.Size(); err != nil {
			return nil, err
		}
		q.nodes[path.Clean(name)] = n
		q.used += n.size
	}
	return &quotaFile{File: f, q: q, node: n, name: name}, nil
}

// Rename implements [vfs.FS].
func (q *Quota) Rename(oldname, newname string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.FS.Rename(oldname, newname); err != nil {
		return err
	}
	oldname, newname = path.Clean(oldname), path.Clean(newname)
	n := q.nodes[oldname]
	delete(q.nodes, oldname)
	q.drop(newname)
	if n != nil {
		q.nodes[newname] = n
	}
	return nil
}

// Remove implements [vfs.FS].
func (q *Quota) Remove(name string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.FS.Remove(name); err != nil {
		return err
	}
	q.drop(path.Clean(name))
	return nil
}

// drop forgets a file; mu is held.
func (q *Quota) drop(name string) {
	if n := q.nodes[name]; n != nil {
		q.used -= n.size
		n.gone = true
		delete(q.nodes, name)
	}
}

// quotaFile is an open file.
type quotaFile struct {
	vfs.File
	q    *Quota
	node *node
	name string
}

// resize notes the file's new size; mu is held.
func (f *quotaFile) resize(size int64) {
	if !f.node.gone {
		f.q.used += size - f.node.size
	}
	f.node.size = size
}

// fits returns how long the file may get of the size wanted; mu is held.
func (f *quotaFile) fits(size int64) int64 {
	if size <= f.node.size || f.node.gone {
		return size
	}
	return min(size, f.node.size+f.q.left())
}

func (f *quotaFile) full(op string) error {
	return &fs.PathError{Op: op, Path: f.name, Err: syscall.ENOSPC}
}

func (f *quotaFile) WriteAt(b []byte, off int64) (int, error) {
	f.q.mu.Lock()
	defer f.q.mu.Unlock()
	end := off + int64(len(b))
	fits := f.fits(end)
	n, err := f.File.WriteAt(b[:min(int64(len(b)), max(0, fits-off))], off)
	if err != nil {
		return n, err
	}
	f.resize(max(f.node.size, off+int64(n)))
	if n < len(b) {
		return n, f.full("write")
	}
	return n, nil
}

func (f *quotaFile) Truncate(size int64) error {
	f.q.mu.Lock()
	defer f.q.mu.Unlock()
	if f.fits(size) < size {
		return f.full("truncate")
	}
	if err := f.File.Truncate(size); err != nil {
		return err
	}
	f.resize(size)
	return nil
}

func (f *quotaFile) Allocate(size int64) error {
	f.q.mu.Lock()
	defer f.q.mu.Unlock()
	if f.fits(size) < size {
		return f.full("allocate")
	}
	if err := f.File.Allocate(size); err != nil {
		return err
	}
	f.resize(max(f.node.size, size))
	return nil
}
