package upstream

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// How a lost connection is noticed and made again. A failover ends when the
// proxy reaches the new leader, so waiting here is downtime.
const (
	backoffBase = 50 * time.Millisecond
	backoffMax  = time.Second
	// connectTimeout is what one attempt gets, handshake included. A packet lost
	// on the way is sent again by the kernel after a second.
	connectTimeout = 3 * time.Second
	// keepaliveTime is the shortest that grpc allows a client.
	keepaliveTime = 10 * time.Second
	// keepaliveTimeout is also TCP_USER_TIMEOUT: a peer that is cut off is noticed
	// this long after something was sent to it.
	keepaliveTimeout = 2 * time.Second

	// maxMessageBytes is far above a node's batch limit, so that the node's limit
	// is the one that speaks.
	maxMessageBytes = 16 << 20
	maxHeaderBytes  = 16 << 10

	// Fixed windows: what one stream may have on the way, so what a slow consumer
	// makes the proxy hold, does not grow with the bandwidth seen.
	streamWindowBytes = 1 << 20
	connWindowBytes   = 4 << 20
)

// Node is one storage node and the connection to it.
type Node struct {
	id, addr string
	conn     *conns
	inFlight atomic.Int64
	answers  atomic.Int64  // never decreases
	idle     chan struct{} // capacity 1: inFlight has come down to 0 since it was last drained
}

// Name is the certificate name in a node id: what comes before the last dot.
func Name(id string) string {
	if i := strings.LastIndexByte(id, '.'); i >= 0 {
		return id[:i]
	}
	return id
}

// open makes the Node of id at addr and lets it connect. It does not wait.
func open(id, addr string, creds credentials.TransportCredentials, extra []grpc.DialOption) (*Node, error) {
	opts := append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: backoffBase, Multiplier: 1.6, Jitter: 0.2, MaxDelay: backoffMax,
			},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: keepaliveTime, Timeout: keepaliveTimeout, PermitWithoutStream: true,
		}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(maxMessageBytes),
			grpc.MaxCallSendMsgSize(math.MaxInt32),
		),
		grpc.WithMaxHeaderListSize(maxHeaderBytes),
		grpc.WithInitialWindowSize(streamWindowBytes),
		grpc.WithInitialConnWindowSize(connWindowBytes),
		grpc.WithIdleTimeout(0),         // a node without calls is still watched for its state
		grpc.WithDisableRetry(),         // forward retries, by reason; nothing below it may
		grpc.WithDisableServiceConfig(), // the node set comes from discovery, never from DNS
		grpc.WithNoProxy(),
		grpc.WithUserAgent("logproxy"),
	}, extra...)
	dial := func() (*grpc.ClientConn, error) { return grpc.NewClient("passthrough:///"+addr, opts...) }
	conn, err := dial()
	if err != nil {
		return nil, fmt.Errorf("upstream %s at %s: %w", id, addr, err)
	}
	conn.Connect()
	return &Node{id: id, addr: addr, conn: &conns{ClientConn: conn, dial: dial}, idle: make(chan struct{}, 1)}, nil
}

// ID is the node id; empty for an address whose node is not known yet.
func (n *Node) ID() string { return n.id }

// Addr is host:port of the node's RPC listener.
func (n *Node) Addr() string { return n.addr }

// Conn is the connection, shared by all callers. There are more behind it for many
// FetchStreams.
func (n *Node) Conn() grpc.ClientConnInterface { return n.conn }

// InFlight is the number of calls counted in by Acquire and not yet out.
func (n *Node) InFlight() int64 { return n.inFlight.Load() }

// Answered takes note that the node has answered a call, if only to refuse it. A call
// that its caller gave up is none.
func (n *Node) Answered() { n.answers.Add(1) }

// Answers is how often Answered was called.
func (n *Node) Answers() int64 { return n.answers.Load() }

// Acquire counts a call in. A Node that has left the Pool is closed when its
// calls are out, so a stream counts too.
func (n *Node) Acquire() (release func()) {
	n.inFlight.Add(1)
	var once sync.Once
	return func() {
		once.Do(func() {
			if n.inFlight.Add(-1) == 0 {
				select {
				case n.idle <- struct{}{}:
				default:
				}
			}
		})
	}
}

// State is the connection's state. Once in TransientFailure it stays there,
// attempts notwithstanding, until it is Ready again.
func (n *Node) State() connectivity.State { return n.conn.GetState() }

// WaitForStateChange blocks until the state is not last (true) or ctx ends
// (false). An idle connection, one the node has let go of, is made again.
func (n *Node) WaitForStateChange(ctx context.Context, last connectivity.State) bool {
	if last == connectivity.Idle {
		n.conn.Connect()
	}
	return n.conn.WaitForStateChange(ctx, last)
}

// drain waits until no call is in flight or ctx ends.
func (n *Node) drain(ctx context.Context) {
	for n.inFlight.Load() > 0 {
		select {
		case <-n.idle:
		case <-ctx.Done():
			return
		}
	}
}
