package server

import (
	"context"
	"errors"
	"io"
	"sync"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"

	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/replica"
)

// submitted is a batch of a stream on its way through Raft, or, with err, the end
// of the stream: io.EOF for a clean one.
type submitted struct {
	seq     uint64 // what the stream calls the batch
	count   uint32
	cost    int64 // of the stream's bytes
	pending Pending
	trace   *traced
	err     error
}

// pipeline is an ordered stream of batches: one goroutine receives and submits
// them, another acknowledges them, in the order they came.
type pipeline struct {
	// pace, unless it is nil, waits until a message of n bytes may be submitted. Nothing
	// behind that is received meanwhile, so the order stays. Its error ends the stream.
	pace func(ctx context.Context, n int) error
	// submit hands one received message to the replica. It does not wait.
	submit func(in []byte) (submitted, error)
	// ack is the acknowledgement of a batch.
	ack func(b submitted, r replica.Result) *frame

	// slots holds a token for every batch submitted and not acknowledged, and room
	// their bytes, so that both bound what one stream has in flight. Who sends more
	// is not refused but waits.
	slots chan struct{}
	room  *semaphore.Weighted
	bytes int64 // all there is of room

	mu    sync.Mutex
	ended bool          // guarded by mu; once true, nothing is submitted or queued
	queue []submitted   // oldest first: a slot each, and one for the end; guarded by mu
	news  chan struct{} // room for one: something was queued
}

func newPipeline(window int, bytes int64, pace func(context.Context, int) error, submit func([]byte) (submitted, error), ack func(submitted, replica.Result) *frame) *pipeline {
	return &pipeline{
		pace: pace, submit: submit, ack: ack,
		slots: make(chan struct{}, window),
		room:  semaphore.NewWeighted(bytes), bytes: bytes,
		news: make(chan struct{}, 1),
	}
}

// run ends with the stream: nil after the client closed its side and everything
// is acknowledged, otherwise why.
func (p *pipeline) run(s *Server, stream grpc.ServerStream) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(errEnded)
	defer p.end(errEnded) // a message that is being received is not submitted any more
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	s.helpers.Go(func() { p.receive(ctx, stream) })
	snd := newSender(stream)
	// Whatever ends the stream, what was submitted is acknowledged before. Acknowledgements
	// that nobody reads say nothing about it.
	ending := func(why error) (cut bool) {
		p.end(why)
		return false
	}
	return s.supervise(snd, apierr.OutcomeUnknown{}, ending,
		func() error { return p.acknowledge(ctx, snd) })
}

func (p *pipeline) receive(ctx context.Context, stream grpc.ServerStream) {
	for {
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		in := new(frame)
		if err := stream.RecvMsg(in); err != nil {
			p.end(err)
			return
		}
		if p.pace != nil {
			if err := p.pace(ctx, len(in.in)); err != nil {
				p.end(err)
				return
			}
		}
		cost := min(int64(len(in.in)), p.bytes) // a larger one alone
		if p.room.Acquire(ctx, cost) != nil || !p.take(in.in, cost) {
			return
		}
	}
}

// take submits and queues under one lock, so that nothing is submitted behind
// the end of the stream. It says whether the stream goes on.
func (p *pipeline) take(in []byte, cost int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return false
	}
	b, err := p.submit(in)
	if err != nil {
		p.endLocked(err)
		return false
	}
	b.cost = cost
	p.put(b)
	return true
}

// put queues b. mu is held.
func (p *pipeline) put(b submitted) {
	p.queue = append(p.queue, b)
	select {
	case p.news <- struct{}{}:
	default:
	}
}

// taken is all that is queued. It leaves the place of what was taken before to the next,
// so that a stream has places for what it has had in flight, and none for its window.
func (p *pipeline) taken(before []submitted) []submitted {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.queue
	p.queue = before[:0]
	return all
}

func (p *pipeline) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLocked(err)
}

func (p *pipeline) endLocked(err error) {
	if p.ended {
		return
	}
	p.ended = true
	p.put(submitted{err: err})
}

func (p *pipeline) acknowledge(ctx context.Context, snd *sender) error {
	var some []submitted
	for {
		select {
		case <-p.news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		some = p.taken(some)
		for i, b := range some {
			some[i] = submitted{}
			if errors.Is(b.err, io.EOF) {
				return nil
			}
			if b.err != nil {
				return b.err
			}
			if err := p.settle(ctx, snd, b); err != nil {
				return err
			}
		}
	}
}

// settle waits for the outcome of b and sends it.
func (p *pipeline) settle(ctx context.Context, snd *sender, b submitted) error {
	select {
	case <-b.pending.Done():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	r, err := b.pending.Result()
	b.trace.settled(r, err)
	if err != nil {
		// What was submitted behind it is not acknowledged either: its outcome
		// is unknown to the client, and a sequence settles it.
		p.end(err)
		return settled(err)
	}
	if err := snd.send(p.ack(b, r)); err != nil {
		return err
	}
	p.room.Release(b.cost)
	<-p.slots
	return nil
}
