package replica

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/internal/rounds"
)

// ReadIndex gives, on the leader, the position a read that begins now has to see:
// whatever was acknowledged to a producer, or shown to a reader, by any node before
// the call lies below it. It costs a heartbeat to a majority, which concurrent
// calls share. It blocks until a majority has answered and the position is applied
// here, or ctx ends; *NotLeaderError: this node does not lead, or ceased to.
//
// The leader takes its commit index and then learns from a majority, itself
// included, that it still led: from successful AppendEntries of its term that were
// *started after* the read. An answer to an older one may have been on its way
// while the others elected somebody else (raft.VerifyLeader counts those, too, and
// is here only to make Raft send heartbeats at once).
func (r *Replica) ReadIndex(ctx context.Context) (position uint64, err error) {
	e := r.engine.Load()
	if e == nil {
		return 0, &NotLeaderError{}
	}
	if e.raft.State() != raft.Leader {
		return 0, e.notLeader()
	}
	if e.detector.doubted() {
		return 0, ErrDraining // it may be this node that is wrong
	}
	index, err := e.reads.rounds.Do(ctx)
	if err == nil {
		err = e.awaitApplied(ctx, index)
	}
	switch {
	case errors.Is(err, rounds.ErrClosed):
		return 0, e.notLeader()
	case err != nil:
		return 0, err
	}
	position = r.store.Log().Visible()
	if r.engine.Load() != e {
		return 0, e.notLeader() // a Raft that starts again shows less until it has replayed
	}
	return position, nil
}

// readRound confirms this node's leadership for the calls that share it, and gives
// the commit index all of them have to see.
func (e *engine) readRound(ctx context.Context, calls int) (index uint64, err error) {
	began := time.Now()
	term, err := e.ledTerm(ctx)
	if err != nil {
		return 0, err
	}
	e.reads.begin(term)
	defer e.reads.end()
	index = e.raft.CommitIndex()
	e.raft.VerifyLeader() // who answers is seen in the transport
	for {
		changed := e.r.Changes()
		switch {
		case !e.leads(term):
			// Its own word is one of the majority's, and no longer holds.
			return 0, e.notLeader()
		case e.majority(e.reads.answered()):
			e.r.metrics.reads.Observe(float64(calls))
			e.r.metrics.readSeconds.Observe(time.Since(began).Seconds())
			return index, nil
		}
		select {
		case <-e.reads.news:
		case <-changed:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-e.done:
			return 0, e.notLeader()
		}
	}
}

// leads says whether this node leads in that term.
func (e *engine) leads(term uint64) bool {
	return e.raft.CurrentTerm() == term && e.raft.State() == raft.Leader && e.raft.CurrentTerm() == term
}

// ledTerm is the term this node leads in. It waits until an entry of that term is
// applied: before, the commit index may be below what earlier leaders acknowledged.
func (e *engine) ledTerm(ctx context.Context) (uint64, error) {
	for {
		changed := e.r.Changes()
		term := e.raft.CurrentTerm()
		switch {
		case !e.leads(term) && term == e.raft.CurrentTerm():
			return 0, e.notLeader()
		case e.leads(term) && e.lead.Load() == term:
			return term, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-e.done:
			return 0, e.notLeader()
		}
	}
}

// majority says whether the voters that answered are one, with this node.
func (e *engine) majority(answered map[string]bool) bool {
	voters, have := 0, 0
	for _, p := range e.peers() {
		if !p.Voter {
			continue
		}
		voters++
		if p.ID == e.r.cfg.ID || answered[p.ID] {
			have++
		}
	}
	return 2*have > voters
}

// awaitApplied waits until the state machine has applied everything up to index.
func (e *engine) awaitApplied(ctx context.Context, index uint64) error {
	for !e.appliedTo(index) {
		moved := e.reads.moved()
		if e.appliedTo(index) {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-e.done:
			return e.notLeader()
		}
	}
	return nil
}

// reads is what linearizable reads need of one run of Raft: their rounds, who
// answered in the one under way, and word of what is applied. While there are none
// it costs an AppendEntries, and a batch of applied entries, an atomic load or two.
type reads struct {
	rounds *rounds.Group[uint64]
	older  bool          // test switch: count answers to RPCs started before the round
	news   chan struct{} // capacity 1: "somebody answered"

	begun atomic.Uint64 // rounds begun: an RPC that saw n of them was started after the n-th began
	open  atomic.Uint64 // number of the round under way, 0: none
	waits atomic.Bool   // somebody waits for what is applied

	mu      sync.Mutex
	term    uint64          // of the round under way; guarded by mu
	from    map[string]bool // peers that answered in it; guarded by mu
	applied chan struct{}   // closed by the next batch applied; nil while nobody waits; guarded by mu
}

func newReads(run func(context.Context, int) (uint64, error), older bool) *reads {
	return &reads{rounds: rounds.New(run), older: older, news: make(chan struct{}, 1)}
}

func (s *reads) begin(term uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.term, s.from = term, make(map[string]bool)
	s.open.Store(s.begun.Add(1))
}

func (s *reads) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from = nil
	s.open.Store(0)
}

// started is called as an AppendEntries begins; its result goes to acknowledged.
func (s *reads) started() uint64 { return s.begun.Load() }

// acknowledged takes note that peer id answered an AppendEntries of that term with
// success.
func (s *reads) acknowledged(id string, term, started uint64) {
	n := s.open.Load()
	if n == 0 || started < n && !s.older {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open.Load() == n && s.term == term {
		s.from[id] = true
		poke(s.news)
	}
}

// answered gives who has answered in the round under way.
func (s *reads) answered() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make(map[string]bool, len(s.from))
	for id := range s.from {
		ids[id] = true
	}
	return ids
}

// moved gives a channel that is closed when more is applied. Take it first, then
// look: nothing is missed.
func (s *reads) moved() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.applied == nil {
		s.applied = make(chan struct{})
		s.waits.Store(true)
	}
	return s.applied
}

// advance follows every batch of applied entries.
func (s *reads) advance() {
	if !s.waits.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.applied != nil {
		close(s.applied)
		s.applied = nil
		s.waits.Store(false)
	}
}
