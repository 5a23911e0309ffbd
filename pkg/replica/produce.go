package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// Submit queues a batch. Batches of one caller are appended in the order of its
// calls. It never waits: an error is at once *NotLeaderError, ErrDraining,
// *OverloadedError, *DiskLowError or *InvalidError, and the batch then is certainly not
// appended; everything later comes through the Pending.
func (r *Replica) Submit(b Batch) (*Pending, error) {
	if err := checkBatch(&b); err != nil {
		return nil, err
	}
	e := r.engine.Load()
	if e == nil {
		return nil, &NotLeaderError{}
	}
	if r.draining.Load() || r.transfers.Load() > 0 {
		return nil, ErrDraining
	}
	if e.raft.State() != raft.Leader {
		return nil, e.notLeader()
	}
	if err := e.room(); err != nil {
		return nil, err
	}
	if e.detector.doubted() {
		return nil, ErrDraining // it may be this node that is wrong
	}
	r.reserve.note(int64(len(b.Records)))
	return e.batch.submit(b)
}

func checkBatch(b *Batch) error {
	if len(b.Records) > MaxBatchBytes {
		return &InvalidError{Field: "records", Reason: fmt.Sprintf("%d bytes in one batch, more than %d", len(b.Records), MaxBatchBytes)}
	}
	if b.Key != [16]byte{} && b.Count != 1 {
		return &InvalidError{Field: "request_key", Reason: "a keyed batch holds one record"}
	}
	if b.FirstSeq+uint64(b.Count) < b.FirstSeq {
		return &InvalidError{Field: "first_sequence", Reason: "sequences wrap around"}
	}
	return checkRecords(b.Records, b.Count)
}

// WaitPosition waits, at most bound, until every record below position can be
// read here. *BehindError: not yet. *PositionUnknownError: this node leads, and
// no such record was ever acknowledged.
func (r *Replica) WaitPosition(ctx context.Context, position uint64, bound time.Duration) error {
	log := r.store.Log()
	if position <= log.Visible() {
		return nil
	}
	if r.View().IsLeader {
		// A leader that lost its cluster without knowing must not say this. The
		// check costs a heartbeat, on a path that is an error anyway.
		ctx, cancel := context.WithTimeout(ctx, max(bound, r.cfg.Heartbeat))
		visible, err := r.ReadIndex(ctx)
		cancel()
		switch {
		case position <= log.Visible():
			return nil
		case err == nil:
			return &PositionUnknownError{Visible: visible}
		}
	}
	bounded, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	err := log.Wait(bounded, position-1)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case bounded.Err() != nil:
		return &BehindError{Visible: log.Visible()}
	default:
		return err
	}
}

// Drain refuses batches from now on, for good, and waits until none waits or is
// in flight.
func (r *Replica) Drain(ctx context.Context) error {
	r.draining.Store(true)
	e := r.engine.Load()
	if e == nil {
		r.publish(r.idleView())
		return nil
	}
	poke(e.changed)
	return e.batch.drained(ctx)
}

// SetLowest makes the cluster answer for no offset below off any more, on every
// node; each then gives up what it can of its log. Only the leader may say so;
// what Config.Retain makes it say is in retention.go.
func (r *Replica) SetLowest(ctx context.Context, off uint64) error {
	e := r.engine.Load()
	if e == nil {
		return ErrNotRunning
	}
	return e.result(await(ctx, e.raft.Apply(encodeLowest(off), 0), e.done), "set lowest offset")
}

// result turns an error of Raft's into one of ours.
func (e *engine) result(err error, op string) error {
	switch {
	case err == nil:
		return nil
	case notSent(err):
		return e.notLeader()
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return ErrDraining
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown):
		return fmt.Errorf("%s: %w", op, ErrOutcomeUnknown)
	default:
		return fmt.Errorf("%s: %w", op, err)
	}
}
