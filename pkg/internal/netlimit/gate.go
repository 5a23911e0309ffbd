package netlimit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"google.golang.org/grpc/credentials"
)

// FullError refuses a connection that would be one too many.
type FullError struct {
	Most int
	Of   string // whose limit it is; empty: everybody's
}

func (e *FullError) Error() string {
	if e.Of != "" {
		return fmt.Sprintf("%q has %d connections open, and that is the limit of one client", e.Of, e.Most)
	}
	return fmt.Sprintf("%d connections are open, and that is the limit", e.Most)
}

// Gate counts connections, or whatever else is open for a while, in all and of
// each client. It is safe for concurrent use.
type Gate struct {
	most, each int

	mu   sync.Mutex
	open int            // at most most; guarded by mu
	of   map[string]int // by client, each at most each; without those that have none; guarded by mu
}

// NewGate lets most connections be open at a time.
func NewGate(most int) *Gate { return NewFairGate(most, most) }

// NewFairGate lets most connections be open at a time, and of one client each.
func NewFairGate(most, each int) *Gate {
	return &Gate{most: most, each: each, of: make(map[string]int)}
}

// Enter counts one of client's in. The error is a *FullError.
func (g *Gate) Enter(client string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.open >= g.most:
		return &FullError{Most: g.most}
	case g.of[client] >= g.each:
		return &FullError{Most: g.each, Of: client}
	}
	g.open++
	if g.each < g.most {
		g.of[client]++
	}
	return nil
}

// Leave undoes an Enter.
func (g *Gate) Leave(client string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open--
	if g.of[client]--; g.of[client] <= 0 {
		delete(g.of, client)
	}
}

// Open is how many there are.
func (g *Gate) Open() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

// Most is how many there may be.
func (g *Gate) Most() int { return g.most }

// Door is how a server's connections come in.
type Door struct {
	Gate *Gate
	// Who answers whose connection it is; nil: nobody's in particular.
	Who func(credentials.AuthInfo) string
	// Refused is told of each connection that was turned away; may be nil.
	Refused func(*FullError)
}

// Credentials are those of a gRPC server whose listener is a Listener: inner's, and
// a connection whose handshake is done is kept if the door's gate lets it in.
func Credentials(inner credentials.TransportCredentials, door Door) credentials.TransportCredentials {
	return &gated{inner, door}
}

type gated struct {
	credentials.TransportCredentials
	door Door
}

// ServerHandshake leaves it to gRPC to close what it refuses.
func (g *gated) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := g.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	if c, ok := raw.(*Conn); ok {
		var who string
		if g.door.Who != nil {
			who = g.door.Who(info)
		}
		if err := c.KeepFor(g.door.Gate, who); err != nil {
			var full *FullError
			if errors.As(err, &full) && g.door.Refused != nil {
				g.door.Refused(full)
			}
			return nil, nil, err
		}
	}
	return conn, Held{AuthInfo: info, Conn: raw}, nil
}

// Held is the AuthInfo of a connection that came through Credentials.
type Held struct {
	credentials.AuthInfo          // inner's
	Conn                 net.Conn // closing it ends every call on it
}

func (g *gated) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("credentials of a server do not dial")
}

func (g *gated) Clone() credentials.TransportCredentials { return g }
