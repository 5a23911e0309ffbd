package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// Transfer hands leadership to target, or to the most up-to-date voter that answers
// when it is "". Batches are refused meanwhile, and those submitted before are decided
// first: Raft would otherwise end them with an unknown outcome.
func (r *Replica) Transfer(ctx context.Context, target string) error {
	r.transfers.Add(1)
	defer r.transfers.Add(-1)
	e := r.engine.Load()
	if e == nil {
		return ErrNotRunning
	}
	v := r.View()
	if !v.IsLeader {
		return e.notLeader()
	}
	if !slices.ContainsFunc(v.Peers, func(p Peer) bool { return p.Voter && p.ID != r.cfg.ID }) {
		return ErrNoOtherVoter
	}
	asked := time.Now()
	if err := e.batch.drained(ctx); err != nil {
		return fmt.Errorf("drain before transfer: %w", err)
	}
	// Under load a majority has just answered, and need not be heard again; but if the drain
	// took long, who has answered may be gone.
	since := time.Now().Add(-r.cfg.Heartbeat / 4)
	if since.Before(asked) {
		since = asked
	}
	heir, err := e.heir(ctx, target, since)
	if err != nil {
		return err
	}
	f := e.raft.LeadershipTransferToServer(raft.ServerID(heir), raft.ServerAddress(heir))
	err = await(ctx, f, e.done)
	switch {
	case err == nil, ctx.Err() != nil, errors.Is(err, raft.ErrNotLeader),
		errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown):
		return e.result(err, "transfer leadership")
	}
	return &TransferError{Err: err}
}

// heir waits, as long as an election may take, until target, or with "" any voter,
// has answered since then and has all of the log.
//
// Raft would wait itself, in a way that is open in v1.8.0: told to hand over to one
// that is behind and takes nothing, it hangs at the second attempt, and refuses every
// record until that one is back. And where it is to choose, it does not ask who is
// alive.
func (e *engine) heir(ctx context.Context, target string, since time.Time) (string, error) {
	timer := time.NewTimer(e.r.cfg.Heartbeat)
	defer timer.Stop()
	for {
		news := e.voters.news()
		heir, why := e.fit(target, since)
		if why == nil {
			return heir, nil
		}
		select {
		case <-news:
		case <-timer.C:
			return "", &TransferError{Err: why}
		case <-e.done:
			return "", e.notLeader()
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// fit is target, or with "" any voter, but one with room on its disk before one without,
// if it has answered since then and has all of the log; or why there is none.
func (e *engine) fit(target string, since time.Time) (heir string, why error) {
	last := e.raft.LastIndex()
	why = errors.New("no other voter answers")
	if target != "" {
		why = fmt.Errorf("%s does not answer", target)
	}
	low := false // what the heir's disk is
	for _, p := range e.peers() {
		if !p.Voter || p.ID == e.r.cfg.ID || target != "" && p.ID != target {
			continue
		}
		v := e.voters.of(p.ID)
		switch {
		case !v.last.After(since):
		case v.end < last:
			if heir == "" {
				why = fmt.Errorf("%s is behind by %d entries", p.ID, last-v.end)
			}
		case heir == "" || low && !v.low:
			heir, low, why = p.ID, v.low, nil
		}
	}
	return heir, why
}
