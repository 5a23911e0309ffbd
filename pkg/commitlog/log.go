package commitlog

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/logd-io/logd/pkg/vfs"
)

// Log is a commit log. Its methods may be called concurrently.
//
// Three locks (and sweeping, which no reader or writer takes), always taken in this order: writing (entries), publishing
// (offsets), mu (what readers see). The first two are held across I/O, mu
// never is, so that no reader waits for a disk that is being written.
type Log struct {
	fs      vfs.FS
	dir     string
	options Options
	logger  hclog.Logger
	metrics *metrics
	lock    io.Closer // of the directory

	writing     sync.Mutex
	active      *segment         // gets the next frame; nil: the next write opens a new one; guarded by writing
	spares      []spare          // preallocated segments; guarded by writing
	lastCounter uint32           // upper half of the newest segment id; guarded by writing
	durable     vfs.File         // the durable-end file
	durableBuf  [smallBytes]byte // what the durable end's file holds; guarded by writing
	buf         []byte           // encode buffer of Append, reused; guarded by writing
	placed      []int64          // places of the frames of one Append, reused; guarded by writing
	points      []point          // likewise, of the frames not yet written
	released    bool             // Close has closed the files; guarded by writing
	openEnd     durableEnd       // of a quarantined log, as Open found it; zero: none; guarded by writing

	publishing sync.Mutex
	offsetFile *offsetFile // gets the next batch; nil: the next one makes it; guarded by publishing
	offsetBuf  []byte      // encode buffer of Publish, reused; guarded by publishing
	fresh      []batch     // batches of one Publish, reused; guarded by publishing
	// unwritten is how many of the newest batches of recent a full disk kept out
	// of the index's files; guarded by publishing.
	unwritten int

	sweeping sync.Mutex // held by Sweep, across I/O; Close takes it under writing, Sweep takes neither

	mu             sync.RWMutex
	closed         bool
	start          startRecord    // the log begins behind it
	last           tail           // the newest durable entry; start when there is none
	segments       []*segment     // rising; replaced, never changed in place
	cache          cache          // the newest entries
	shape          uint64         // counts the changes that took entries away
	sealed         []*offsetFile  // rising; replaced, never changed in place
	recent         []batch        // batches of offsetFile, and those unwritten
	visible        uint64         // offset the next record gets
	lowest         uint64         // lowest readable offset
	gone           gone           // files below the start that Sweep removes; replaced, never changed in place
	grew           chan struct{}  // closed when visible or closed changes; nil while nobody waits
	damaged        []*damage      // rising, apart; replaced, never changed in place
	damagedOffsets []OffsetDamage // rising; replaced, never changed in place
	// quarantined is set by Open, and cleared when nothing above the newest
	// checkpoint is damaged any more.
	quarantined bool

	scrubbed  Scrubbed   // guarded by mu
	scrubbing sync.Mutex // held by the one pass of Scrub; taken before all others
	examining sync.Mutex // one reader at a time looks how far damage goes; taken before all others

	committed  atomic.Uint64 // never decreases
	applied    atomic.Uint64 // see Applied
	failed     atomic.Pointer[FatalError]
	lastSync   atomic.Int64 // ns
	slowSyncs  atomic.Uint64
	spareReady atomic.Bool  // the next segment is preallocated
	spareBytes atomic.Int64 // of spares
}

// tail is the newest entry.
type tail struct{ index, term uint64 }

// Open opens the log in o.Dir, made if absent, and recovers it: a torn tail is
// cut, what was not known to be synced is written again. It returns a
// *CorruptError, having changed nothing, when there is other damage, unless
// Options.AllowDamage says otherwise.
func Open(o Options) (_ *Log, err error) {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = DefaultSegmentBytes
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	if o.OffsetBatches == 0 {
		o.OffsetBatches = DefaultOffsetBatches
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	l := &Log{fs: o.FS, dir: o.Dir, options: o, logger: o.Logger, cache: cache{limit: o.CacheBytes}}
	if l.metrics, err = newMetrics(o.Registerer); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	if err := l.fs.MkdirAll(l.dir); err != nil {
		return nil, fmt.Errorf("make directory %s: %w", l.dir, err)
	}
	if l.lock, err = l.fs.Lock(l.path(lockFile)); err != nil {
		return nil, fmt.Errorf("lock log: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(plain(err), l.release())
		}
	}()
	if err := l.recoverEntries(); err != nil {
		return nil, fmt.Errorf("open log %s: %w", l.dir, err)
	}
	if err := l.recoverOffsets(); err != nil {
		return nil, fmt.Errorf("open offset index %s: %w", l.dir, err)
	}
	for _, d := range l.damaged {
		l.tell(d)
	}
	return l, nil
}

func (l *Log) path(name string) string { return l.dir + "/" + name }

// check returns why no call may go on, if there is a reason.
func (l *Log) check() error {
	if f := l.failed.Load(); f != nil {
		return f
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return ErrClosed
	}
	return nil
}

// firstFailure carries the FatalError to the call that met it, which reports
// it once it holds no lock.
type firstFailure struct{ *FatalError }

// fatal records the failure of op; the first one counts.
func (l *Log) fatal(op, path string, err error) error {
	f := &FatalError{Op: op, Path: path, Err: err}
	if !l.failed.CompareAndSwap(nil, f) {
		return l.failed.Load()
	}
	l.mu.Lock()
	l.wake()
	l.mu.Unlock()
	return firstFailure{f}
}

// report ends every call that may fail fatally; no lock is held.
func (l *Log) report(err error) error {
	if err == nil {
		return nil // nothing is allocated for errors.As
	}
	var first firstFailure
	if !errors.As(err, &first) {
		return err
	}
	l.logger.Error("log failed", "op", first.Op, "path", first.Path, "err", first.Err)
	if l.options.OnFatal != nil {
		l.options.OnFatal(first.FatalError)
	}
	return first.FatalError
}

// plain turns a failure that nobody reports, in Open, into what it says.
func plain(err error) error {
	var first firstFailure
	if errors.As(err, &first) {
		return first.FatalError
	}
	return err
}

// Fail declares the log failed from outside, as when a write hangs: every
// later call returns the same *FatalError, and a write under way never
// succeeds. It waits for nothing.
func (l *Log) Fail(cause error) {
	_ = l.report(l.fatal("declared failed", "", cause)) // the callers get it
}

// shortWrite is the error of a write that was not whole.
func shortWrite(err error) error {
	if err == nil {
		return io.ErrShortWrite
	}
	return err
}

// syncFile syncs a file that entries are in, and times it.
func (l *Log) syncFile(f vfs.File, path string) error {
	begin := time.Now()
	if err := f.Sync(); err != nil {
		return l.fatal("sync", path, err)
	}
	took := time.Since(begin)
	l.lastSync.Store(int64(took))
	if took >= SlowSync {
		l.slowSyncs.Add(1)
	}
	l.metrics.sync.Observe(took.Seconds())
	return nil
}

func (l *Log) syncDir() error {
	if err := l.fs.SyncDir(l.dir); err != nil {
		return l.fatal("sync directory", l.dir, err)
	}
	return nil
}

// remove deletes a file; it is gone for good after the next syncDir.
func (l *Log) remove(name string) error {
	if err := l.fs.Remove(l.path(name)); err != nil {
		return l.fatal("remove", l.path(name), err)
	}
	return nil
}

// SetCommitted says that the entries up to index are committed. Later frames
// carry it, and no truncation reaches it. It never decreases.
func (l *Log) SetCommitted(index uint64) {
	for {
		c := l.committed.Load()
		if index <= c || l.committed.CompareAndSwap(c, index) {
			return
		}
	}
}

// First returns the index of the first entry: Start().Index+1.
func (l *Log) First() uint64 { return l.Start().Index + 1 }

// Last returns the index of the newest durable entry; First()-1 when there is
// none.
func (l *Log) Last() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.last.index
}

// Start returns where the log begins.
func (l *Log) Start() Start {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.start.Start
}

// Stats returns figures for operators.
func (l *Log) Stats() Stats {
	l.mu.RLock()
	s := Stats{
		First:         l.start.Index + 1,
		Last:          l.last.index,
		Committed:     l.committed.Load(),
		Lowest:        l.lowest,
		Next:          l.visible,
		Segments:      len(l.segments),
		CacheBytes:    l.cache.bytes,
		CacheEntries:  l.cache.n,
		OffsetBatches: uint64(len(l.recent)),
		Spare:         l.spareReady.Load(),
		LastSync:      time.Duration(l.lastSync.Load()),
		SlowSyncs:     l.slowSyncs.Load(),
	}
	for _, f := range l.sealed {
		s.OffsetBatches += uint64(f.count)
	}
	for _, d := range l.damaged {
		s.Damaged += d.Entries()
	}
	s.Quarantined, s.Scrub = l.quarantined, l.scrubbed
	s.Going, s.GoingBytes = l.going()
	segments := l.segments
	l.mu.RUnlock()
	for _, seg := range segments {
		s.Bytes += seg.length()
	}
	s.Unused = l.spareBytes.Load()
	if n := len(segments); n > 0 {
		s.Unused += segments[n-1].unused()
	}
	return s
}

// Close releases the files. Nothing is lost by not calling it. After Fail it
// does not wait for a write that hangs: that call closes the files when the
// disk lets go of it.
func (l *Log) Close() error {
	l.mu.Lock()
	again := l.closed
	l.closed = true
	l.wake()
	l.mu.Unlock()
	if again {
		return nil
	}
	if !l.writing.TryLock() {
		if l.failed.Load() != nil {
			return nil
		}
		l.writing.Lock()
	}
	defer l.writing.Unlock()
	return l.release()
}

// finish ends a call that held the writing lock: when Close did not wait for
// it, it does what Close left.
func (l *Log) finish() {
	l.mu.RLock()
	abandoned := l.closed && l.failed.Load() != nil
	l.mu.RUnlock()
	if abandoned {
		if err := l.release(); err != nil {
			l.logger.Warn("close after a failure", "err", err)
		}
	}
	l.writing.Unlock()
}

// release closes everything; the writing lock is held, or nobody else has l.
func (l *Log) release() (err error) {
	if l.released {
		return nil
	}
	l.released = true
	publisher := l.publishing.TryLock()
	if !publisher && l.failed.Load() == nil {
		l.publishing.Lock()
		publisher = true
	}
	sweeper := l.sweeping.TryLock()
	if !sweeper && l.failed.Load() == nil {
		l.sweeping.Lock()
		sweeper = true
	}
	l.mu.Lock()
	segments, sealed, gone := l.segments, l.sealed, l.cutGone()
	l.segments, l.sealed = nil, nil
	l.mu.Unlock()
	if sweeper {
		l.sweeping.Unlock()
	}
	if publisher {
		if l.offsetFile != nil {
			err = errors.Join(err, l.offsetFile.handle.release())
		}
		l.publishing.Unlock()
	} // else a hung write has that file
	for _, f := range append(sealed, gone.offsets...) {
		err = errors.Join(err, f.handle.release())
	}
	for _, s := range l.spares {
		err = errors.Join(err, s.file.Close())
	}
	for _, s := range append(segments, gone.segments...) {
		err = errors.Join(err, s.handle.release())
	}
	if l.durable != nil {
		err = errors.Join(err, l.durable.Close())
	}
	return errors.Join(err, l.lock.Close())
}
