package netlimit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
)

// FullError refuses a connection that would be one too many.
type FullError struct{ Most int }

func (e *FullError) Error() string {
	return fmt.Sprintf("%d connections are open, and that is the limit", e.Most)
}

// Gate counts connections that have shown who they are.
type Gate struct {
	most int64
	open atomic.Int64 // at most most, but for the moment in which one is refused
}

// NewGate lets most connections be open at a time.
func NewGate(most int) *Gate { return &Gate{most: int64(most)} }

func (g *Gate) enter() error {
	if g.open.Add(1) > g.most {
		g.open.Add(-1)
		return &FullError{Most: int(g.most)}
	}
	return nil
}

func (g *Gate) leave() { g.open.Add(-1) }

// Credentials are those of a gRPC server whose listener is a Listener: inner's, and
// a connection whose handshake is done is kept if the gate lets it in.
func Credentials(inner credentials.TransportCredentials, gate *Gate) credentials.TransportCredentials {
	return &gated{inner, gate}
}

type gated struct {
	credentials.TransportCredentials
	gate *Gate
}

// ServerHandshake leaves it to gRPC to close what it refuses.
func (g *gated) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := g.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	if c, ok := raw.(*Conn); ok {
		if err := c.Keep(g.gate); err != nil {
			return nil, nil, err
		}
	}
	return conn, info, nil
}

func (g *gated) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("credentials of a server do not dial")
}

func (g *gated) Clone() credentials.TransportCredentials { return g }
