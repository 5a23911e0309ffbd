package forward

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/internal/throttle"
)

// pushback is how long a client that met a bound is asked to stay away.
const pushback = 250 * time.Millisecond

// opCost is what a held record costs beside its bytes.
const opCost = 256

func handleProduce(srv any, ctx context.Context, dec func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
	f, err := self(srv)
	if err != nil {
		return nil, err
	}
	o := f.ops.get()
	if err := dec(&o.msg); err != nil {
		f.ops.put(o)
		return nil, err
	}
	if intercept == nil {
		return f.produce(ctx, o, new(string))
	}
	call := new(produceCall)
	reply, err := intercept(ctx, call, &grpc.UnaryServerInfo{Server: srv, FullMethod: logv1.Log_Produce_FullMethodName},
		func(ctx context.Context, _ any) (any, error) {
			call.called = true
			return f.produce(ctx, o, &call.by)
		})
	if !call.called {
		f.ops.put(o)
	}
	return reply, err
}

// produce appends the one record in o.msg, and owns o. by takes the node that had a
// part in the outcome.
func (f *Forwarder) produce(ctx context.Context, o *op, by *string) (any, error) {
	principal, err := f.cfg.Principal(ctx)
	if err == nil {
		err = f.prepare(o)
	}
	if err == nil {
		err = past(f.cfg.Rates.Produce(principal, len(o.rec)))
	}
	if err == nil {
		err = requestKey(ctx, principal, o)
	}
	var s *session
	if err == nil {
		s, _, err = f.sessionOf(ctx, principal)
	}
	if err != nil {
		f.ops.put(o)
		return nil, f.withPushback(ctx, err)
	}
	o.due, o.span = f.dueOf(ctx), f.spanOf(ctx)
	a, err := f.queue(principal, o, connectionOf(ctx))
	if err != nil {
		f.ops.put(o)
		return nil, f.withPushback(ctx, f.refused(err))
	}
	if !f.await(ctx, o) {
		finished, err := a.abandon(o)
		if !finished {
			return nil, f.withPushback(ctx, err)
		}
		<-o.done
	}
	offset, duplicate, err := o.offset, o.duplicate, o.err
	*by = o.by
	f.ops.put(o)
	if err != nil {
		return nil, f.withPushback(ctx, err)
	}
	s.advance(offset + 1)
	if !duplicate {
		// It came after everything that could be read when it was sent.
		s.known.Store(true)
	}
	f.setPosition(ctx, s, 0)
	return produced(offset), nil
}

// await waits for o's outcome, and answers false when its client is not to wait any
// longer: it has gone or is about to give up, or streams were ended a while ago.
func (f *Forwarder) await(ctx context.Context, o *op) bool {
	late := o.late(f.now())
	defer o.notLate()
	select {
	case <-o.done:
		return true
	case <-late:
		return false
	case <-ctx.Done():
		return false
	case <-f.ending.Done():
	}
	last := time.NewTimer(lastChance)
	defer last.Stop()
	select {
	case <-o.done:
		return true
	case <-late:
	case <-ctx.Done():
	case <-last.C:
	}
	return false
}

// queue hands o, which came over the connection from, to the principal's appender.
func (f *Forwarder) queue(principal string, o *op, from net.Addr) (*appender, error) {
	for {
		a, err := f.appenderOf(principal)
		if err != nil {
			return nil, err
		}
		if err = a.enqueue(o, from); !errors.Is(err, errRetired) {
			return a, err
		}
	}
}

// queueInLane is queue for an op in a lane: when there is no room it waits for some,
// as long as a produce is held. at says which appender it is before o is there: either
// the handler that leaves finds it there, or the lane's end is seen here.
func (f *Forwarder) queueInLane(ctx context.Context, principal string, o *op, at *atomic.Pointer[appender]) error {
	var released <-chan struct{} // since before the last try
	var timeout <-chan time.Time
	for {
		a, err := f.appenderOf(principal)
		if err != nil {
			return err
		}
		if at.Store(a); o.lane.hasEnded() {
			return apierr.NotSent{}
		}
		err = a.enqueue(o, nil)
		switch {
		case errors.Is(err, errRetired):
			continue
		case !errors.Is(err, errFull) && !errors.Is(err, errShare):
			return err
		case released == nil:
			released = f.limit.released()
			continue
		case timeout == nil:
			timer := time.NewTimer(f.cfg.HoldTimeout)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-released:
			released = f.limit.released()
		case <-timeout:
			return f.refused(err)
		case <-ctx.Done():
			return apierr.NotSent{}
		case <-f.closed:
			return apierr.Draining{}
		}
	}
}

// refused is what the client is told whose record there was no room for; other
// errors stay as they are.
func (f *Forwarder) refused(err error) error {
	if errors.Is(err, errFull) || errors.Is(err, errShare) {
		f.metrics.refused.Inc()
		return apierr.Overloaded{RetryAfter: pushback, Why: err.Error()}
	}
	return err
}

// prepare finds and checks the record in o.msg, whose buffer becomes o's.
func (f *Forwarder) prepare(o *op) error {
	rec, err := recordOf(o.msg.bytes(), f.cfg.MaxRecordBytes)
	if err != nil {
		return err
	}
	o.rec, o.buf, o.msg.buf = rec, o.msg.buf, nil
	o.size = len(rec) + opCost
	return nil
}

// dueOf is a little before the client's deadline, so that it hears the outcome and
// not only that it did not hear; 0 without a deadline.
func (f *Forwarder) dueOf(ctx context.Context) int64 {
	dl, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return f.now() + int64(shorten(time.Until(dl)))
}

// shorten takes a margin off the time a client has left.
func shorten(left time.Duration) time.Duration {
	return left - min(left/10, 250*time.Millisecond)
}

// requestKey makes o a keyed record when the client sent a request id: the same
// id of the same principal is the same key through every proxy, and at a node.
func requestKey(ctx context.Context, principal string, o *op) error {
	v := metadata.ValueFromIncomingContext(ctx, mdRequestID)
	if len(v) == 0 {
		return nil
	}
	if len(v) != 1 || v[0] == "" || len(v[0]) > maxID {
		return apierr.Invalid{Field: mdRequestID, Why: fmt.Sprintf("exactly one, of 1 to %d bytes", maxID)}
	}
	h := sha256.New()
	fmt.Fprintf(h, "%d:%s%s", len(principal), principal, v[0])
	copy(o.key[:], h.Sum(nil))
	o.keyed = true
	return nil
}

// past is what a client is told that is past a rate; nil stays nil.
func past(err error) error {
	if err == nil { // before e, which is on the heap
		return nil
	}
	var e *throttle.Error
	if errors.As(err, &e) {
		return apierr.Overloaded{RetryAfter: e.After, Why: e.Error(), Limit: e.Limit}
	}
	return err
}

// pushbackMD says when to come again, after an OVERLOADED.
func pushbackMD(err error) metadata.MD {
	info, _ := apierr.From(err)
	return metadata.Pairs(mdPushback, strconv.FormatInt(max(info.RetryAfter().Milliseconds(), 1), 10))
}

// withPushback adds the trailer that tells gRPC clients when to come again.
func (f *Forwarder) withPushback(ctx context.Context, err error) error {
	if apierr.ReasonOf(err) == apierr.ReasonOverloaded {
		_ = grpc.SetTrailer(ctx, pushbackMD(err))
	}
	return err
}

// produceStream appends what the client streams, in its order, and answers in that
// order. The handler's goroutine answers and a second one receives, since nothing
// but the end of the handler interrupts a receive.
func (f *Forwarder) produceStream(ss grpc.ServerStream) error {
	ctx := ss.Context()
	principal, err := f.cfg.Principal(ctx)
	if err != nil {
		return err
	}
	if len(metadata.ValueFromIncomingContext(ctx, mdRequestID)) > 0 {
		return apierr.Invalid{Field: mdRequestID, Why: "a request id is for one record, so for Produce"}
	}
	s, _, err := f.sessionOf(ctx, principal)
	if err != nil {
		return err
	}
	if err := ss.SendHeader(nil); err != nil {
		return err
	}
	l := newLane()
	var at atomic.Pointer[appender] // where l's records are queued
	if !f.spawn(func() { l.end(f.receive(ss, principal, l, &at)) }) {
		return apierr.Draining{}
	}
	defer func() {
		l.end(nil)
		if a := at.Load(); a != nil {
			a.leave(l)
		}
	}()
	err = f.answer(ss, l, s, &at)
	NoteServed(ctx, l.servedBy())
	if md := f.positionMD(s.position.Load()); md != nil {
		ss.SetTrailer(md)
	}
	if apierr.ReasonOf(err) == apierr.ReasonOverloaded {
		ss.SetTrailer(pushbackMD(err))
	}
	return err
}

// receive queues what the client sends until it ends, and answers why: nil when the
// client has sent everything.
func (f *Forwarder) receive(ss grpc.ServerStream, principal string, l *lane, at *atomic.Pointer[appender]) error {
	ctx := ss.Context()
	due, span := f.dueOf(ctx), f.spanOf(ctx)
	for {
		o := f.ops.get()
		err := ss.RecvMsg(&o.msg)
		if err == nil {
			err = f.prepare(o)
		}
		if err != nil {
			f.ops.put(o)
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		// Nothing behind it is taken meanwhile, which is how its client is slowed down.
		if f.cfg.Rates.Message(ctx, principal, len(o.rec), 0) != nil {
			f.ops.put(o)
			return apierr.NotSent{}
		}
		o.lane, o.due, o.span = l, due, span
		if !l.admit(ctx, o.size, f.cfg.StreamRecords, f.cfg.StreamBytes) {
			f.ops.put(o)
			return apierr.NotSent{}
		}
		size := o.size // o is not ours once it is queued
		if err := f.queueInLane(ctx, principal, o, at); err != nil {
			l.refuse(size)
			f.ops.put(o)
			return err
		}
	}
}

// answer sends the lane's outcomes to the client until there are no more.
func (f *Forwarder) answer(ss grpc.ServerStream, l *lane, s *session, at *atomic.Pointer[appender]) error {
	ctx := ss.Context()
	ending := f.ending.Done()
	last := time.NewTimer(time.Hour)
	defer last.Stop()
	last.Stop()
	var told []outcome
	for {
		select {
		case <-l.ready:
		case <-ending:
			ending = nil
			l.end(apierr.Draining{})
			last.Reset(lastChance)
		case <-last.C:
			var end error = apierr.Draining{}
			if a := at.Load(); a != nil && a.leave(l) {
				end = apierr.OutcomeUnknown{}
			}
			told, _ = l.taken(told[:0])
			if err := tell(ss, s, told); err != nil {
				return err
			}
			return end
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
		var err error
		told, err = l.taken(told[:0])
		if err := tell(ss, s, told); err != nil {
			return err
		}
		if err != nil {
			return err
		}
		if over, err := l.answered(told); over {
			return err
		}
	}
}

// tell sends outcomes to a stream's client.
func tell(ss grpc.ServerStream, s *session, told []outcome) error {
	for _, o := range told {
		s.advance(o.offset + 1) // before its client can know
		if err := ss.SendMsg(produced(o.offset)); err != nil {
			return err
		}
	}
	return nil
}
