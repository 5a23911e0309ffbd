package replica

import (
	"context"
	"time"
)

// Pending is a submitted batch on its way.
type Pending struct {
	batch Batch
	born  time.Time     // when it was submitted
	size  int64         // what it counts against the bytes in flight
	done  chan struct{} // closed once res and err are final
	res   Result
	err   error
}

// Done is closed when the batch is decided.
func (p *Pending) Done() <-chan struct{} { return p.done }

// Result waits for Done and gives the decision: a Result, a *GapError,
// *FencedError or *UnknownProducerError of the state machine, a *NotLeaderError
// or ErrDraining when the batch was certainly not appended, or ErrOutcomeUnknown.
func (p *Pending) Result() (Result, error) {
	<-p.done
	return p.res, p.err
}

// Wait is Result, given up when ctx ends. The batch goes on without its waiter.
func (p *Pending) Wait(ctx context.Context) (Result, error) {
	select {
	case <-p.done:
		return p.res, p.err
	case <-ctx.Done():
		return Result{}, context.Cause(ctx)
	}
}

// decide ends the batch with the state machine's outcome. base is where its
// records begin within the batch they were merged into.
func (p *Pending) decide(o outcome, base uint64) {
	switch o.verdict {
	case accepted, duplicate:
		p.res = Result{FirstOffset: o.offset + base, Count: p.batch.Count, Duplicate: o.verdict == duplicate}
	case gap:
		p.err = &GapError{Want: o.offset, Got: p.batch.FirstSeq}
	case fenced:
		p.err = &FencedError{Epoch: o.epoch}
	default:
		p.err = &UnknownProducerError{}
	}
	close(p.done)
}

func (p *Pending) fail(err error) {
	p.err = err
	close(p.done)
}
