package raftstore

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/logd-io/logd/internal/planted"
	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs"
)

// What a data directory holds, below Options.Dir.
const (
	logDir        = "log"
	checkpointDir = "checkpoints"
	stableFile    = "raft-state"
)

// Options says where a store is. Zero sizes mean commitlog's defaults.
type Options struct {
	FS           vfs.FS
	Dir          string
	SegmentBytes int64
	CacheBytes   int64

	// AllowDamage lets Open succeed over damage that can be repaired: see Damage.
	AllowDamage bool
	// OnDamage is called when a run of entries, or a file of the offset index, is
	// found damaged, at Open and later, from the goroutine that found it. It must
	// not block, nor call back into the store.
	OnDamage func()
	// Leads says whether Raft leads just now. A leader whose configuration is refused
	// for a full disk goes on as if it were in the log (hashicorp/raft v1.8.0,
	// appendConfigurationEntry), so its goroutine ends before it learns of the
	// refusal, and OnRefused has it started again. nil: it never leads.
	Leads     func() bool
	OnRefused func()

	// OnFatal is called once, with the first fatal fault, from the goroutine
	// that met it. It must not call back into the store, nor wait for Raft.
	OnFatal func(error)

	Logger     hclog.Logger          // nil: quiet
	Registerer prometheus.Registerer // nil: no metrics

	Planted planted.Storage // bugs of the log, in tests; none is set anywhere else
}

// CorruptError reports damage to a file of the store that no crash explains.
type CorruptError struct{ Path, Reason string }

func (e *CorruptError) Error() string { return e.Path + ": corrupt: " + e.Reason }

// ErrPrefix refuses a deletion that would leave entries above it: only retention
// moves the beginning of the log, and Raft never does.
var ErrPrefix = errors.New("raft may only truncate the end of the log")

// Store is raft.LogStore and raft.StableStore; Snapshots gives the third.
type Store struct {
	fs     vfs.FS
	log    *commitlog.Log
	stable *stable
	checks *checkpoints
	logger hclog.Logger

	onDamage    func()      // nil: damage that Raft must not see is fatal
	leads       func() bool // nil: never
	onRefused   func()
	interrupted atomic.Bool // damage ended a goroutine of Raft's
	starting    atomic.Bool // see Starting

	onFatal func(error)
	dead    atomic.Bool // set by the first fatal fault, before onFatal is called

	// gate keeps the files open under a call of Raft's: each holds it shared,
	// Close takes it. closed is guarded by it.
	gate   sync.RWMutex
	closed bool

	cold cold                 // entries read from disk last
	read func()               // what a test does when an entry has been read from disk; nil otherwise
	noop atomic.Pointer[Mark] // the newest no-op Raft stored here
	full atomic.Uint64        // calls that Raft was refused for a full disk
	cut  bool                 // the end was cut and nothing stored since; of Raft's main goroutine
}

// Mark is the place of an entry.
type Mark struct{ Index, Term uint64 }

var (
	_ raft.LogStore          = (*Store)(nil)
	_ raft.MonotonicLogStore = (*Store)(nil)
	_ raft.StableStore       = (*Store)(nil)
)

// Open opens the store in o.Dir, or makes one. It finishes an installed
// checkpoint that a crash interrupted, and refuses damage with a CorruptError of
// this package or of commitlog.
func Open(o Options) (_ *Store, err error) {
	s := &Store{fs: o.FS, logger: o.Logger, onFatal: o.OnFatal, onDamage: o.OnDamage,
		leads: o.Leads, onRefused: o.OnRefused}
	if s.logger == nil {
		s.logger = hclog.NewNullLogger()
	}
	if s.onFatal == nil {
		s.onFatal = func(error) {}
	}
	dir := path.Join(o.Dir, checkpointDir)
	if err := o.FS.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("create %s: %w", dir, err)
	}
	if err := removeTemps(o.FS, o.Dir, dir); err != nil {
		return nil, err
	}
	// After a kill the newest names may not be durable yet, and the log will be
	// changed by what they say.
	for _, dir := range []string{dir, o.Dir} {
		if err := o.FS.SyncDir(dir); err != nil {
			return nil, fmt.Errorf("sync directory %s: %w", dir, err)
		}
	}
	err = whole(o.FS, o.Dir)
	lost := o.AllowDamage && isCorrupt(err)
	if err != nil && !lost {
		return nil, err
	}
	if s.stable, err = openStable(o.FS, path.Join(o.Dir, stableFile), o.AllowDamage, lost); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stable.close())
		}
	}()
	if _, err := o.FS.Stat(path.Join(o.Dir, logDir)); errors.Is(err, fs.ErrNotExist) && s.stable.known() {
		return nil, &CorruptError{Path: path.Join(o.Dir, logDir), Reason: "missing, but this node has a term or a vote"}
	}
	if s.checks, err = openCheckpoints(o.FS, dir, s.logger); err != nil {
		return nil, err
	}
	lo := commitlog.Options{
		FS: o.FS, Dir: path.Join(o.Dir, logDir),
		SegmentBytes: o.SegmentBytes, CacheBytes: o.CacheBytes,
		AllowDamage: o.AllowDamage, OnFatal: s.failed, Logger: s.logger.Named("log"), Registerer: o.Registerer, Planted: o.Planted,
	}
	if o.OnDamage != nil {
		lo.OnDamage = func(commitlog.Damage) { o.OnDamage() }
		lo.OnOffsetDamage = func(commitlog.OffsetDamage) { o.OnDamage() }
	}
	newest := s.checks.newest()
	if newest != nil {
		lo.VerifiedTo, lo.KnownCommit = newest.index, newest.index
		if newest.reset {
			lo.Reset = newest.start()
		}
	}
	if s.log, err = s.openLog(lo); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.log.Close())
		}
	}()
	if err := s.checks.settle(s.log.Start(), s.log.Last(), o.AllowDamage); err != nil {
		return nil, err
	}
	return s, nil
}

// openLog opens the log. Where the offset index, through damage, does not reach
// to the newest checkpoint, an older one will be restored, or none, and the
// entries above that one are replayed: they have to be verified, too.
func (s *Store) openLog(o commitlog.Options) (*commitlog.Log, error) {
	log, err := commitlog.Open(o)
	if err != nil || o.VerifiedTo == 0 {
		return log, err
	}
	restored := uint64(0)
	if h := s.checks.covered(log.Visible()); h != nil {
		restored = h.index
	}
	if restored == o.VerifiedTo {
		return log, nil
	}
	s.logger.Warn("the offset index is damaged: an older checkpoint is restored", "index", restored, "newest", o.VerifiedTo)
	if err := log.Close(); err != nil {
		return nil, err
	}
	o.VerifiedTo, o.Reset = restored, nil
	return commitlog.Open(o)
}

// whole refuses a directory that lost the file of Raft's term and vote, which
// Open makes before the log: a node that forgot its vote could give it twice.
func whole(fsys vfs.FS, dir string) error {
	_, err := fsys.Stat(path.Join(dir, stableFile))
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, err = fsys.Stat(path.Join(dir, logDir))
	switch {
	case err == nil:
		return &CorruptError{Path: path.Join(dir, stableFile), Reason: "missing, but there is a log"}
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return err
}

// isCorrupt tells damage from a disk that does not read.
func isCorrupt(err error) bool {
	var c *CorruptError
	return errors.As(err, &c)
}

// removeTemps deletes what an interrupted WriteFileAtomic left in dirs.
func removeTemps(fsys vfs.FS, dirs ...string) error {
	for _, dir := range dirs {
		names, err := fsys.List(dir)
		if err != nil {
			return fmt.Errorf("list %s: %w", dir, err)
		}
		for _, n := range names {
			if strings.HasSuffix(n, vfs.TempSuffix) {
				if err := fsys.Remove(path.Join(dir, n)); err != nil {
					return fmt.Errorf("remove %s: %w", n, err)
				}
			}
		}
	}
	return nil
}

// Log is the log itself, for readers and the state machine.
func (s *Store) Log() *commitlog.Log { return s.log }

// Noop is the newest no-op stored since Open: a leader's first entry of its
// term. It is zero before there was one.
func (s *Store) Noop() Mark {
	if m := s.noop.Load(); m != nil {
		return *m
	}
	return Mark{}
}

// Full counts the calls that were refused because the disk is full.
func (s *Store) Full() uint64 { return s.full.Load() }

// HasState says whether this node was ever part of a cluster. A term of 1
// without any entry or vote is not state: it is what a crash inside
// raft.BootstrapCluster leaves, and nothing else does, since the first election
// has term 2.
func (s *Store) HasState() bool {
	return s.log.Last() > 0 || s.checks.newest() != nil || s.stable.term() > 1 || s.stable.voted()
}

// HasCheckpoint says whether there is a state to restore.
func (s *Store) HasCheckpoint() bool { return s.checks.covered(s.log.Visible()) != nil }

// ForgetBootstrap undoes the term that an interrupted bootstrap left, so that it
// can be done again. It does nothing to a store with state.
func (s *Store) ForgetBootstrap() error {
	if s.HasState() || s.stable.term() == 0 {
		return nil
	}
	return s.stable.set(keyCurrentTerm, make([]byte, 8))
}

// failed notes the first fatal fault and reports it.
func (s *Store) failed(err error) {
	if s.dead.CompareAndSwap(false, true) {
		s.logger.Error("fatal storage fault", "err", err)
		s.onFatal(err)
	}
}

// Condemn makes err the store's fatal fault from outside, as when an operation
// hangs. It waits for nothing; calls under way do not return to Raft either.
func (s *Store) Condemn(err error) {
	s.failed(err)
	s.log.Fail(err)
}

// Fail makes err the store's fatal fault and ends the calling goroutine: it
// never returns. Whoever calls it must be a goroutine of Raft's, or one whose
// owner learns of its end otherwise.
func (s *Store) Fail(err error) {
	s.failed(err)
	s.log.Fail(err)
	runtime.Goexit()
}

// enter begins a call of Raft's. After a fatal fault, or Close, it ends the
// calling goroutine instead: Raft panics on some errors and retries on others,
// so nothing may return to it.
func (s *Store) enter() {
	s.gate.RLock()
	if s.closed || s.dead.Load() {
		s.gate.RUnlock()
		runtime.Goexit()
	}
}

func (s *Store) leave() { s.gate.RUnlock() }

// Close releases the files. Calls of Raft's still to come do not return.
func (s *Store) Close() error {
	s.gate.Lock()
	defer s.gate.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return errors.Join(s.log.Close(), s.stable.close())
}
