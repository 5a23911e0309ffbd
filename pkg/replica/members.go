package replica

import (
	"context"
	"time"

	"github.com/hashicorp/raft"
)

// changeTimeout bounds how long a change of the configuration waits to be
// begun, when its context sets no deadline: the one before must be committed.
const changeTimeout = 10 * time.Second

// Peers gives the configuration as this node knows it, sorted by id.
func (r *Replica) Peers() []Peer {
	if e := r.engine.Load(); e != nil {
		return e.peers()
	}
	return nil
}

// AddNonvoter takes a node into the configuration: it gets the log and has no
// vote. A node that is in it already stays what it is. A name that has another
// id in the configuration is refused with *NameTakenError.
func (r *Replica) AddNonvoter(ctx context.Context, id string) error {
	return r.change(ctx, "add non-voter", id, func(e *engine, wait time.Duration) (raft.Future, error) {
		for _, p := range e.peers() {
			switch {
			case p.ID == id:
				return nil, nil
			case NameOf(p.ID) == NameOf(id):
				return nil, &NameTakenError{Name: NameOf(id), ID: p.ID}
			}
		}
		return e.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(id), 0, wait), nil
	})
}

// AddVoter gives a node of the configuration a vote. It is for nodes that have
// caught up: the vote counts at once.
func (r *Replica) AddVoter(ctx context.Context, id string) error {
	return r.change(ctx, "add voter", id, func(e *engine, wait time.Duration) (raft.Future, error) {
		for _, p := range e.peers() {
			if p.ID != id && NameOf(p.ID) == NameOf(id) {
				return nil, &NameTakenError{Name: NameOf(id), ID: p.ID}
			}
		}
		return e.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(id), 0, wait), nil
	})
}

// RemovePeer takes a node out of the configuration. A leader that removes itself
// stops: its Run ends with ErrRaftStopped.
func (r *Replica) RemovePeer(ctx context.Context, id string) error {
	return r.change(ctx, "remove peer", id, func(e *engine, wait time.Duration) (raft.Future, error) {
		return e.raft.RemoveServer(raft.ServerID(id), 0, wait), nil
	})
}

// change makes one change of the configuration on the leader and waits until it
// is committed. begin returns no future when there is nothing to do.
func (r *Replica) change(ctx context.Context, op, id string, begin func(*engine, time.Duration) (raft.Future, error)) error {
	if err := checkID(id); err != nil {
		return err
	}
	r.confMu.Lock()
	defer r.confMu.Unlock()
	e := r.engine.Load()
	if e == nil {
		return ErrNotRunning
	}
	if e.raft.State() != raft.Leader {
		return e.notLeader()
	}
	wait := changeTimeout
	if d, ok := ctx.Deadline(); ok {
		wait = max(time.Until(d), time.Millisecond)
	}
	f, err := begin(e, wait)
	if err != nil || f == nil {
		return err
	}
	return e.result(await(ctx, f, e.done), op)
}
