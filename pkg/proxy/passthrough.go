package proxy

import (
	"context"
	"errors"
	"io"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	grpcproxy "github.com/mwitkow/grpc-proxy/proxy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/proxy/forward"
	"github.com/logd-io/logd/pkg/proxy/route"
)

// methodPattern is what passes: a node must read the name as we did.
var methodPattern = regexp.MustCompile(`^/([A-Za-z_][A-Za-z0-9_.]*)/[A-Za-z_][A-Za-z0-9_]*$`)

// deadlineMargin is the most by which a node's deadline comes before the client's,
// so that its answer, or ours, is there in time.
const deadlineMargin = 250 * time.Millisecond

// passthrough carries calls that the proxy does not know to the leader. Messages
// go through as bytes.
type passthrough struct {
	holder    *route.Holder
	principal func(context.Context) (string, error)
	hold      time.Duration // how long a call waits for a leader
}

// handler is for grpc.UnknownServiceHandler.
func (p *passthrough) handler() grpc.StreamHandler {
	return func(srv any, ss grpc.ServerStream) error {
		down := &downstream{ServerStream: ss}
		err := grpcproxy.TransparentHandler(func(ctx context.Context, method string) (context.Context, grpc.ClientConnInterface, error) {
			return p.direct(ctx, method, down)
		})(srv, down)
		if failed := down.failed.Load(); failed != nil {
			return *failed
		}
		return err
	}
}

func (p *passthrough) direct(ctx context.Context, method string, down *downstream) (context.Context, grpc.ClientConnInterface, error) {
	if err := allowed(method); err != nil {
		return nil, nil, err
	}
	principal, err := p.principal(ctx)
	if err != nil {
		return nil, nil, err
	}
	t, err := p.led(ctx)
	if err != nil {
		return nil, nil, err
	}
	leader := t.Leader
	forward.NoteServed(ctx, leader.ID())
	in, _ := metadata.FromIncomingContext(ctx)
	return metadata.NewOutgoingContext(ctx, onward(in, principal, t.ClusterID)), &passed{leader, down}, nil
}

// allowed refuses what clients have no business asking of a node, and what only
// the proxy itself answers.
func allowed(method string) error {
	m := methodPattern.FindStringSubmatch(method)
	if m == nil {
		return unknownMethod(method)
	}
	switch pkg, _, _ := strings.Cut(m[1], "."); pkg {
	case "node":
		return notForClients(m[1])
	case "grpc":
		return unknownMethod(method)
	}
	return nil
}

// led waits for a table with a leader, like a produce.
func (p *passthrough) led(ctx context.Context) (*route.Table, error) {
	t := p.holder.Load()
	if t.Leader != nil {
		return t, nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.hold)
	defer cancel()
	for ; t.Leader == nil; t = p.holder.Load() {
		select {
		case <-t.Superseded():
		case <-ctx.Done():
			return nil, apierr.NotSent{}
		}
	}
	return t, nil
}

// passed is a node's connection as one passed-through call sees it.
type passed struct {
	u    route.Upstream
	down *downstream
}

// NewStream opens the call at the node. It counts as in flight until the handler
// cancels ctx, which it does whichever way the call ends.
func (c *passed) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if dl, ok := ctx.Deadline(); ok {
		left := time.Until(dl)
		shorter, cancel := context.WithTimeoutCause(ctx, left-min(left/10, deadlineMargin), context.DeadlineExceeded)
		context.AfterFunc(ctx, cancel)
		ctx = shorter
	}
	context.AfterFunc(ctx, c.u.Acquire())
	cs, err := c.u.Conn().NewStream(ctx, desc, method, opts...)
	if err != nil {
		return nil, err
	}
	return &onwards{ClientStream: cs, down: c.down}, nil
}

func (c *passed) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	defer c.u.Acquire()()
	return c.u.Conn().Invoke(ctx, method, args, reply, opts...)
}

// downstream is the client's end of a passed-through call.
type downstream struct {
	grpc.ServerStream
	// failed is why bytes could not be taken from the client or given to the node,
	// if that is what ended the call. The library calls it internal.
	failed atomic.Pointer[error]
}

func (d *downstream) RecvMsg(m any) error {
	err := d.ServerStream.RecvMsg(m)
	if err != nil && !errors.Is(err, io.EOF) {
		d.failed.CompareAndSwap(nil, &err)
	}
	return err
}

// SendHeader does nothing: the library means to send the header with the first
// message, and the other end has sent it already.
func (d *downstream) SendHeader(metadata.MD) error { return nil }

// onwards is the node's end of a passed-through call.
type onwards struct {
	grpc.ClientStream
	down *downstream
	told bool // the client has the header; the receiving goroutine's alone
}

// RecvMsg waits for the header before it waits for a message, so that the client
// has the header when the node sent it. An answer of trailers only has none.
func (o *onwards) RecvMsg(m any) error {
	if !o.told {
		o.told = true
		md, err := o.ClientStream.Header()
		if err != nil {
			return err
		}
		if md != nil {
			if err := o.down.ServerStream.SendHeader(back(md)); err != nil {
				return err
			}
		}
	}
	return o.ClientStream.RecvMsg(m)
}

func (o *onwards) SendMsg(m any) error {
	err := o.ClientStream.SendMsg(m)
	if err != nil && !errors.Is(err, io.EOF) { // at EOF, the status is the receiver's to tell
		o.down.failed.CompareAndSwap(nil, &err)
	}
	return err
}

func (o *onwards) Trailer() metadata.MD { return back(o.ClientStream.Trailer()) }
