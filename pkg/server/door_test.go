package server_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/server"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

// alive checks that the server still serves somebody well-behaved, at the first attempt
// unless it may come late.
func (r *rig) alive(opts ...grpc.CallOption) {
	r.t.Helper()
	_, err := r.client().Produce(ctxOf(r.t), &logv1.ProduceRequest{}, opts...)
	require.NoError(r.t, err)
}

// late tries again where a handshake has 200 ms, for which a busy machine is too slow.
func late() grpc.CallOption { return grpc.WaitForReady(true) }

// shaken is a connection whose handshake was in time, which may take a few on a busy
// machine.
func (r *rig) shaken(conf *tls.Config) (conn *tls.Conn) {
	r.t.Helper()
	testutil.Eventually(r.t, testBound, func() (err error) {
		conn, err = tls.Dial("tcp", r.addr, conf)
		return err
	})
	return conn
}

func TestDispatchByALPN(t *testing.T) {
	r := start(t, func(c *server.Config) { c.HandshakeTimeout = 200 * time.Millisecond })
	src := r.ca.Source(t, tlsconf.RoleStorage, "n2")

	conn := r.shaken(src.Client(tlsconf.ALPNRaft, tlsconf.RoleStorage, "n1"))
	defer func() { require.NoError(t, conn.Close()) }()
	got := <-r.raft
	defer func() { require.NoError(t, got.Close()) }()
	require.Equal(t, "n2", got.name)
	// The dispatched connection is whole, and no deadline of the handshake hits it.
	time.AfterFunc(400*time.Millisecond, func() { _, _ = conn.Write([]byte("raft")) })
	buf := make([]byte, 4)
	_, err := got.Read(buf)
	require.NoError(t, err)
	require.Equal(t, "raft", string(buf))
	// Nor does closing the server: it is not the server's any more.
	r.alive(late())
	r.end()
	_, err = got.Write([]byte("back"))
	require.NoError(t, err)
	_, err = conn.Read(buf)
	require.NoError(t, err)
	require.Equal(t, "back", string(buf))
}

// gRPC clears the deadline of what it accepted once the handshake has returned.
// That must not undo what Raft's side has set by then.
func TestDispatchedConnectionKeepsItsDeadline(t *testing.T) {
	ended := make(chan error, 1)
	r := start(t, func(c *server.Config) {
		c.RaftConn = func(conn net.Conn, _ string) {
			_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			go func() {
				_, err := conn.Read(make([]byte, 1))
				_ = conn.Close()
				ended <- err
			}()
		}
	})
	src := r.ca.Source(t, tlsconf.RoleStorage, "n2")
	conn, err := tls.Dial("tcp", r.addr, src.Client(tlsconf.ALPNRaft, tlsconf.RoleStorage, "n1"))
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	select {
	case err := <-ended:
		require.True(t, timedOut(err), "%v", err)
	case <-ctxOf(t).Done():
		_ = conn.Close()
		t.Fatal("the deadline was lost")
	}
}

func TestDoorRefuses(t *testing.T) {
	r := start(t, func(c *server.Config) { c.HandshakeTimeout = 5 * time.Second })
	stranger := tlstest.NewCA(t, "test")
	client := r.ca.Source(t, tlsconf.RoleClient, "app")
	base := func(role tlsconf.Role, name, alpn string) *tls.Config {
		return r.ca.Source(t, role, name).Client(alpn, tlsconf.RoleStorage, "n1")
	}
	expired := r.ca.Sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "late"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
	})
	for name, conf := range map[string]func() *tls.Config{
		"no ALPN": func() *tls.Config { return base(tlsconf.RoleClient, "app", "") },
		"a protocol we lack": func() *tls.Config {
			c := base(tlsconf.RoleClient, "app", "")
			c.NextProtos = []string{"http/1.1"}
			return c
		},
		"raft as client": func() *tls.Config { return base(tlsconf.RoleClient, "app", tlsconf.ALPNRaft) },
		"raft as proxy":  func() *tls.Config { return base(tlsconf.RoleProxy, "p1", tlsconf.ALPNRaft) },
		"raft as admin":  func() *tls.Config { return base(tlsconf.RoleAdmin, "root", tlsconf.ALPNRaft) },
		"another CA": func() *tls.Config {
			c := stranger.Source(t, tlsconf.RoleClient, "app").Client("h2", "", "")
			c.VerifyConnection = nil
			return c
		},
		"no certificate": func() *tls.Config {
			c := client.Client("h2", tlsconf.RoleStorage, "n1")
			c.GetClientCertificate = nil
			return c
		},
		"TLS 1.2": func() *tls.Config {
			c := base(tlsconf.RoleClient, "app", "h2")
			c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
			return c
		},
		"an expired certificate": func() *tls.Config {
			c := base(tlsconf.RoleClient, "app", "h2")
			p := tlstest.KeyPair(t, expired)
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &p, nil }
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := tls.Dial("tcp", r.addr, conf())
			if err == nil { // the client of TLS 1.3 is done before the server has looked
				_, err = drainConn(conn)
				require.NoError(t, conn.Close())
				if err == nil {
					return // closed on us, which is a refusal too
				}
			}
			require.Error(t, err)
			require.False(t, timedOut(err), "the connection was kept")
			require.Empty(t, r.raft)
		})
	}
	r.alive()
}

func timedOut(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func TestGarbageAndSilenceBeforeTheHandshake(t *testing.T) {
	r := start(t, func(c *server.Config) { c.HandshakeTimeout = 200 * time.Millisecond })
	for name, first := range map[string][]byte{
		"nothing":            nil,
		"half a TLS record":  {0x16, 0x03, 0x01, 0x02, 0x00, 0x01},
		"HTTP":               []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"plaintext HTTP/2":   []byte(http2.ClientPreface),
		"zeros":              make([]byte, 4096),
		"book's first byte":  {1},
		"huge record length": {0x16, 0x03, 0x03, 0xff, 0xff, 0x01, 0x02},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", r.addr)
			require.NoError(t, err)
			defer func() { require.NoError(t, conn.Close()) }()
			_, _ = conn.Write(first) // the server may have closed it already
			_, err = drainConn(conn) // until the server has closed it
			require.False(t, timedOut(err), "the server kept a connection that never shook hands")
		})
	}
	r.alive(late())
}

func TestGarbageAfterTheHandshake(t *testing.T) {
	r := start(t, func(c *server.Config) { c.HandshakeTimeout = 200 * time.Millisecond })
	src := r.ca.Source(t, tlsconf.RoleClient, "app")
	for name, first := range map[string][]byte{
		"nothing":                nil,
		"not the preface":        []byte("PUT * HTTP/2.0\r\n\r\nSM\r\n\r\nxxxx"),
		"preface, then junk":     append([]byte(http2.ClientPreface), "this is no frame at all, nor another"...),
		"preface, no settings":   append([]byte(http2.ClientPreface), 0, 0, 4, 1, 5, 0, 0, 0, 1, 1, 2, 3, 4),
		"preface, a giant frame": append([]byte(http2.ClientPreface), 0xff, 0xff, 0xff, 4, 0, 0, 0, 0, 0),
		"preface, then silence":  []byte(http2.ClientPreface),
	} {
		t.Run(name, func(t *testing.T) {
			conn := r.shaken(src.Client("h2", tlsconf.RoleStorage, "n1"))
			defer func() { _ = conn.Close() }()
			_, _ = conn.Write(first) // the server may have closed it already
			_, err := drainConn(conn)
			require.False(t, timedOut(err), "the server kept a connection that speaks no HTTP/2")
		})
	}
	r.alive(late())
}

func TestCloseDoesNotWaitForSlowHandshakes(t *testing.T) {
	r := start(t, func(c *server.Config) { c.HandshakeTimeout = time.Hour })
	conn, err := net.Dial("tcp", r.addr)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = conn.Write([]byte{0x16, 0x03})
	require.NoError(t, err)
	r.alive() // accepted after it, so it is in its handshake or about to be
	r.end()   // hangs for an hour when it waits
	_, _ = drainConn(conn)
}

func TestUnknownMethod(t *testing.T) {
	r := start(t)
	cc := r.dial(tlsconf.RoleAdmin, "root")
	for _, method := range []string{"/log.v1.Log/Nope", "/log.v2.Log/Produce", "/x/y", "nonsense"} {
		err := cc.Invoke(ctxOf(t), method, &logv1.ProduceRequest{}, &logv1.ProduceResponse{})
		require.Equal(t, codes.Unimplemented, status.Code(err), "%s: %v", method, err)
	}
	r.alive()
}

func TestMessageThatIsNoProtobuf(t *testing.T) {
	r := start(t)
	cc := r.dial(tlsconf.RoleAdmin, "root")
	for _, method := range []string{"/log.v1.Log/Produce", "/log.v1.Log/Consume", "/log.v1.Log/GetOffsets", "/node.v1.Node/Fetch", "/node.v1.Node/RemovePeer"} {
		var resp rawBytes
		err := cc.Invoke(ctxOf(t), method, rawBytes{0x0a, 0xff, 0xff}, &resp, forceRaw)
		require.Equal(t, codes.InvalidArgument, status.Code(err), "%s: %v", method, err)
	}
}
