package replica

import (
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// simDisk is the disk of one life of a node: slow, at times full, broken or
// stuck, and gone when the life is over.
//
// No operation takes virtual time: many happen under a mutex, and a goroutine
// that waits for a mutex keeps a bubble's clock from moving. Time passes around
// the calls of Raft's (simStore), and what has to happen in the middle of a write
// happens at an operation, see arm.
type simDisk struct {
	mem *memfs.FS
	fs  vfs.FS

	dead   atomic.Bool  // every operation fails
	full   atomic.Bool  // nothing new fits
	broken atomic.Bool  // the next write or sync fails
	fuse   atomic.Int64 // operations until what arm asked for; 0: not armed

	mu     sync.Mutex
	rng    *rand.Rand    // guarded by mu
	slow   time.Duration // mean of a sync; guarded by mu
	frozen chan struct{} // closed by thaw; nil: it is not frozen; guarded by mu
	burn   func()        // guarded by mu
}

func newSimDisk(mem *memfs.FS, rng *rand.Rand, slow time.Duration, lies bool) *simDisk {
	d := &simDisk{mem: mem, rng: rng, slow: slow}
	d.fs = faultfs.Wrap(mem, faultfs.When(func(faultfs.Op) bool { return true }, d.act))
	if lies {
		d.fs = lyingFS{d.fs}
	}
	return d
}

// arm has burn called in the middle of the nth changing operation from now on.
func (d *simDisk) arm(n int, burn func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.burn = burn
	d.fuse.Store(int64(n))
}

// act decides about an operation.
func (d *simDisk) act(op faultfs.Op) (int, error) {
	if d.dead.Load() {
		return 0, syscall.EIO
	}
	switch op.Kind {
	case faultfs.Write, faultfs.Sync, faultfs.SyncDir, faultfs.Create, faultfs.Rename, faultfs.Remove, faultfs.Truncate, faultfs.Allocate:
	default:
		return -1, nil
	}
	if d.fuse.Load() > 0 && d.fuse.Add(-1) == 0 {
		d.mu.Lock()
		burn := d.burn
		d.mu.Unlock()
		burn()
		return 0, syscall.EIO
	}
	switch {
	case d.full.Load() && (op.Kind == faultfs.Create || op.Kind == faultfs.Allocate):
		return 0, syscall.ENOSPC
	case (op.Kind == faultfs.Write || op.Kind == faultfs.Sync) && d.broken.CompareAndSwap(true, false):
		if op.Kind == faultfs.Sync {
			// What a kernel does then: the pages count as clean.
			_ = d.mem.MarkClean(op.Path)
		}
		return 0, syscall.EIO
	}
	return -1, nil
}

// wait passes the time that a durable write takes, while the disk is not stuck.
func (d *simDisk) wait() {
	d.mu.Lock()
	frozen := d.frozen
	took := time.Duration(d.rng.Int64N(int64(2*d.slow) + 1))
	if d.rng.IntN(100) == 0 {
		took *= 10
	}
	d.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
	if !d.dead.Load() {
		time.Sleep(took)
	}
}

// freeze makes every write wait for thaw.
func (d *simDisk) freeze() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.frozen == nil {
		d.frozen = make(chan struct{})
	}
}

func (d *simDisk) thaw() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.frozen != nil {
		close(d.frozen)
		d.frozen = nil
	}
}

// die makes everything from now on fail.
func (d *simDisk) die() {
	d.dead.Store(true)
	d.thaw()
}

// lyingFS is a planted bug: syncs of segments do nothing.
type lyingFS struct{ vfs.FS }

func (l lyingFS) wrap(f vfs.File, name string, err error) (vfs.File, error) {
	if b := path.Base(name); err == nil && (strings.HasSuffix(b, ".seg") || strings.HasSuffix(b, ".free")) {
		return lyingFile{f}, nil
	}
	return f, err
}

func (l lyingFS) Create(name string) (vfs.File, error) {
	f, err := l.FS.Create(name)
	return l.wrap(f, name, err)
}

func (l lyingFS) OpenReadWrite(name string) (vfs.File, error) {
	f, err := l.FS.OpenReadWrite(name)
	return l.wrap(f, name, err)
}

type lyingFile struct{ vfs.File }

func (lyingFile) Sync() error { return nil }
