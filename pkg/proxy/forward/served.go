package forward

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc"
)

// Served is the request that interceptors see of a unary call: after the handler it
// knows which node the call was served by.
type Served interface {
	// ServedBy is the node's id; empty when no node was asked, or none is known to have
	// had a part in it.
	ServedBy() string
}

// unaryCall is a unary call's request, and the node that served it.
type unaryCall[Req any] struct {
	req Req
	by  string
}

func (c *unaryCall[Req]) ServedBy() string { return c.by }

// produceCall is what a Produce's interceptors see. The op is not theirs: it may be
// somebody else's when they look.
type produceCall struct {
	called bool
	by     string
}

func (c *produceCall) ServedBy() string { return c.by }

// StreamServed tells of a stream which node served it last. Unlike a unary call's its
// handler may still run when it is asked.
type StreamServed struct{ by atomic.Pointer[string] }

type servedKey struct{}

// WatchServed is ss with a context that has the handler say which node serves it.
func WatchServed(ss grpc.ServerStream) (grpc.ServerStream, *StreamServed) {
	s := new(StreamServed)
	return &servedStream{ss, context.WithValue(ss.Context(), servedKey{}, s)}, s
}

// ServedBy is Served's.
func (s *StreamServed) ServedBy() string {
	if id := s.by.Load(); id != nil {
		return *id
	}
	return ""
}

// NoteServed notes that the node with that id serves the call of ctx.
func NoteServed(ctx context.Context, id string) {
	if s, ok := ctx.Value(servedKey{}).(*StreamServed); ok && id != "" && s.ServedBy() != id {
		s.by.Store(&id)
	}
}

type servedStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // what Context answers
}

func (s *servedStream) Context() context.Context { return s.ctx }
