package replica

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/raftstore"
)

// engine is one run of Raft with all that serves it. A replica has at most one
// at a time; installing a checkpoint ends it and begins another over the same
// stores.
type engine struct {
	r     *Replica
	raft  *raft.Raft
	trans *transport
	fsm   *fsm
	batch *batcher
	reads *reads

	detector *detector

	voters voters // how their disks stand

	changed  chan struct{} // capacity 1: "something a View shows may have changed"
	maintain chan struct{} // capacity 1: "a checkpoint or retention may be due"
	done     chan struct{} // closed when Raft's goroutines have ended
	stop     chan struct{} // closed after done; ends ours
	wg       sync.WaitGroup

	stopping atomic.Bool // stopEngine was called

	lead   atomic.Uint64 // newest term in which an entry of ours, as its leader, was applied
	ready  atomic.Bool   // once true, stays true
	target atomic.Uint64 // commit index that makes a follower ready, 0: none heard yet
}

// startEngine starts Raft over the replica's stores. r.life must be held.
func (r *Replica) startEngine() (err error) {
	e := &engine{
		r:        r,
		changed:  make(chan struct{}, 1),
		maintain: make(chan struct{}, 1),
		done:     make(chan struct{}),
		stop:     make(chan struct{}),
	}
	e.reads = newReads(e.readRound, r.older)
	e.detector = &detector{e: e, metrics: r.compared, wake: make(chan struct{}, 1)}
	snaps := r.store.Snapshots()
	log := r.store.Log()
	logger := newRaftLog(r.logger, e.stopping.Load)
	e.fsm = &fsm{
		log: log, cluster: r.cluster, fail: r.store.Fail, moved: e.moved, m: newMachine(),
		checkpointEntries: r.cfg.CheckpointEntries, checkpointBytes: r.cfg.CheckpointBytes,
		replayed: r.replayed, compared: e.detector.compared, probe: r.probe, settled: e.ready.Load,
	}
	e.fsm.m.bugs = r.probe.planted()
	if r.probe != nil && r.probe.made != nil {
		r.probe.made(e.fsm.m, 0)
	}
	e.trans = &transport{
		id: r.cfg.ID, cluster: r.cluster, dial: r.cfg.Dial, logger: logger.Named("transport"), rules: r.rules,
		start: func() (uint64, uint64) { s := log.Start(); return s.Index, s.Term },
		flip:  snaps.Flip, heard: e.heard, replicates: e.replicates, install: e.install, reads: e.reads,
		takes: r.reserve.admit, low: r.reserve.low, full: r.store.Full, answered: e.voters.heard,
		shy: func() bool { return r.shy.on(time.Now()) },
	}
	if r.probe != nil {
		e.trans.sends = r.probe.sends
	}
	e.trans.open()
	conf := raftConfig(r.cfg.ID, r.cfg.Heartbeat, logger.Named("raft"))
	err = r.guard(func() (err error) {
		if !r.store.HasCheckpoint() {
			// Nothing will be restored: every entry is applied from the first on.
			if err := log.Rewind(log.Start().Offset); err != nil {
				return err
			}
		}
		e.raft, err = r.newRaft(conf, e.fsm, snaps, e.trans)
		return err
	})
	if err != nil {
		return errors.Join(fmt.Errorf("start raft: %w", err), e.trans.Close())
	}
	e.batch = newBatcher(func(b []byte) raft.ApplyFuture { return e.raft.Apply(b, 0) },
		e.notLeader, r.cfg.MaxInFlightBytes, e.done, e.stop, r.metrics)
	e.batch.bugs, e.batch.next = r.probe.planted(), log.Visible
	e.raft.RegisterObserver(raft.NewObserver(nil, false, func(o *raft.Observation) bool {
		if s, ok := o.Data.(raft.RaftState); ok && r.probe != nil && r.probe.state != nil {
			r.probe.state(o.Raft, s)
		}
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState, raft.PeerObservation:
			poke(e.changed)
		}
		return false // nothing is sent: whoever is poked looks for itself
	}))
	for _, f := range []func(){e.batch.propose, e.batch.collect, e.watch, e.maintenance, e.retain, e.handover, e.detector.run} {
		e.wg.Add(1)
		go func() {
			defer e.wg.Done()
			f()
		}()
	}
	poke(e.changed)
	r.engine.Store(e)
	return nil
}

// newRaft starts Raft, through the probe of a test if there is one.
func (r *Replica) newRaft(conf *raft.Config, fsm raft.FSM, snaps *raftstore.Snapshots, trans raft.Transport) (*raft.Raft, error) {
	r.store.Starting(true)
	defer r.store.Starting(false)
	p := r.probe
	if p == nil {
		return raft.NewRaft(conf, fsm, r.store, r.store, snaps, trans)
	}
	var logs raft.LogStore = r.store
	var stable raft.StableStore = r.store
	var ss raft.SnapshotStore = snaps
	if p.stores != nil {
		logs, stable = p.stores(r.store)
	}
	if p.snapshots != nil {
		ss = p.snapshots(snaps)
	}
	if p.commitTimeout > 0 {
		conf.CommitTimeout = p.commitTimeout
	}
	ra, err := raft.NewRaft(conf, fsm, logs, stable, ss, trans)
	if err == nil && p.started != nil {
		p.started(ra)
	}
	return ra, err
}

// stopEngine ends Raft and everything that serves it, and waits for it, unless
// a write hangs. Batches in flight end with an unknown outcome. r.life must be
// held.
func (r *Replica) stopEngine() {
	e := r.engine.Swap(nil)
	if e == nil {
		return
	}
	e.stopping.Store(true)
	gone := e.raft.Shutdown()
	_ = e.trans.Close()                       // first: RPCs under way would keep Raft waiting
	r.unlessHung(func() { _ = gone.Error() }) // reports only the transport's Close
	close(e.done)
	close(e.stop)
	r.unlessHung(func() {
		e.reads.rounds.Close()
		e.wg.Wait()
	})
	r.publish(r.idleView())
}

// poke fills a channel of capacity 1.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// moved follows every batch of applied entries, on Raft's goroutine.
func (e *engine) moved(d due) {
	e.reads.advance()
	if d.checkpoint || d.retain {
		poke(e.maintain)
	}
	if d.config || !e.ready.Load() {
		poke(e.changed)
	}
}

// notLeader is the error for a batch that certainly was not appended.
func (e *engine) notLeader() error {
	for {
		term := e.raft.CurrentTerm()
		_, id := e.raft.LeaderWithID()
		if term != e.raft.CurrentTerm() {
			continue // or the last term's leader would be named for the new one
		}
		if id == raft.ServerID(e.r.cfg.ID) {
			id = "" // it was us, until just now
		}
		return &NotLeaderError{LeaderID: string(id), Term: term}
	}
}

// replicates says whether this node leads in that term and has that peer.
func (e *engine) replicates(id string, term uint64) bool {
	if e.r.engine.Load() != e || e.raft.State() != raft.Leader || e.raft.CurrentTerm() != term {
		return false // e.raft is not set before engine is
	}
	return slices.ContainsFunc(e.peers(), func(p Peer) bool { return p.ID == id })
}

// maintenanceRetry is how long a checkpoint or a retention that failed, on a full
// disk for one, waits to be tried again.
const maintenanceRetry = time.Second

// maintenance takes checkpoints, moves the start of the log and removes what is
// below it. A fatal fault of the store ends it.
func (e *engine) maintenance() {
	tick := time.NewTicker(sweepPeriod)
	defer tick.Stop()
	var pace sweeping
	var again time.Time // when what failed is tried again; zero: nothing failed
	failures := 0
	for {
		select {
		case <-e.maintain:
			if !again.IsZero() {
				continue
			}
		case now := <-tick.C:
			st := e.r.store.Log().Stats()
			n := 0
			if st.GoingBytes > 0 {
				n = pace.due(now, st.Going)
				if n == 0 && e.r.reserve.low() {
					n = 1
				}
			}
			for range n {
				e.r.store.Sweep()
			}
			if again.IsZero() || now.Before(again) {
				continue
			}
		case <-e.stop:
			return
		}
		err := e.maintained()
		if err == nil || errors.Is(err, raft.ErrRaftShutdown) {
			again, failures = time.Time{}, 0
			continue
		}
		again = time.Now().Add(maintenanceRetry)
		// Once may be a configuration that is committed and not applied.
		if failures++; failures == 2 {
			e.r.logger.Warn("no checkpoint taken, or the start of the log not moved", "err", err)
		}
	}
}

// maintained does what is due.
func (e *engine) maintained() error {
	var errs []error
	if e.fsm.checkpointDue() {
		errs = append(errs, e.checkpoint())
	}
	if lowest := e.fsm.lowest(); lowest > 0 {
		_, err := e.r.store.Retain(lowest)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// checkpoint takes one. It may fail while a configuration is committed but not
// applied, or the disk is full.
func (e *engine) checkpoint() error {
	f := e.raft.Snapshot()
	endWith(f, e.done)
	err := f.Error()
	if err == nil {
		e.fsm.checkpointed()
		e.r.metrics.checkpoints.Inc()
	}
	return err
}

// install decides about a checkpoint the leader sent (storage.md): what we hold
// is answered here, what we lack is installed with Raft stopped.
func (e *engine) install(rpc raft.RPC, req *raft.InstallSnapshotRequest, state []byte) {
	term := e.raft.CurrentTerm()
	resp := &raft.InstallSnapshotResponse{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(e.r.cfg.ID), Addr: []byte(e.r.cfg.ID)},
		Term:      term,
	}
	switch {
	case req.Term < term:
		rpc.Respond(resp, nil)
		return
	case req.Term > term:
		rpc.Respond(nil, fmt.Errorf("term %d is not known here yet", req.Term))
		return
	}
	holds, below, err := e.r.store.Holds(req.LastLogIndex, req.LastLogTerm)
	switch {
	case e.r.mended(err):
		// Whether we hold it cannot be told now. The leader asks again.
		rpc.Respond(nil, err)
		return
	case err != nil:
		e.r.store.Fail(err)
	}
	if e.r.probe.planted().keepTail {
		holds = holds || req.LastLogIndex <= e.r.store.Log().Last()
	}
	if holds || below {
		resp.Success = true
		rpc.Respond(resp, nil)
		return
	}
	in, err := e.received(req, state)
	if err != nil {
		rpc.Respond(nil, err)
		return
	}
	select {
	case e.r.installs <- in: // answered never: Raft stops, and the leader sends it again
	case <-e.trans.ctx.Done():
	}
}

// received checks a checkpoint before anything is given up for it.
func (e *engine) received(req *raft.InstallSnapshotRequest, state []byte) (raftstore.Installed, error) {
	m, err := decodeMachine(state)
	if err != nil {
		return raftstore.Installed{}, err
	}
	config, err := raftstore.DecodeConfiguration(req.Configuration)
	if err != nil {
		return raftstore.Installed{}, err
	}
	if m.applied > req.LastLogIndex || req.LastLogIndex == 0 {
		return raftstore.Installed{}, fmt.Errorf("%w: it is at entry %d, not %d", errState, m.applied, req.LastLogIndex)
	}
	return raftstore.Installed{
		Index: req.LastLogIndex, Term: req.LastLogTerm, Next: m.next, Bytes: m.bytes,
		Config: config, ConfigIndex: req.ConfigurationIndex, State: state,
	}, nil
}

// reinstall puts a received checkpoint in the place of everything this node has
// and starts Raft over it.
func (r *Replica) reinstall(in raftstore.Installed) error {
	r.life.Lock()
	defer r.life.Unlock()
	e := r.engine.Load()
	if e == nil {
		return nil
	}
	committed := max(e.raft.CommitIndex(), e.fsm.applied.Load())
	r.stopEngine()
	holds, below, err := r.store.Holds(in.Index, in.Term)
	switch {
	case r.mended(err): // and the leader sends it again
	case err != nil:
		return err
	case holds || below: // it came by AppendEntries meanwhile
	case in.Index <= committed:
		return fmt.Errorf("leader's checkpoint at entry %d, term %d contradicts this node, which has committed up to %d",
			in.Index, in.Term, committed)
	default:
		switch err := r.guard(func() error { return r.store.Install(in) }); {
		case raftstore.IsFull(err):
			// The leader sends it again, at Raft's pace.
			r.logger.Warn("checkpoint not installed: the disk is full", "index", in.Index, "err", err)
		case err != nil:
			return err
		default:
			r.metrics.installs.Inc()
			r.logger.Info("checkpoint installed", "index", in.Index, "offset", in.Next)
		}
	}
	poke(r.damage) // the healer was waiting for nothing, if Raft cannot be started
	return r.begin()
}
