package upstream

import (
	"context"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// streamsAConn is how many streams a connection carries. A node takes a limited number of
// calls on one (1,000 by default), and one too many waits: without room for them, whoever
// opens many tails, or comes under many names, would have everybody else's calls wait
// behind those.
const streamsAConn = 500

// conns is a node's connection, and those that are added for streams while it carries as
// many of them as it may. They stay until the node is closed. Unary calls, which are soon
// over, are on the first.
type conns struct {
	*grpc.ClientConn
	dial func() (*grpc.ClientConn, error)

	mu     sync.Mutex
	closed bool    // guarded by mu
	lanes  []*lane // guarded by mu; the first is ClientConn
}

type lane struct {
	conn *grpc.ClientConn
	n    int // guarded by the conns' mu
}

// NewStream opens a stream on a connection that has room for it. It takes its place until
// ctx ends.
func (c *conns) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	l, err := c.place()
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() {
		c.mu.Lock()
		l.n--
		c.mu.Unlock()
	})
	return l.conn.NewStream(ctx, desc, method, opts...)
}

func (c *conns) place() (*lane, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lanes == nil {
		c.lanes = []*lane{{conn: c.ClientConn}}
	}
	for _, l := range c.lanes {
		if l.n < streamsAConn {
			l.n++
			return l, nil
		}
	}
	if c.closed {
		return nil, status.Error(codes.Canceled, "the node's connections are closing")
	}
	conn, err := c.dial()
	if err != nil {
		return nil, err
	}
	l := &lane{conn: conn, n: 1}
	c.lanes = append(c.lanes, l)
	return l, nil
}

// Close closes all of them.
func (c *conns) Close() error {
	c.mu.Lock()
	c.closed = true
	var more []*lane
	if len(c.lanes) > 1 {
		more = c.lanes[1:]
	}
	c.mu.Unlock()
	for _, l := range more {
		_ = l.conn.Close()
	}
	return c.ClientConn.Close()
}
