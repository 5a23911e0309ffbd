package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/raftstore"
	"github.com/logd-io/logd/pkg/vfs"
)

// Replica is one replicated log on one node.
type Replica struct {
	cfg      Config
	logger   hclog.Logger
	metrics  *metrics
	store    *raftstore.Store
	lock     io.Closer // of the data directory
	rules    rules     // allRules, but for tests
	reserve  *reserve  // of disk space
	replayed bool      // test switch, see fsm
	older    bool      // test switch, see reads
	trusting bool      // test switch: retention by age never doubts a clock
	probe    *probe    // of tests; nil in production

	// life serialises what starts and stops Raft; the fields after it are
	// guarded by it.
	life    sync.Mutex
	cluster string // uuid, "" until bound; then it never changes
	running bool   // Run is on its way
	closed  bool

	engine  atomic.Pointer[engine] // nil while Raft does not run
	uuid    atomic.Pointer[string] // cluster, for those who must not wait for life
	confMu  sync.Mutex             // one change of the configuration at a time
	closing chan struct{}          // closed by Close
	ended   chan struct{}          // closed when Run has returned; guarded by life until then

	draining  atomic.Bool  // Drain was called
	transfers atomic.Int32 // Transfers under way

	clocks   clocks // of the other nodes
	keep     keep   // what retention is to leave
	retained *retentionMetrics
	compared *detectorMetrics

	fatal     chan struct{} // closed by the first fatal fault
	fatalErr  error         // written before fatal is closed
	fatalOnce atomic.Bool
	ops       *vfs.Ops      // what the filesystem is at
	hung      chan struct{} // closed when the fatal fault is an operation that hangs: whoever is in it cannot be waited for

	damage   chan struct{}          // capacity 1: damage was found, or Raft could not be started for it
	waitsFor atomic.Pointer[string] // what the repair waits for; nil: nothing is damaged
	shy      shy

	installs chan raftstore.Installed // unbuffered: to Run
	again    chan struct{}            // capacity 1: "start Raft again"; to Run
	stopped  chan struct{}            // capacity 1: Raft stopped by itself

	viewMu sync.Mutex
	led    string               // the leader known last; guarded by viewMu
	view   atomic.Pointer[View] // written under viewMu
	viewed chan struct{}        // closed and replaced, under viewMu, when view changes
}

// Open opens the stores in cfg.Dir, or makes them. It starts nothing; Run does.
func Open(cfg Config) (_ *Replica, err error) {
	if err := checkID(cfg.ID); err != nil {
		return nil, err
	}
	defaults(&cfg)
	r := &Replica{
		cfg: cfg, logger: cfg.Logger, metrics: newMetrics(cfg.Registerer), rules: allRules,
		closing: make(chan struct{}), ended: make(chan struct{}), fatal: make(chan struct{}), hung: make(chan struct{}),
		installs: make(chan raftstore.Installed), again: make(chan struct{}, 1), stopped: make(chan struct{}, 1), viewed: make(chan struct{}),
		damage: make(chan struct{}, 1),
	}
	cfg.FS, r.ops = vfs.Watch(cfg.FS)
	r.cfg.FS = cfg.FS
	if err := cfg.FS.MkdirAll(cfg.Dir); err != nil {
		return nil, fmt.Errorf("create %s: %w", cfg.Dir, err)
	}
	if r.lock, err = cfg.FS.Lock(path.Join(cfg.Dir, lockFile)); err != nil {
		return nil, fmt.Errorf("lock %s: %w", cfg.Dir, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.lock.Close())
		}
	}()
	if err := errors.Join(checkMark(cfg.FS, cfg.Dir), refuseUnfinished(cfg.FS, cfg.Dir)); err != nil {
		return nil, err
	}
	uuid, bound, err := readSmall(cfg.FS, path.Join(cfg.Dir, clusterIDFile))
	if err != nil {
		return nil, err
	}
	if bound {
		if err := checkUUID(uuid); err != nil {
			return nil, fmt.Errorf("read %s: %w", clusterIDFile, err)
		}
		r.setCluster(uuid)
	}
	err = r.guard(func() (err error) {
		r.store, err = raftstore.Open(raftstore.Options{
			FS: cfg.FS, Dir: cfg.Dir, SegmentBytes: cfg.SegmentBytes, CacheBytes: cfg.CacheBytes,
			AllowDamage: cfg.Source != nil, OnDamage: r.spoiled,
			Leads: r.leads, OnRefused: func() { poke(r.again) },
			OnFatal: r.fail, Logger: r.logger.Named("store"), Registerer: cfg.Registerer,
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	if !bound && r.store.HasState() {
		err := &raftstore.CorruptError{Path: path.Join(cfg.Dir, clusterIDFile), Reason: "missing, but there is raft state"}
		return nil, errors.Join(err, r.store.Close())
	}
	r.reserve = &reserve{
		fs: cfg.FS, dir: cfg.Dir, fixed: uint64(cfg.Reserve), segment: uint64(cfg.SegmentBytes),
		most: lastRecordBytes, soon: make(chan struct{}, 1), log: r.store.Log(), logger: r.logger, metrics: r.metrics,
	}
	r.reserve.look()
	r.compared = newDetectorMetrics(cfg.Registerer)
	r.keep.set(cfg.Retain)
	r.retained = newRetentionMetrics(cfg.Registerer, r)
	r.publish(r.idleView())
	return r, nil
}

func defaults(c *Config) {
	if c.Heartbeat == 0 {
		c.Heartbeat = DefaultHeartbeat
	}
	if c.MaxInFlightBytes == 0 {
		c.MaxInFlightBytes = DefaultMaxInFlightBytes
	}
	if c.SegmentBytes == 0 {
		c.SegmentBytes = commitlog.DefaultSegmentBytes
	}
	if c.CheckpointEntries == 0 {
		c.CheckpointEntries = CheckpointEntries
	}
	if c.CheckpointBytes == 0 {
		c.CheckpointBytes = CheckpointBytes
	}
	if c.Announce == 0 {
		c.Announce = DefaultAnnounce
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
}

func (r *Replica) setCluster(uuid string) {
	r.cluster = uuid
	r.uuid.Store(&uuid)
}

func (r *Replica) bound() string {
	if u := r.uuid.Load(); u != nil {
		return *u
	}
	return ""
}

// fail notes the first fatal fault. It is called from whatever goroutine met it,
// which then ends; Run stops everything else.
func (r *Replica) fail(err error) {
	if r.fatalOnce.CompareAndSwap(false, true) {
		r.fatalErr = err
		close(r.fatal)
	}
}

// hang is fail for an operation that hangs. Nothing that it still does counts.
func (r *Replica) hang(err error) {
	close(r.hung) // before Run ends and stops Raft, which must not wait for it
	r.fail(err)
	r.store.Condemn(err)
}

// unlessHung waits for f, but not when an operation hangs, which f may wait for.
func (r *Replica) unlessHung(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-r.hung:
	}
}

// guard runs f, which may end its goroutine on a fatal fault of the store, or
// never end when an operation hangs.
func (r *Replica) guard(f func() error) error {
	result := make(chan error, 1) // capacity 1: f's goroutine never waits
	go func() {
		defer close(result)
		result <- f()
	}()
	select {
	case err, ok := <-result:
		if ok {
			return err
		}
	case <-r.hung:
	}
	if r.store != nil && !r.store.Failed() {
		return errInterrupted
	}
	<-r.fatal
	return &FatalError{Err: r.fatalErr}
}

// errInterrupted ends what met damage that was not known before.
var errInterrupted = errors.New("the log is damaged")

// Run starts Raft, once the node belongs to a cluster, and keeps it going until
// ctx ends, Close is called, Raft stops by itself (ErrRaftStopped) or a fault
// makes that impossible (*FatalError). It may be called once.
func (r *Replica) Run(ctx context.Context) error {
	r.life.Lock()
	if r.running || r.closed {
		r.life.Unlock()
		return ErrClosed
	}
	r.running = true
	stop := make(chan struct{})
	var watches sync.WaitGroup
	watches.Go(func() { r.reserve.run(stop) })
	watches.Go(func() { r.watchDisk(stop) })
	var err error
	if r.cluster != "" {
		err = r.begin()
	}
	r.life.Unlock()
	if err == nil {
		healing, end := context.WithCancel(ctx)
		var healer sync.WaitGroup
		if r.cfg.Source != nil {
			healer.Go(func() { r.heal(healing) })
		}
		if r.cfg.ScrubRate > 0 {
			healer.Go(func() { r.scrub(healing) })
		}
		err = r.serve(ctx)
		end()
		r.unlessHung(healer.Wait)
	}
	r.life.Lock()
	defer r.life.Unlock()
	r.running, r.closed = false, true
	r.stopEngine()
	close(stop)
	r.unlessHung(watches.Wait)
	close(r.ended)
	return err
}

func (r *Replica) serve(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.closing:
			return nil
		case <-r.fatal:
			return &FatalError{Err: r.fatalErr}
		case <-r.stopped:
			return ErrRaftStopped
		case in := <-r.installs:
			if err := r.reinstall(in); err != nil {
				r.fail(err)
			}
		case <-r.again:
			if err := r.restart(); err != nil {
				r.fail(err)
			}
		}
	}
}

// leads says whether this node's Raft leads. On Raft's main goroutine that stays so.
func (r *Replica) leads() bool {
	e := r.engine.Load()
	return e != nil && e.raft.State() == raft.Leader && r.rules.forget
}

// restart starts Raft again over what is stored: it took a configuration for the
// newest that the disk had no room for, and would count votes, commit and take
// checkpoints by it.
func (r *Replica) restart() error {
	r.life.Lock()
	defer r.life.Unlock()
	if r.engine.Load() == nil {
		return nil
	}
	r.logger.Warn("a change of the configuration was refused: the disk is full; raft is started again", "node", r.cfg.ID)
	r.stopEngine()
	poke(r.damage) // the healer was waiting for nothing, if Raft cannot be started
	return r.begin()
}

// Close ends Run, waits for it and for everything it started, and releases the
// data directory. Calling it again is harmless. While a write hangs nothing can
// be released; only the end of the process does that.
func (r *Replica) Close() error {
	r.life.Lock()
	select {
	case <-r.closing:
		r.life.Unlock()
		return nil
	default:
		close(r.closing)
	}
	running := r.running
	r.closed = true
	r.life.Unlock()
	if running {
		<-r.ended
	}
	select {
	case <-r.hung:
		<-r.fatal
		return &FatalError{Err: r.fatalErr}
	default:
	}
	return errors.Join(r.store.Close(), r.lock.Close())
}

// HasState says whether this node was ever part of a cluster.
func (r *Replica) HasState() bool { return r.store.HasState() }

// Log is the log, for reads. It stays the same until Close.
func (r *Replica) Log() *commitlog.Log { return r.store.Log() }

// Raft is for autopilot only: nil while Raft does not run, and another one after
// a checkpoint was installed.
func (r *Replica) Raft() *raft.Raft {
	if e := r.engine.Load(); e != nil {
		return e.raft
	}
	return nil
}

// Bind makes this node, durably and for ever, one of the cluster with that uuid,
// and starts Raft if Run is on its way. Binding it again to the same is nothing.
func (r *Replica) Bind(uuid string) error {
	r.life.Lock()
	defer r.life.Unlock()
	if err := r.bind(uuid); err != nil {
		return err
	}
	if r.running && r.engine.Load() == nil {
		poke(r.damage)
		return r.begin()
	}
	return nil
}

func (r *Replica) bind(uuid string) error {
	if err := checkUUID(uuid); err != nil {
		return err
	}
	switch {
	case r.closed:
		return ErrClosed
	case r.cluster == uuid:
		return nil
	case r.cluster != "":
		return &ClusterMismatchError{Bound: r.cluster, Got: uuid}
	}
	err := r.guard(func() error {
		return vfs.WriteFileAtomic(r.cfg.FS, path.Join(r.cfg.Dir, clusterIDFile), []byte(uuid+"\n"))
	})
	if err != nil {
		return fmt.Errorf("write %s: %w", clusterIDFile, err)
	}
	r.setCluster(uuid)
	return nil
}

// Bootstrap begins the cluster's history with a configuration of these servers,
// all voters, this node among them. It may be called on one node of a cluster
// only; the others learn the configuration by replication. One that a crash
// interrupted is done again.
func (r *Replica) Bootstrap(_ context.Context, uuid string, servers []string) error {
	config := raft.Configuration{}
	self := false
	for _, id := range servers {
		if err := checkID(id); err != nil {
			return err
		}
		self = self || id == r.cfg.ID
		config.Servers = append(config.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	if !self {
		return &InvalidError{Field: "servers", Reason: "this node, " + r.cfg.ID + ", is not among them"}
	}
	r.life.Lock()
	defer r.life.Unlock()
	if r.store.HasState() {
		return ErrHasState
	}
	if err := r.bind(uuid); err != nil {
		return err
	}
	r.stopEngine()
	conf := raftConfig(r.cfg.ID, r.cfg.Heartbeat, r.logger.Named("raft"))
	err := r.guard(func() error {
		if err := r.store.ForgetBootstrap(); err != nil {
			return err
		}
		return raft.BootstrapCluster(conf, r.store, r.store, r.store.Snapshots(), nil, config)
	})
	if err != nil {
		err = fmt.Errorf("bootstrap: %w", err)
	}
	if r.running {
		// Refused or not: as a node of the cluster it goes on.
		err = errors.Join(err, r.startEngine())
	}
	return err
}

// Accept takes over a connection that was dispatched to logd-raft/1, from a node
// whose certificate has that name. It does not wait.
func (r *Replica) Accept(conn net.Conn, certName string) {
	if e := r.engine.Load(); e != nil {
		e.trans.accept(conn, certName)
		return
	}
	_ = conn.Close() // in no cluster, or between two runs of Raft: the peer tries again
}
