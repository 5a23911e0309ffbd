// Package memfs is a filesystem in memory that knows what was synced, so that a
// test can crash it.
//
// The invariant: a crashed clone holds everything that was synced, and of the
// rest only what a disk could have kept; crash.go says what that is. Clones
// share the bytes that nobody changes, so that states by the million are cheap.
//
// Tests call it, and the simulations built from them. It models neither a slow
// nor a failing disk; faultfs does.
package memfs

import (
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"path"
	"sync"
	"syscall"

	"github.com/logd-io/logd/pkg/vfs"
)

// SectorBytes is what a disk writes atomically.
const SectorBytes = 512

// FS is the filesystem. It is safe for concurrent use.
type FS struct {
	mu     sync.Mutex
	disk   *disk           // guarded by mu
	last   uint64          // newest inode number; guarded by mu
	locked map[string]bool // guarded by mu; gone after a crash
	base   *disk           // the disk before journal; nil when not recording
	ops    []op            // guarded by mu; grows only when recording
	past   *disk           // the disk after pastN of ops; guarded by mu
	pastN  int
	count  int // operations so far; guarded by mu
	syncs  int // file syncs so far; guarded by mu
}

var (
	_ vfs.FS     = (*FS)(nil)
	_ vfs.Mapper = (*FS)(nil)
)

// New returns an empty filesystem.
func New() *FS { return &FS{disk: newDisk(), locked: map[string]bool{}} }

// NewRecording returns one that remembers every operation, for CrashAt.
func NewRecording() *FS { return New().Record() }

// Record starts a new recording from the present state and returns f.
func (f *FS) Record() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.base, f.ops, f.count, f.past = f.disk.clone(), nil, 0, nil
	return f
}

// Ops returns the number of changing operations so far, syncs included; since
// Record, when recording.
func (f *FS) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// Syncs returns the number of file syncs so far.
func (f *FS) Syncs() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.syncs
}

// Crash returns what a power loss now may leave, chosen by seed. f goes on
// unchanged.
func (f *FS) Crash(seed uint64) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.crashed(f.disk, Random(seed))
}

// CrashAt returns what a power loss after the first n recorded operations may
// have left, chosen by seed.
func (f *FS) CrashAt(n int, seed uint64) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.crashed(f.replay(n), Random(seed))
}

// CrashWith is CrashAt with ch deciding.
func (f *FS) CrashWith(n int, ch Chooser) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.crashed(f.replay(n), ch)
}

// KillAt returns what a kill of the process after the first n recorded
// operations leaves: all of them, but what was not synced may be lost later.
func (f *FS) KillAt(n int) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &FS{disk: f.replay(n).clone(), last: f.last, locked: map[string]bool{}}
}

// Kill is KillAt now; it needs no recording.
func (f *FS) Kill() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &FS{disk: f.disk.clone(), last: f.last, locked: map[string]bool{}}
}

// replay returns the disk after n recorded operations, not to be changed. One
// who asks for them in order pays for each operation once.
func (f *FS) replay(n int) *disk {
	if f.base == nil || n > len(f.ops) {
		panic(fmt.Sprintf("memfs: %d of %d operations were recorded", n, len(f.ops)))
	}
	if f.past == nil || f.pastN > n {
		f.past, f.pastN = f.base.clone(), 0
	}
	for ; f.pastN < n; f.pastN++ {
		f.past.apply(f.ops[f.pastN])
	}
	return f.past
}

func (f *FS) crashed(d *disk, ch Chooser) *FS {
	return &FS{disk: d.crash(ch), last: f.last, locked: map[string]bool{}}
}

// Sum hashes all names and bytes, synced or not: equal states have equal sums
// for the same seed.
func (f *FS) Sum(seed maphash.Seed) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.disk.sum(seed)
}

// do applies an operation; f.mu is held.
func (f *FS) do(o op) {
	f.disk.apply(o)
	f.count++
	if f.base != nil {
		f.ops = append(f.ops, o)
	}
}

// Create implements [vfs.FS].
func (f *FS) Create(name string) (vfs.File, error) {
	name = path.Clean(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.disk.dirs[path.Dir(name)] == nil {
		return nil, pathError("create", name, fs.ErrNotExist)
	}
	if _, ok := f.disk.lookup(name); ok || f.disk.dirs[name] != nil {
		return nil, pathError("create", name, fs.ErrExist)
	}
	f.last++
	f.do(op{kind: opCreate, inode: f.last})
	f.do(op{kind: opRebind, path: path.Dir(name), re: rebinding{bind: path.Base(name), inode: f.last}})
	return f.handle(f.last, name, true), nil
}

// Open implements [vfs.FS].
func (f *FS) Open(name string) (vfs.File, error) { return f.open(name, false) }

// OpenReadWrite implements [vfs.FS].
func (f *FS) OpenReadWrite(name string) (vfs.File, error) { return f.open(name, true) }

func (f *FS) open(name string, write bool) (vfs.File, error) {
	name = path.Clean(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	id, ok := f.disk.lookup(name)
	if !ok {
		return nil, pathError("open", name, fs.ErrNotExist)
	}
	return f.handle(id, name, write), nil
}

func (f *FS) handle(id uint64, name string, write bool) *file {
	n := f.disk.inodes[id]
	n.opens++
	return &file{fs: f, node: n, inode: id, name: name, write: write}
}

// Rename implements [vfs.FS]; both names must be in one directory.
func (f *FS) Rename(oldname, newname string) error {
	oldname, newname = path.Clean(oldname), path.Clean(newname)
	f.mu.Lock()
	defer f.mu.Unlock()
	id, ok := f.disk.lookup(oldname)
	if !ok {
		return pathError("rename", oldname, fs.ErrNotExist)
	}
	if path.Dir(oldname) != path.Dir(newname) {
		return pathError("rename", newname, syscall.EXDEV)
	}
	f.do(op{kind: opRebind, path: path.Dir(oldname), re: rebinding{unbind: path.Base(oldname), bind: path.Base(newname), inode: id}})
	return nil
}

// Remove implements [vfs.FS].
func (f *FS) Remove(name string) error {
	name = path.Clean(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.disk.lookup(name); !ok {
		return pathError("remove", name, fs.ErrNotExist)
	}
	f.do(op{kind: opRebind, path: path.Dir(name), re: rebinding{unbind: path.Base(name)}})
	return nil
}

// List implements [vfs.FS].
func (f *FS) List(dir string) ([]string, error) {
	dir = path.Clean(dir)
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.disk.dirs[dir]
	if d == nil {
		return nil, pathError("list", dir, fs.ErrNotExist)
	}
	names := copyNames(d.live)
	for other := range f.disk.dirs {
		if other != dir && path.Dir(other) == dir {
			names[path.Base(other)] = 0
		}
	}
	return sortedKeys(names), nil
}

// MkdirAll implements [vfs.FS].
func (f *FS) MkdirAll(dir string) error {
	dir = path.Clean(dir)
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, c := range dir + "/" {
		if c != '/' || i == 0 {
			continue
		}
		if _, ok := f.disk.lookup(dir[:i]); ok {
			return pathError("mkdir", dir[:i], syscall.ENOTDIR)
		}
		if f.disk.dirs[dir[:i]] == nil {
			f.do(op{kind: opMkdir, path: dir[:i]})
		}
	}
	return nil
}

// Stat implements [vfs.FS].
func (f *FS) Stat(name string) (vfs.Info, error) {
	name = path.Clean(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.disk.dirs[name] != nil {
		return vfs.Info{IsDir: true}, nil
	}
	id, ok := f.disk.lookup(name)
	if !ok {
		return vfs.Info{}, pathError("stat", name, fs.ErrNotExist)
	}
	return vfs.Info{Size: f.disk.inodes[id].live.size}, nil
}

// SyncDir implements [vfs.FS].
func (f *FS) SyncDir(dir string) error {
	dir = path.Clean(dir)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.disk.dirs[dir] == nil {
		return pathError("sync", dir, fs.ErrNotExist)
	}
	f.do(op{kind: opSyncDir, path: dir})
	return nil
}

// Lock implements [vfs.FS]; the lock has no file.
func (f *FS) Lock(name string) (io.Closer, error) {
	name = path.Clean(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.locked[name] {
		return nil, pathError("lock", name, vfs.ErrLocked)
	}
	f.locked[name] = true
	return &lock{fs: f, name: name}, nil
}

// Free implements [vfs.FS]: memory is taken to be endless.
func (f *FS) Free(string) (uint64, error) { return 1 << 40, nil }

// Map implements [vfs.Mapper] with a copy.
func (f *FS) Map(name string) (vfs.Mapping, error) {
	b, err := vfs.ReadFile(f, name)
	if err != nil {
		return nil, err
	}
	return mapping(b), nil
}

// Corrupt flips bits of the byte at place in name, durably and unseen by any
// sync: a disk that lies.
func (f *FS) Corrupt(name string, place int64, mask byte) error {
	name = path.Clean(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	id, ok := f.disk.lookup(name)
	if !ok {
		return pathError("corrupt", name, fs.ErrNotExist)
	}
	f.do(op{kind: opCorrupt, inode: id, off: place, data: []byte{mask}})
	return nil
}

// MarkClean forgets the unsynced writes of name without undoing them, as a
// kernel does after a failed fsync: a process goes on reading them, a later
// sync succeeds, and a power loss undoes them all the same.
func (f *FS) MarkClean(name string) error {
	name = path.Clean(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	id, ok := f.disk.lookup(name)
	if !ok {
		return pathError("mark clean", name, fs.ErrNotExist)
	}
	f.do(op{kind: opMarkClean, inode: id})
	return nil
}

type mapping []byte

func (m mapping) Bytes() []byte { return m }
func (m mapping) Close() error  { return nil }

type lock struct {
	fs   *FS
	name string
	once sync.Once
}

func (l *lock) Close() error {
	l.once.Do(func() {
		l.fs.mu.Lock()
		defer l.fs.mu.Unlock()
		delete(l.fs.locked, l.name)
	})
	return nil
}

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}
