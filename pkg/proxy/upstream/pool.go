package upstream

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// ErrClosed is answered by a Pool after Close.
var ErrClosed = errors.New("upstream: pool is closed")

// Config of a Pool.
type Config struct {
	// Credentials makes the transport credentials towards the storage node whose
	// certificate has this name; "" is any storage node.
	Credentials func(name string) credentials.TransportCredentials
	// DrainTimeout is how long calls on a node that has left the Pool may go on.
	// 0: 10 s.
	DrainTimeout time.Duration
	// DialOptions are added to every connection's: stats handlers, interceptors.
	DialOptions []grpc.DialOption
}

// Pool holds the Nodes by id.
type Pool struct {
	cfg     Config
	ctx     context.Context //nolint:containedctx // ends in Close; bounds the goroutines that drain
	cancel  context.CancelFunc
	leaving sync.WaitGroup // those goroutines, one a Node that has left

	mu     sync.Mutex
	nodes  map[string]*Node // guarded by mu
	closed bool             // guarded by mu; once true, nodes stays empty
}

// New makes an empty Pool.
func New(cfg Config) *Pool {
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = 10 * time.Second
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Pool{cfg: cfg, ctx: ctx, cancel: cancel, nodes: map[string]*Node{}}
}

// Ensure answers the Node of id at addr, and makes it when there is none or the
// one there is has another address; that one then leaves as in Remove.
func (p *Pool) Ensure(id, addr string) (*Node, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	old := p.nodes[id]
	if old != nil && old.addr == addr {
		return old, nil
	}
	n, err := open(id, addr, p.cfg.Credentials(Name(id)), p.cfg.DialOptions)
	if err != nil {
		return nil, err
	}
	p.nodes[id] = n
	if old != nil {
		p.leave(old)
	}
	return n, nil
}

// Dial opens a Node outside the Pool: an address whose node is not known yet.
// The caller closes it.
func (p *Pool) Dial(addr string) (*Node, error) {
	return open("", addr, p.cfg.Credentials(""), p.cfg.DialOptions)
}

// Remove lets the Node of id go: it is no longer in the Pool, and its connection
// closes when its calls are done, or after DrainTimeout.
func (p *Pool) Remove(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.nodes[id]; n != nil {
		delete(p.nodes, id)
		p.leave(n)
	}
}

// leave closes n once it is drained. Holds mu, so that Close waits for it.
func (p *Pool) leave(n *Node) {
	p.leaving.Go(func() {
		ctx, cancel := context.WithTimeout(p.ctx, p.cfg.DrainTimeout)
		defer cancel()
		n.drain(ctx)
		_ = n.Close() // nothing is left to do with a connection that will not close
	})
}

// Close closes every connection now and waits for it. Calls still open end with
// code Canceled.
func (p *Pool) Close() error {
	p.mu.Lock()
	nodes := p.nodes
	p.nodes, p.closed = nil, true
	p.mu.Unlock()
	p.cancel()
	var errs []error
	for _, n := range nodes {
		errs = append(errs, n.Close())
	}
	p.leaving.Wait()
	return errors.Join(errs...)
}

// Close closes the connection at once. For a Node in a Pool it is the Pool that
// calls it.
func (n *Node) Close() error { return n.conn.Close() }
