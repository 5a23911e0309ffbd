package netlimit

import (
	"container/list"
	"net"
	"sync"
	"time"
)

// Newest holds connections of which the oldest is closed when there are too many.
// It is safe for concurrent use.
type Newest struct {
	most   int
	closed func() // told of each connection that was closed for a newer one; may be nil

	mu  sync.Mutex
	age list.List // of *Conn, oldest first; guarded by mu
}

// NewNewest keeps at most most connections. closed is called, without a lock held,
// for each that is closed for a newer one.
func NewNewest(most int, closed func()) *Newest {
	return &Newest{most: max(most, 1), closed: closed}
}

// Conn is a connection of a Newest.
type Conn struct {
	net.Conn
	of    *Newest
	place *list.Element // in of.age; guarded by of.mu; nil once it left
	gate  *Gate         // it counts there; guarded by of.mu; nil before Keep and after Close
	who   string        // for whom; guarded by of.mu

	strikes int       // as of counted, none of them forgotten since; guarded by of.mu
	counted time.Time // guarded by of.mu
}

// strikeLasts is how long it takes until one strike is forgotten. What is held against
// a connection may have left something behind with us that goes with the connection
// only, so that it is long.
const strikeLasts = time.Hour

// Add takes c in, and closes the oldest if that is one too many.
func (n *Newest) Add(c net.Conn) *Conn {
	conn := &Conn{Conn: c, of: n}
	var oldest *Conn
	n.mu.Lock()
	conn.place = n.age.PushBack(conn)
	if n.age.Len() > n.most {
		oldest = n.age.Front().Value.(*Conn)
	}
	n.mu.Unlock()
	if oldest != nil {
		_ = oldest.Close() // who reads or writes it is told
		if n.closed != nil {
			n.closed()
		}
	}
	return conn
}

// Len is how many connections there are.
func (n *Newest) Len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.age.Len()
}

// Keep takes the connection out of the Newest, and through the gate unless that
// is nil: it is not closed for another any more. The error is net.ErrClosed when
// that has happened already, or a *FullError; the caller then closes it.
func (c *Conn) Keep(g *Gate) error { return c.KeepFor(g, "") }

// KeepFor is Keep of a connection of who.
func (c *Conn) KeepFor(g *Gate, who string) error {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if c.place == nil {
		return net.ErrClosed
	}
	if g != nil {
		if err := g.Enter(who); err != nil {
			return err
		}
		c.gate, c.who = g, who
	}
	c.of.age.Remove(c.place)
	c.place = nil
	return nil
}

// Strike counts something held against the connection, and answers how often that was.
// One is forgotten an hour, so that who is slow now and then is not ended for it.
func (c *Conn) Strike() int {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	now := time.Now()
	if forgotten := int(now.Sub(c.counted) / strikeLasts); forgotten < c.strikes {
		c.strikes -= forgotten
		c.counted = c.counted.Add(time.Duration(forgotten) * strikeLasts)
	} else {
		c.strikes, c.counted = 0, now
	}
	c.strikes++
	return c.strikes
}

// Close closes the connection. Calling it again is harmless.
func (c *Conn) Close() error {
	c.of.mu.Lock()
	if c.place != nil {
		c.of.age.Remove(c.place)
		c.place = nil
	}
	if c.gate != nil {
		c.gate.Leave(c.who)
		c.gate = nil
	}
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// Listener adds what it accepts to a Newest.
type Listener struct {
	net.Listener
	Newest *Newest
}

// Accept answers a *Conn.
func (l Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.Newest.Add(c), nil
}
