package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/proxy/route"
)

var fetchDesc = grpc.StreamDesc{StreamName: "FetchStream", ServerStreams: true}

// errStalled ends an upstream stream on which neither data nor a heartbeat came.
var errStalled = errors.New("no data and no heartbeat")

// chunkBytes is how much of a fetched batch is encoded for the client at a time.
const chunkBytes = 32 << 10

// tail is one client's ConsumeStream. It is its handler's alone.
type tail struct {
	f       *Forwarder
	down    grpc.ServerStream
	session *session
	cursor  uint64 // the offset the client gets next
	started bool   // something has been delivered
	asked   uint64 // the session's position at the start; binds while not started
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
	if err := down.SendHeader(f.positionMD(s.position.Load())); err != nil {
		return err
	}
	t := &tail{f: f, down: down, session: s, cursor: req.GetOffset(), asked: asked}
	err = t.run(upstream(ctx, principal), f.reader(ctx))
	if own && named && t.started && t.cursor >= sent {
		s.known.Store(true) // all that its client had seen has been delivered, or was before it
	}
	if md := f.positionMD(s.position.Load()); md != nil {
		down.SetTrailer(md)
	}
	return err
}

// downError is a failure to reach the client, which ends the stream.
type downError struct{ error }

func (t *tail) run(ctx context.Context, r *reader) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(t.f.ending, func() { cancel(apierr.Draining{}) })
	defer stop()
	for opened := false; ; {
		up, isLeader, err := r.next()
		if err != nil {
			if err := r.rest(ctx); err != nil {
				return endOf(ctx, err)
			}
			continue
		}
		if opened {
			t.f.metrics.resumes.Inc()
		}
		opened = true
		before := t.cursor
		err = t.follow(ctx, up)
		if t.cursor != before {
			r.skip, r.leaderOnly, r.rounds = r.skip[:0], false, 0
		}
		var down downError
		var failed apierr.ResumeFailed
		switch {
		case errors.As(err, &down):
			return down.error
		case ctx.Err() != nil:
			return endOf(ctx, context.Cause(ctx))
		case errors.As(err, &failed):
			t.f.metrics.badResumes.Inc()
			t.f.log.Error("consume stream ended: the node did not continue at the cursor", "node", up.ID(), "offset", t.cursor, "err", err)
			return failed
		case errors.Is(err, errStalled):
			t.f.metrics.stalls.Inc()
		}
		t.f.log.Debug("consume stream moves on", "node", up.ID(), "offset", t.cursor, "err", err)
		switch r.judge(up, isLeader, err) {
		case readFinal:
			var oor apierr.OutOfRange
			if errors.As(refusal(err), &oor) && t.started && oor.Next < t.cursor {
				return apierr.ResumeFailed{Offset: t.cursor} // what was delivered is gone
			}
			return refusal(err)
		case readLeader:
			r.leaderOnly = true
		}
		r.skip = append(r.skip, up.ID())
		r.reload()
	}
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

// follow delivers from one node until that fails, and answers why.
func (t *tail) follow(ctx context.Context, up route.Upstream) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	release := up.Acquire()
	defer release()
	stall := time.AfterFunc(t.f.cfg.StallTimeout, func() { cancel(errStalled) })
	defer stall.Stop()

	failed := func(err error) error {
		if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
			return cause
		}
		if errors.Is(err, io.EOF) {
			return errBroken
		}
		return err
	}
	cs, err := up.Conn().NewStream(ctx, &fetchDesc, nodev1.Node_FetchStream_FullMethodName, grpc.ForceCodecV2(t.f.codec))
	if err != nil {
		return failed(err)
	}
	req := &nodev1.FetchRequest{
		Offset: t.cursor, MinPosition: min(t.asked, t.cursor), MaxBytes: uint32(t.f.cfg.FetchBytes),
		WaitMs: uint32(waitForPosition.Milliseconds()), HeartbeatMs: uint32(heartbeat.Milliseconds()),
	}
	if t.started {
		req.MinPosition = t.cursor // delivered, so it exists
	}
	// A failed send shows in the first receive, with its reason.
	if err := cs.SendMsg(req); err == nil {
		_ = cs.CloseSend()
	}
	var m message
	defer func() { m.free() }()
	for first := true; ; {
		if !stall.Reset(t.f.cfg.StallTimeout) && context.Cause(ctx) != nil {
			return failed(context.Cause(ctx))
		}
		if err := cs.RecvMsg(&m); err != nil {
			return failed(err)
		}
		// While the client is slow to take it, nothing is asked of the node.
		stall.Stop()
		err := eachBatch(m.bytes(), func(b wireBatch) error {
			err := t.deliver(b, first)
			first = false
			return err
		})
		if err != nil {
			return err
		}
		m.free()
	}
}

// deliver sends a batch to the client. It must continue at the cursor: the first of
// an upstream stream may begin before it, since nodes send whole batches, and every
// other begins exactly there.
func (t *tail) deliver(b wireBatch, first bool) error {
	if !b.has(t.cursor) || !first && b.first != t.cursor {
		return fmt.Errorf("%w: got a batch [%d, %d)", apierr.ResumeFailed{Offset: t.cursor}, b.first, b.first+uint64(b.count))
	}
	pool := mem.DefaultBufferPool()
	end := b.first + uint64(b.count)
	rest := b.records
	for at := b.first; at < t.cursor; at++ {
		var err error
		if _, rest, err = nextRecord(rest); err != nil {
			return fmt.Errorf("%w: %w", apierr.ResumeFailed{Offset: t.cursor}, err)
		}
	}
	var msg encodedMessage
	for at := t.cursor; at < end; {
		// One chunk: as many records as fit, at least one, encoded side by side.
		size, n := 0, 0
		for ahead := rest; at+uint64(n) < end; n++ {
			rec, after, err := nextRecord(ahead)
			if err != nil {
				return fmt.Errorf("%w: %w", apierr.ResumeFailed{Offset: t.cursor}, err)
			}
			more := consumeLen(len(rec), at+uint64(n))
			if n > 0 && size+more > chunkBytes {
				break
			}
			size += more
			ahead = after
		}
		data := pool.Get(size)
		*data = (*data)[:0]
		views := make([]mem.Buffer, n) // not reused: the transport keeps them until they are written
		ends := make([]int, n)
		for i := range n {
			rec, after, err := nextRecord(rest)
			if err != nil {
				panic("forward: a record checked before is malformed")
			}
			*data = appendConsume(*data, rec, at+uint64(i))
			ends[i], rest = len(*data), after
		}
		whole := mem.NewBuffer(data, pool)
		start := 0
		for i := range n {
			views[i] = whole.Slice(start, ends[i])
			start = ends[i]
		}
		whole.Free()
		// Before it is sent: once a client has a record it may ask anybody, anything.
		t.session.advance(at + uint64(n))
		for i := range n {
			msg.data = views[i : i+1 : i+1]
			if err := t.down.SendMsg(&msg); err != nil {
				mem.BufferSlice(views[i+1:]).Free()
				return downError{err}
			}
			at++
			t.cursor, t.started = at, true
		}
	}
	if len(rest) != 0 {
		return fmt.Errorf("%w: %d bytes behind the last record", apierr.ResumeFailed{Offset: t.cursor}, len(rest))
	}
	return nil
}
