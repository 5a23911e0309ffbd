package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/replica"
)

// leaderLine is the connection over which this node asks the leader, kept as long
// as it is good: a linearizable read should not cost a handshake.
type leaderLine struct {
	mu       sync.Mutex
	id, addr string           // whom conn is to; guarded by mu
	conn     *grpc.ClientConn // guarded by mu; nil: none is open
	closed   bool             // guarded by mu; once true, none is opened
}

// to gives the connection to that node, made by connect if there is none.
func (l *leaderLine) to(id, addr string, connect func(addr, name string) (*grpc.ClientConn, error)) (*grpc.ClientConn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	if l.conn != nil && l.id == id && l.addr == addr {
		return l.conn, nil
	}
	conn, err := connect(addr, replica.NameOf(id))
	if err != nil {
		return nil, err
	}
	if l.conn != nil {
		_ = l.conn.Close() // it led before, or was elsewhere
	}
	l.id, l.addr, l.conn = id, addr, conn
	return conn, nil
}

// drop closes conn, if it is still the one.
func (l *leaderLine) drop(conn *grpc.ClientConn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != conn || conn == nil {
		return nil
	}
	l.conn = nil
	return conn.Close()
}

// Close closes what is open, for good.
func (l *leaderLine) Close() error {
	l.mu.Lock()
	conn := l.conn
	l.closed = true
	l.mu.Unlock()
	return l.drop(conn)
}

// readIndex asks the leader what a linearizable read has to see. A connection that
// failed is not kept: gRPC would wait longer and longer before it tries again.
func (a *Agent) readIndex(ctx context.Context, id string) (position uint64, err error) {
	addr := a.address(id)
	if addr == "" {
		return 0, fmt.Errorf("the address of %s is not known", id)
	}
	conn, err := a.leader.to(id, addr, a.connect)
	if err != nil {
		return 0, err
	}
	resp, err := nodev1.NewNodeClient(conn).ReadIndex(ctx, &nodev1.ReadIndexRequest{})
	if err != nil && apierr.ReasonOf(err) == "" && !errors.Is(ctx.Err(), context.Canceled) {
		err = errors.Join(err, a.leader.drop(conn))
	}
	return resp.GetPosition(), err
}
