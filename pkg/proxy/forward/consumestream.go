package forward

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
)

// tail is one client's ConsumeStream. It is its handler's alone.
type tail struct {
	hub     *hub
	feed    *feed // what it reads along with; nil: nothing now; guarded by hub.mu
	own     bool  // feed was started for it; guarded by hub.mu
	down    grpc.ServerStream
	session *session
	cursor  uint64     // the offset the client gets next
	started bool       // something has been delivered
	by      string     // the node that it came from
	span    trace.Span // of the stream; nil: none is recorded
	asked   uint64     // the session's position at the start; binds while not started
	alone   bool       // the next fetch must be its own; until something is delivered
}

// consumeStream delivers records from the asked offset on for as long as the client
// listens, from whichever node can.
func (f *Forwarder) consumeStream(req *logv1.ConsumeRequest, down grpc.ServerStream) error {
	ctx := down.Context()
	principal, err := f.cfg.Principal(ctx)
	if err != nil {
		return err
	}
	if req.GetLinearizable() {
		return apierr.Invalid{Field: "linearizable", Why: "is for a single read, not for a stream"}
	}
	s, own, err := f.sessionOf(ctx, principal)
	if err != nil {
		return err
	}
	sent, named, err := f.clientPosition(ctx)
	if err != nil {
		return err
	}
	// A stream cannot un-see anything: it waits for each offset to exist. So, unlike
	// a unary read, one of an unknown session need not ask for its position.
	asked := max(s.position.Load(), sent)
	if err := down.SendHeader(f.positionMD(asked)); err != nil {
		return err
	}
	t := &tail{down: down, session: s, cursor: req.GetOffset(), asked: asked, span: f.spanOf(ctx)}
	t.hub = f.fanout.enter(hubKey{principal, routingKey(ctx)})
	defer f.fanout.leave(t.hub)
	err = t.run(ctx, f.ending)
	if own && named && t.started && t.cursor >= sent {
		s.known.Store(true) // all that its client had seen has been delivered, or was before it
	}
	if md := f.positionMD(max(s.position.Load(), asked)); md != nil {
		down.SetTrailer(md)
	}
	return err
}

func (t *tail) run(ctx, ending context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ending, func() { cancel(apierr.Draining{}) })
	defer stop()
	defer t.hub.detach(t)
	rates, principal := t.hub.fan.f.cfg.Rates, t.hub.key.principal
	for {
		if _, err := rates.WaitRead(ctx, principal, 0); err != nil {
			return t.endOf(ctx, err)
		}
		c, err := t.hub.next(ctx, t)
		if err != nil {
			return t.endOf(ctx, err)
		}
		if rates.Reads() {
			rates.HasRead(principal, c.bytesFrom(t.cursor))
		}
		if err := t.deliver(c); err != nil {
			return err
		}
	}
}

// deliver sends what the client has not got of a chunk, and lets go of it.
func (t *tail) deliver(c *chunk) error {
	defer c.release()
	if c.by != t.by {
		t.by = c.by
		NoteServed(t.down.Context(), c.by)
	}
	// Before it is sent: once a client has a record it may ask anybody, anything.
	t.session.advance(c.end())
	var msg encodedMessage
	for i := int(t.cursor - c.first); i < len(c.msgs); i++ {
		c.msgs[i].Ref() // SendMsg lets go of it
		msg.data = c.msgs[i : i+1 : i+1]
		if err := t.down.SendMsg(&msg); err != nil {
			return err
		}
		t.cursor++
		t.started = true
	}
	t.alone = false
	return nil
}

// need is the position that a fetch for t has to have reached: what its session
// knows to exist, as far as that is before its cursor.
func (t *tail) need() uint64 {
	if t.started {
		return t.cursor // delivered, so it exists
	}
	return min(t.asked, t.cursor)
}

// endOf is what a client is told whose stream ends with err.
func (t *tail) endOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return endOf(ctx, context.Cause(ctx))
	}
	var end apierr.OutOfRange
	var unknown apierr.PositionUnknown
	if t.started && (errors.As(err, &unknown) || errors.As(err, &end) && end.Next < t.cursor) {
		return apierr.ResumeFailed{Offset: t.cursor} // what was delivered is gone
	}
	return err
}

// endOf is what a client is told whose stream was ended by cause.
func endOf(ctx context.Context, cause error) error {
	if _, ok := apierr.From(cause); ok {
		return cause
	}
	if cause == nil {
		cause = ctx.Err()
	}
	return status.FromContextError(cause).Err()
}
