package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/logd-io/logd/pkg/internal/netlimit"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// door is the transport credentials of the RPC port. It does the TLS handshake
// inside gRPC's goroutine for the connection, under gRPC's connection timeout,
// and tells gRPC from Raft by the protocol the handshake agreed on.
type door struct {
	tls     *tls.Config
	timeout time.Duration
	raft    func(conn net.Conn, name string)

	conns *connections

	// refused is told of every handshake that failed.
	refused func(remote net.Addr, err error)

	mu      sync.Mutex
	closed  bool                  // guarded by mu; once true, no handshake begins
	shaking map[net.Conn]struct{} // guarded by mu: connections in ServerHandshake
}

var _ credentials.TransportCredentials = (*door)(nil)

// peerInfo is what the handshake learned about the other side.
type peerInfo struct {
	credentials.TLSInfo
	identity tlsconf.Identity
}

func (d *door) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if !d.begin(raw) {
		return nil, nil, net.ErrClosed
	}
	defer d.end(raw)
	held, _ := raw.(*heldConn)
	under := raw
	if held != nil {
		under = held.Conn
	}
	conn, info, err := d.handshake(under)
	if err != nil {
		d.conns.refused.WithLabelValues("handshake").Inc()
	} else if c, ok := under.(*netlimit.Conn); ok {
		err = d.conns.keep(c, info.identity)
	}
	if err != nil {
		d.refused(raw.RemoteAddr(), err)
		return nil, nil, err
	}
	switch info.State.NegotiatedProtocol {
	case tlsconf.ALPNgRPC:
		return conn, info, nil
	case tlsconf.ALPNRaft:
		if info.identity.Role != tlsconf.RoleStorage {
			err := fmt.Errorf("%s of role %s may not speak %s", info.identity.Name, info.identity.Role, tlsconf.ALPNRaft)
			d.refused(raw.RemoteAddr(), err)
			return nil, nil, err
		}
		// gRPC resets the deadline of what it accepted after this returns. The
		// connection is Raft's by then, and so are its deadlines.
		if held != nil {
			held.released.Store(true)
		}
		if err := under.SetDeadline(time.Time{}); err != nil {
			return nil, nil, err
		}
		d.raft(conn, info.identity.Name)
		return nil, nil, credentials.ErrConnDispatched
	}
	err = fmt.Errorf("protocol %q is not spoken here", info.State.NegotiatedProtocol)
	d.refused(raw.RemoteAddr(), err)
	return nil, nil, err
}

func (d *door) handshake(raw net.Conn) (*tls.Conn, peerInfo, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d.timeout)
	defer cancel()
	conn := tls.Server(raw, d.tls)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, peerInfo{}, err
	}
	state := conn.ConnectionState()
	id, err := tlsconf.Peer(state)
	if err != nil {
		return nil, peerInfo{}, err
	}
	info := peerInfo{identity: id, TLSInfo: credentials.TLSInfo{State: state}}
	info.SecurityLevel = credentials.PrivacyAndIntegrity
	return conn, info, nil
}

func (d *door) begin(c net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.shaking[c] = struct{}{}
	return true
}

func (d *door) end(c net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.shaking, c)
}

// shut ends the handshakes under way, which gRPC would wait for.
func (d *door) shut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for c := range d.shaking {
		_ = c.Close() // the handshake reports it
	}
}

func (d *door) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("credentials of a server do not dial")
}

func (d *door) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (d *door) Clone() credentials.TransportCredentials { return d }

func (d *door) OverrideServerName(string) error {
	return errors.New("credentials of a server have no server name")
}

// holdListener accepts connections whose deadlines can be taken out of gRPC's
// hands.
type holdListener struct{ net.Listener }

func (l holdListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &heldConn{Conn: c}, nil
}

// heldConn is a connection as gRPC knows it until the handshake is done.
type heldConn struct {
	net.Conn
	released atomic.Bool // set before the connection goes to Raft
}

func (c *heldConn) SetDeadline(t time.Time) error {
	if c.released.Load() {
		return nil
	}
	return c.Conn.SetDeadline(t)
}
