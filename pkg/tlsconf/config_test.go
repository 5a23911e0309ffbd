package tlsconf_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

// shake connects both ends over loopback, lets the client say one byte and the
// server answer it, and returns what each end made of it. In TLS 1.3 the client
// learns of a refusal only by reading.
func shake(t *testing.T, server, client *tls.Config) (cs tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer lis.Close()
	type end struct {
		cs  tls.ConnectionState
		err error
	}
	done := make(chan end, 1) // one end, sent once
	go func() {
		raw, err := lis.Accept()
		if err != nil {
			done <- end{err: err}
			return
		}
		defer raw.Close()
		conn := tls.Server(raw, server)
		_ = raw.SetDeadline(time.Now().Add(20 * time.Second))
		err = conn.Handshake()
		if err == nil {
			_, err = io.CopyN(conn, conn, 1)
		}
		done <- end{conn.ConnectionState(), err}
	}()
	raw, err := net.Dial("tcp", lis.Addr().String())
	require.NoError(t, err)
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(20 * time.Second))
	if client == nil {
		_, clientErr = raw.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	} else {
		conn := tls.Client(raw, client)
		if clientErr = conn.Handshake(); clientErr == nil {
			if _, clientErr = conn.Write([]byte{'x'}); clientErr == nil {
				_, clientErr = io.ReadFull(conn, make([]byte, 1))
			}
		}
		if clientErr != nil {
			raw.Close()
		}
	}
	e := <-done
	return e.cs, e.err, clientErr
}

func TestHandshakeAdmits(t *testing.T) {
	ca := tlstest.NewCA(t, "prod")
	node := ca.Source(t, tlsconf.RoleStorage, "n1")
	protos := []string{tlsconf.ALPNgRPC, tlsconf.ALPNRaft}
	for _, role := range tlsconf.Roles() {
		t.Run(string(role), func(t *testing.T) {
			peer := ca.Source(t, role, "peer")
			cs, serverErr, clientErr := shake(t, node.Server(protos, tlsconf.Roles()...),
				peer.Client(tlsconf.ALPNRaft, tlsconf.RoleStorage, "n1"))
			require.NoError(t, serverErr)
			require.NoError(t, clientErr)
			require.Equal(t, uint16(tls.VersionTLS13), cs.Version)
			require.Equal(t, tlsconf.ALPNRaft, cs.NegotiatedProtocol)
			require.NotEmpty(t, cs.VerifiedChains)
			id, err := tlsconf.Peer(cs)
			require.NoError(t, err)
			require.Equal(t, tlsconf.Identity{Cluster: "prod", Role: role, Name: "peer"}, id)
		})
	}
}

func TestCertificateWithoutRoleURIIsAClient(t *testing.T) {
	ca := tlstest.NewCA(t, "prod")
	node := ca.Source(t, tlsconf.RoleStorage, "n1")
	plain, err := tlsconf.Load(ca.Sign(t, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "root"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}))
	require.NoError(t, err)
	require.Equal(t, tlsconf.Identity{Role: tlsconf.RoleClient, Name: "root"}, plain.Identity())

	_, serverErr, clientErr := shake(t, node.Server([]string{"h2"}, tlsconf.RoleClient), plain.Client("h2", "", ""))
	require.NoError(t, serverErr)
	require.NoError(t, clientErr)

	_, serverErr, _ = shake(t, node.Server([]string{"h2"}, tlsconf.RoleStorage, tlsconf.RoleAdmin), plain.Client("h2", "", ""))
	var re *tlsconf.RoleError
	require.ErrorAs(t, serverErr, &re)
	require.Equal(t, tlsconf.RoleClient, re.Got.Role)
}

// The server's side of every refusal in the design's list.
func TestServerRefuses(t *testing.T) {
	ca, otherCA, otherCluster := tlstest.NewCA(t, "prod"), tlstest.NewCA(t, "prod"), tlstest.NewCA(t, "test")
	node := ca.Source(t, tlsconf.RoleStorage, "n1")
	server := node.Server([]string{"h2"}, tlsconf.RoleStorage, tlsconf.RoleProxy)

	// A client that shows any certificate and believes any server, so that it is
	// the server that refuses.
	raw := func(files *tlsconf.Files, change func(*tls.Config)) *tls.Config {
		c := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}
		if files != nil {
			pair := tlstest.KeyPair(t, *files)
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		}
		if change != nil {
			change(c)
		}
		return c
	}
	uri := func(s string) []*url.URL {
		u, err := url.Parse(s)
		require.NoError(t, err)
		return []*url.URL{u}
	}
	good := ca.Files(t, tlsconf.RoleProxy, "p1")
	foreign := otherCA.Files(t, tlsconf.RoleProxy, "p1")
	client := ca.Files(t, tlsconf.RoleClient, "web")
	expired := ca.Sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "p1"}, URIs: uri("spiffe://prod/proxy/p1"),
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
	})
	serverOnly := ca.Sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "p1"}, URIs: uri("spiffe://prod/proxy/p1"),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	twoNames := ca.Sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "root"}, URIs: uri("spiffe://prod/proxy/p1")})
	cluster := ca.Sign(t, &x509.Certificate{URIs: uri("spiffe://test/proxy/p1")})
	farCluster := otherCluster.Files(t, tlsconf.RoleProxy, "p1")

	var (
		roleErr    *tlsconf.RoleError
		chainErr   *tlsconf.ChainError
		idErr      *tlsconf.IdentityError
		clusterErr *tlsconf.ClusterError
		alpnErr    *tlsconf.ALPNError
	)
	for _, tc := range []struct {
		name   string
		client *tls.Config // nil: plaintext
		as     any
		says   []string
	}{
		{"wrong CA", raw(&foreign, nil), &chainErr, []string{"CN=p1", "logd CA prod", "unknown authority"}},
		{"another cluster's CA", raw(&farCluster, nil), &chainErr, []string{"logd CA test"}},
		{"expired", raw(&expired, nil), &chainErr, []string{"CN=p1", "expired"}},
		{"not for clients", raw(&serverOnly, nil), &chainErr, []string{"CN=p1", "incompatible key usage"}},
		{"wrong role", raw(&client, nil), &roleErr, []string{"CN=web", "role client", "storage, proxy"}},
		{"contradicting names", raw(&twoNames, nil), &idErr, []string{"CN=root", "spiffe://prod/proxy/p1", "different"}},
		{"wrong cluster", raw(&cluster, nil), &clusterErr, []string{"spiffe://test/proxy/p1", `"prod"`}},
		{"no certificate", raw(nil, nil), nil, []string{"didn't provide a certificate"}},
		{"TLS 1.2", raw(&good, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), nil, []string{"unsupported versions"}},
		{"plaintext", nil, nil, []string{"does not look like a TLS handshake"}},
		{"no ALPN", raw(&good, func(c *tls.Config) { c.NextProtos = nil }), &alpnErr, []string{"none", "h2"}},
		// crypto/tls lets this one past, as a courtesy to HTTP clients.
		{"HTTP/1.1", raw(&good, func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }), &alpnErr, []string{"none", "h2"}},
		{"another ALPN", raw(&good, func(c *tls.Config) { c.NextProtos = []string{"spdy/3"} }), nil, []string{"unsupported application protocols"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, serverErr, clientErr := shake(t, server, tc.client)
			require.Error(t, serverErr)
			serverErr = tlsconf.Explain(serverErr)
			if tc.client != nil {
				require.Error(t, clientErr)
			}
			if tc.as != nil {
				require.ErrorAs(t, serverErr, tc.as)
			}
			for _, part := range tc.says {
				require.ErrorContains(t, serverErr, part)
			}
			// The same certificate authority still lets the right ones in.
			_, serverErr, clientErr = shake(t, server, raw(&good, nil))
			require.NoError(t, serverErr)
			require.NoError(t, clientErr)
		})
	}

	t.Run("nobody allowed", func(t *testing.T) {
		_, serverErr, _ := shake(t, node.Server(nil), raw(&good, nil))
		require.ErrorAs(t, serverErr, &roleErr)
		require.ErrorContains(t, serverErr, "allowed here: none")
	})
}

// The dialling side of them: a node must not be taken for another.
func TestClientRefuses(t *testing.T) {
	ca, otherCA := tlstest.NewCA(t, "prod"), tlstest.NewCA(t, "prod")
	proxy := ca.Source(t, tlsconf.RoleProxy, "p1")
	dial := proxy.Client(tlsconf.ALPNRaft, tlsconf.RoleStorage, "n1")
	uri := func(s string) []*url.URL {
		u, err := url.Parse(s)
		require.NoError(t, err)
		return []*url.URL{u}
	}
	// A server that takes anyone, so that it is the client that refuses.
	raw := func(files tlsconf.Files, change func(*tls.Config)) *tls.Config {
		c := &tls.Config{Certificates: []tls.Certificate{tlstest.KeyPair(t, files)}, NextProtos: []string{tlsconf.ALPNRaft}}
		if change != nil {
			change(c)
		}
		return c
	}
	good := ca.Files(t, tlsconf.RoleStorage, "n1")
	var (
		roleErr    *tlsconf.RoleError
		nameErr    *tlsconf.NameError
		chainErr   *tlsconf.ChainError
		clusterErr *tlsconf.ClusterError
		alpnErr    *tlsconf.ALPNError
	)
	for _, tc := range []struct {
		name   string
		server *tls.Config
		as     any
		says   []string
	}{
		{"wrong CA", raw(otherCA.Files(t, tlsconf.RoleStorage, "n1"), nil), &chainErr, []string{"CN=n1", "unknown authority"}},
		{"expired", raw(ca.Sign(t, &x509.Certificate{
			URIs:      uri("spiffe://prod/storage/n1"),
			NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
		}), nil), &chainErr, []string{"spiffe://prod/storage/n1", "expired"}},
		{"wrong role", raw(ca.Files(t, tlsconf.RoleProxy, "n1"), nil), &roleErr, []string{"role proxy", "allowed here: storage"}},
		{"a client's certificate serving", raw(ca.Files(t, tlsconf.RoleClient, "n1"), nil), &chainErr, []string{"incompatible key usage"}},
		{"name mismatch", raw(ca.Files(t, tlsconf.RoleStorage, "n2"), nil), &nameErr, []string{"spiffe://prod/storage/n2", `"n1"`}},
		{"wrong cluster", raw(ca.Sign(t, &x509.Certificate{URIs: uri("spiffe://test/storage/n1")}), nil), &clusterErr, []string{"spiffe://test/storage/n1"}},
		{"TLS 1.2", raw(good, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), nil, []string{"protocol version"}},
		{"no ALPN", raw(good, func(c *tls.Config) { c.NextProtos = nil }), &alpnErr, []string{"none", tlsconf.ALPNRaft}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, _, clientErr := shake(t, tc.server, dial)
			require.Error(t, clientErr)
			if tc.as != nil {
				require.ErrorAs(t, clientErr, tc.as)
			}
			for _, part := range tc.says {
				require.ErrorContains(t, clientErr, part)
			}
		})
	}
	_, _, clientErr := shake(t, raw(good, nil), dial)
	require.NoError(t, clientErr)
}

// A client that keeps tickets gets none to keep.
func TestSessionsAreNotResumed(t *testing.T) {
	ca := tlstest.NewCA(t, "prod")
	server := ca.Source(t, tlsconf.RoleStorage, "n1").Server([]string{"h2"}, tlsconf.RoleClient)
	client := ca.Source(t, tlsconf.RoleClient, "web").Client("h2", "", "")
	client.SessionTicketsDisabled = false
	client.ServerName = "localhost"
	client.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	for range 2 {
		cs, serverErr, clientErr := shake(t, server, client)
		require.NoError(t, serverErr)
		require.NoError(t, clientErr)
		require.False(t, cs.DidResume)
	}
	_, kept := client.ClientSessionCache.Get("localhost")
	require.False(t, kept)
}
