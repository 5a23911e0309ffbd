package replica

import (
	"slices"
	"strings"

	"github.com/hashicorp/raft"
)

// View is the cluster as this node sees it now.
func (r *Replica) View() View { return *r.view.Load() }

// Changes gives a channel that is closed when View changes. Take it first, then
// View: no change is missed.
func (r *Replica) Changes() <-chan struct{} {
	r.viewMu.Lock()
	defer r.viewMu.Unlock()
	return r.viewed
}

// publish makes v the View, if it differs.
func (r *Replica) publish(v View) {
	r.viewMu.Lock()
	defer r.viewMu.Unlock()
	old := r.view.Load()
	if old != nil && old.equal(&v) {
		return
	}
	r.view.Store(&v)
	close(r.viewed)
	r.viewed = make(chan struct{})
	r.metrics.term.Set(float64(v.Term))
	r.metrics.leader.Set(0)
	if v.IsLeader {
		r.metrics.leader.Set(1)
	}
	if v.LeaderID != "" && v.LeaderID != r.led {
		if r.led != "" { // else it is the first that is heard of since the start
			r.metrics.leaders.Inc()
		}
		r.led = v.LeaderID
	}
	if old != nil && (old.LeaderID != v.LeaderID || old.State != v.State) {
		r.logger.Info("raft state", "node", r.cfg.ID, "state", v.State, "term", v.Term, "leader", v.LeaderID)
	}
}

func (v *View) equal(o *View) bool {
	return v.ClusterID == o.ClusterID && v.Term == o.Term && v.LeaderID == o.LeaderID && v.Ready == o.Ready &&
		v.Draining == o.Draining && v.State == o.State && v.IsLeader == o.IsLeader && slices.Equal(v.Peers, o.Peers)
}

// idleView is the View while Raft does not run.
func (r *Replica) idleView() View {
	return View{ClusterID: r.bound(), State: StateIdle, Draining: r.draining.Load()}
}

// watch keeps the View true, and announces a new leader of our own.
func (e *engine) watch() {
	var announced uint64 // term in which announce was called last
	for {
		select {
		case <-e.changed:
		case <-e.stop:
			return
		}
		v := e.sample()
		if v.State == StateLeader && v.Term > announced {
			announced = v.Term
			e.announce()
		}
		e.r.publish(v)
		if v.State == StateShutdown && !e.stopping.Load() {
			poke(e.r.stopped)
		}
	}
}

// sample looks at Raft. Term and leader are not read in one step, so the term is
// read before and after.
func (e *engine) sample() View {
	v := View{ClusterID: e.r.bound(), Draining: e.r.draining.Load()}
	for {
		v.Term = e.raft.CurrentTerm()
		_, id := e.raft.LeaderWithID()
		state := e.raft.State()
		if v.LeaderID = string(id); v.Term != e.raft.CurrentTerm() {
			continue
		}
		v.State = State(strings.ToLower(state.String()))
		break
	}
	v.IsLeader = v.State == StateLeader && v.LeaderID == e.r.cfg.ID && e.lead.Load() == v.Term
	v.Ready = e.isReady(v.IsLeader) && !e.detector.doubted()
	v.Peers = e.peers()
	return v
}

func (e *engine) peers() []Peer {
	f := e.raft.GetConfiguration() // answered from a copy, at once
	if f.Error() != nil {
		return nil
	}
	var ps []Peer
	for _, s := range f.Configuration().Servers {
		ps = append(ps, Peer{ID: string(s.ID), Voter: s.Suffrage == raft.Voter})
	}
	slices.SortFunc(ps, func(a, b Peer) int { return strings.Compare(a.ID, b.ID) })
	return ps
}

// announce proposes the cluster's uuid as the first entry of our own in a new
// term. Once it is applied here, so is everything earlier leaders committed:
// Raft's no-op, which comes just before, never reaches the state machine. The
// very first of these entries gives the cluster its uuid; the others must agree.
func (e *engine) announce() {
	f := e.raft.Apply(encodeCluster(e.r.cluster), 0)
	endWith(f, e.done)
	e.wg.Add(1) // watch holds the group, so it is not being waited out yet
	go func() {
		defer e.wg.Done()
		if f.Error() != nil {
			return // not the leader any more; the next term announces again
		}
		if a, ok := f.Response().(*appliedControl); ok {
			e.lead.Store(max(e.lead.Load(), a.term))
			poke(e.changed)
		}
	}()
}

// heard takes note of an AppendEntries that says how far the log is committed.
// The first one sets what this node has to apply before it is ready. A leader
// that has just started itself knows nothing as committed, and says 0.
func (e *engine) heard(term, commit uint64) func() {
	if e.ready.Load() || term < e.raft.CurrentTerm() {
		return nil
	}
	if commit > 0 {
		e.target.CompareAndSwap(0, commit)
	}
	return func() { poke(e.changed) }
}

// isReady says whether the node has caught up with a leader since it started.
func (e *engine) isReady(leads bool) bool {
	if e.ready.Load() {
		return true
	}
	target := e.target.Load()
	if !leads && (target == 0 || e.raft.CommitIndex() < target || !e.appliedTo(target)) {
		return false
	}
	e.fsm.mu.Lock() // an entry applied from now on is looked at, too
	defer e.fsm.mu.Unlock()
	if err := e.fsm.foreign(); err != nil {
		e.r.fail(err)
		return false
	}
	e.ready.Store(true)
	return true
}

// appliedTo says whether the state machine has applied everything up to index,
// which is committed. What Raft keeps for itself counts as applied.
func (e *engine) appliedTo(index uint64) bool {
	log := e.r.store.Log()
	for i := index; i > e.fsm.applied.Load() && i > log.Start().Index; i-- {
		entry, err := log.Entry(i)
		if err != nil {
			return false
		}
		switch raft.LogType(entry.Type) {
		case raft.LogCommand, raft.LogConfiguration:
			return false
		}
	}
	return true
}
