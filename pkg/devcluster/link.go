package devcluster

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// errCut is what a dial over a cut link says.
var errCut = errors.New("this node is partitioned from the others")

// link is a node's RPC and Raft network. Cut, it breaks what is connected and
// lets nothing new through. Gossip does not go through it: leadership does not
// depend on gossip, and a member that is seen and cannot be reached is the
// harder case.
type link struct {
	lags  *sync.Map // of the cluster: address → time.Duration, see Node.Lag
	mu    sync.Mutex
	down  bool                  // guarded by mu
	conns map[*tracked]struct{} // guarded by mu
}

func newLink(lags *sync.Map) *link { return &link{lags: lags, conns: make(map[*tracked]struct{})} }

// cut breaks the link; heal mends it.
func (l *link) cut() {
	l.mu.Lock()
	l.down = true
	conns := l.conns
	l.conns = make(map[*tracked]struct{})
	l.mu.Unlock()
	for c := range conns {
		_ = c.Conn.Close() // broken is what it is meant to be
	}
}

func (l *link) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}

func (l *link) isDown() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.down
}

// track takes note of conn, or closes it when the link is cut. to is the address it
// was dialled to, "" when it was accepted.
func (l *link) track(conn net.Conn, to string) (net.Conn, bool) {
	t := &tracked{Conn: conn, link: l, to: to}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		_ = conn.Close()
		return nil, false
	}
	l.conns[t] = struct{}{}
	return t, true
}

func (l *link) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if l.isDown() {
		return nil, errCut
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if t, ok := l.track(conn, address); ok {
		return t, nil
	}
	return nil, errCut
}

func (l *link) listen(network, address string) (net.Listener, error) {
	lis, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	return listener{lis, l}, nil
}

type listener struct {
	net.Listener
	link *link
}

func (l listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if t, ok := l.link.track(conn, ""); ok {
			return t, nil
		}
	}
}

type tracked struct {
	net.Conn
	link *link
	to   string
}

// Write is late when the node it goes to lags.
func (t *tracked) Write(b []byte) (int, error) {
	if d, ok := t.link.lags.Load(t.to); ok {
		timer := time.NewTimer(d.(time.Duration))
		defer timer.Stop()
		<-timer.C
	}
	return t.Conn.Write(b)
}

func (t *tracked) Close() error {
	t.link.mu.Lock()
	delete(t.link.conns, t)
	t.link.mu.Unlock()
	return t.Conn.Close()
}
