package replica

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// simNet is a network of byte streams in virtual time. It delays each piece,
// breaks connections with what is under way on them, holds back one direction of
// a link or both, and says again, on a connection of its own, what was said long
// ago: TCP repeats and reorders nothing within a connection, so that is how an
// RPC comes twice, late or out of order.
type simNet struct {
	mu     sync.Mutex
	rng    *rand.Rand          // guarded by mu
	delay  time.Duration       // mean of a piece's; guarded by mu
	breaks int                 // connections broken per 10,000 pieces; guarded by mu
	held   map[[2]string]bool  // directions that pass nothing; guarded by mu
	live   map[*simConn]bool   // ends of open connections; guarded by mu
	said   []saying            // a ring of old RPCs; guarded by mu
	place  int                 // the next one to forget
	accept map[string]*simNode // who listens; guarded by mu
	counts struct{ dials, ghosts, broken int }
}

// saying is an RPC as it was sent.
type saying struct {
	from, to string
	bytes    []byte
}

const rememberedSayings = 512

func newSimNet(rng *rand.Rand) *simNet {
	return &simNet{rng: rng, delay: time.Millisecond, held: map[[2]string]bool{}, live: map[*simConn]bool{}, accept: map[string]*simNode{}}
}

var errSimRefused = errors.New("connection refused")

// dial connects an incarnation with whoever listens under an id.
func (n *simNet) dial(ctx context.Context, from *simNode, to string) (net.Conn, error) {
	n.mu.Lock()
	peer := n.accept[to]
	blocked := n.held[[2]string{from.id, to}] || n.held[[2]string{to, from.id}]
	lat := n.latency()
	n.counts.dials++
	n.mu.Unlock()
	if blocked { // a SYN that nobody answers
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	time.Sleep(lat)
	if peer == nil || !peer.alive.Load() || !from.alive.Load() {
		return nil, errSimRefused
	}
	near := n.connect(from, peer, from.id, to)
	peer.r.Accept(near.peer, NameOf(from.id))
	return near, nil
}

func (n *simNet) connect(a, b *simNode, from, to string) *simConn {
	there, back := newSimPipe(), newSimPipe()
	near := &simConn{net: n, node: a, from: from, to: to, in: back, out: there, client: true}
	far := &simConn{net: n, node: b, from: to, to: from, in: there, out: back}
	near.peer, far.peer = far, near
	n.mu.Lock()
	defer n.mu.Unlock()
	n.live[near], n.live[far] = true, true
	return near
}

// latency draws one; mu is held.
func (n *simNet) latency() time.Duration {
	d := n.delay/2 + time.Duration(n.rng.Int64N(int64(n.delay)+1))
	if n.rng.IntN(64) == 0 {
		d *= 20
	}
	return d
}

// hold makes directions pass nothing, until release.
func (n *simNet) hold(links ...[2]string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range links {
		n.held[l] = true
	}
}

// release lets everything pass again: of the connections that were stuck some
// go on where they were, and others are gone.
func (n *simNet) release() {
	n.mu.Lock()
	var gone []*simConn
	for c := range n.live {
		if !n.held[[2]string{c.from, c.to}] {
			continue
		}
		if n.rng.IntN(2) == 0 {
			gone = append(gone, c)
		} else {
			c.out.resume(time.Now().Add(n.latency()))
		}
	}
	clear(n.held)
	n.mu.Unlock()
	for _, c := range gone {
		c.reset()
	}
}

// drop breaks every connection of a node that died.
func (n *simNet) drop(node *simNode) {
	n.mu.Lock()
	var gone []*simConn
	for c := range n.live {
		if c.node == node {
			gone = append(gone, c)
		}
	}
	n.mu.Unlock()
	for _, c := range gone {
		c.reset()
	}
}

// remember keeps an RPC, in the place of an older one; mu is held.
func (n *simNet) remember(s saying) {
	if len(n.said) < rememberedSayings {
		n.said = append(n.said, s)
		return
	}
	n.said[n.place] = s
	n.place = (n.place + 1) % len(n.said)
}

// ghost says something again that was said before: to the node that it was for,
// if that still listens. Its answer is lost.
func (n *simNet) ghost(cluster string) bool {
	n.mu.Lock()
	if len(n.said) == 0 {
		n.mu.Unlock()
		return false
	}
	s := n.said[n.rng.IntN(len(n.said))]
	peer := n.accept[s.to]
	n.counts.ghosts++
	n.mu.Unlock()
	if peer == nil || !peer.alive.Load() {
		return false
	}
	c := n.connect(nil, peer, s.from, s.to)
	peer.r.Accept(c.peer, NameOf(s.from))
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = c.Write(preface{cluster: cluster, from: s.from, to: s.to}.encode())
	_, _ = c.Write(s.bytes)
	_, _ = c.Read(make([]byte, 256))
	c.reset()
	return true
}

// simPipe is one direction of a connection.
type simPipe struct {
	mu       sync.Mutex
	pieces   []piece   // guarded by mu; in order
	rest     []byte    // of the piece being read; guarded by mu
	last     time.Time // when the newest piece arrives; guarded by mu
	err      error     // ends reading, once nothing is left if it is io.EOF; guarded by mu
	deadline time.Time // of the reader; guarded by mu
	wake     chan struct{}
}

type piece struct {
	at   time.Time // zero: held back
	data []byte
}

func newSimPipe() *simPipe { return &simPipe{wake: make(chan struct{}, 1)} }

func (p *simPipe) push(b []byte, at time.Time) {
	p.mu.Lock()
	if at.Before(p.last) && !at.IsZero() {
		at = p.last
	}
	if !at.IsZero() {
		p.last = at
	}
	p.pieces = append(p.pieces, piece{at, b})
	p.mu.Unlock()
	poke(p.wake)
}

func (p *simPipe) resume(at time.Time) {
	p.mu.Lock()
	for i := range p.pieces {
		if p.pieces[i].at.IsZero() {
			p.pieces[i].at = at
		}
	}
	p.last = at
	p.mu.Unlock()
	poke(p.wake)
}

func (p *simPipe) end(err error) {
	p.mu.Lock()
	if p.err == nil || errors.Is(p.err, io.EOF) {
		p.err = err
	}
	p.mu.Unlock()
	poke(p.wake)
}

func (p *simPipe) read(b []byte) (int, error) {
	for {
		n, next, err := p.arrived(b)
		switch {
		case n > 0 || err != nil:
			return n, err
		case next.IsZero():
			<-p.wake
			continue
		}
		timer := time.NewTimer(time.Until(next))
		select {
		case <-p.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// arrived copies what has come into b, or says why nothing will, or when to look
// again: at next, if it is not zero, and whenever p wakes.
func (p *simPipe) arrived(b []byte) (n int, next time.Time, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if len(p.rest) == 0 && len(p.pieces) > 0 && !errors.Is(p.err, syscall.ECONNRESET) {
		if at := p.pieces[0].at; !at.IsZero() && !at.After(now) {
			p.rest = p.pieces[0].data
			p.pieces = p.pieces[1:]
		} else {
			next = at
		}
	}
	switch {
	case errors.Is(p.err, syscall.ECONNRESET) || errors.Is(p.err, net.ErrClosed):
		return 0, next, p.err
	case len(p.rest) > 0:
		n = copy(b, p.rest)
		p.rest = p.rest[n:]
		return n, next, nil
	case p.err != nil && len(p.pieces) == 0:
		return 0, next, p.err
	case !p.deadline.IsZero() && !p.deadline.After(now):
		return 0, next, os.ErrDeadlineExceeded
	}
	if d := p.deadline; !d.IsZero() && (next.IsZero() || d.Before(next)) {
		next = d
	}
	return 0, next, nil
}

// simConn is one end of a connection.
type simConn struct {
	net      *simNet
	node     *simNode // whose end it is; nil: nobody's
	from, to string
	client   bool
	in, out  *simPipe
	peer     *simConn
	begun    bool   // the preface is written
	snapshot []byte // an InstallSnapshot whose body comes next
}

var _ net.Conn = (*simConn)(nil)

func (c *simConn) Read(b []byte) (int, error) {
	n, err := c.in.read(b)
	if c.node != nil && !c.node.alive.Load() {
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *simConn) Write(b []byte) (int, error) {
	if c.node != nil && !c.node.alive.Load() {
		return 0, net.ErrClosed
	}
	c.out.mu.Lock()
	err := c.out.err
	c.out.mu.Unlock()
	if err != nil {
		return 0, syscall.EPIPE
	}
	data := append([]byte(nil), b...)
	n := c.net
	n.mu.Lock()
	at := time.Now().Add(n.latency())
	if n.held[[2]string{c.from, c.to}] {
		at = time.Time{}
	}
	broken := n.breaks > 0 && n.rng.IntN(10000) < n.breaks
	if c.client && c.begun {
		c.note(data)
	}
	c.begun = true
	if broken {
		n.counts.broken++
	}
	n.mu.Unlock()
	if broken { // its writer believes that it was sent
		c.reset()
		return len(b), nil
	}
	c.out.push(data, at)
	return len(b), nil
}

// note remembers the RPC just written; net.mu is held. The body of a checkpoint
// comes in a write of its own.
func (c *simConn) note(data []byte) {
	const installSnapshot = 2
	switch {
	case c.snapshot != nil:
		data = append(c.snapshot, data...)
		c.snapshot = nil
	case data[0] == installSnapshot:
		c.snapshot = append([]byte(nil), data...)
		return
	}
	if c.node != nil && c.net.rng.IntN(8) == 0 {
		c.net.remember(saying{c.from, c.to, data})
	}
}

// reset ends the connection at once, on both ends.
func (c *simConn) reset() {
	c.in.end(syscall.ECONNRESET)
	c.out.end(syscall.ECONNRESET)
	c.net.forget(c)
}

func (n *simNet) forget(c *simConn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.live, c)
	delete(n.live, c.peer)
}

func (c *simConn) Close() error {
	c.in.end(net.ErrClosed)
	c.out.end(io.EOF)
	c.net.forget(c)
	return nil
}

func (c *simConn) LocalAddr() net.Addr  { return idAddr(c.from) }
func (c *simConn) RemoteAddr() net.Addr { return idAddr(c.to) }

func (c *simConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

func (c *simConn) SetReadDeadline(t time.Time) error {
	c.in.mu.Lock()
	c.in.deadline = t
	c.in.mu.Unlock()
	poke(c.in.wake)
	return nil
}

func (c *simConn) SetWriteDeadline(time.Time) error { return nil } // a write never waits
