package telemetry_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/pkg/telemetry"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

// visitor asks a TLS admin port, always on the same connection when it can. It shows
// the certificate, whatever the server would like; nil: none.
func visitor(t *testing.T, cert *tls.Certificate) *http.Client {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true, // of the server; what it thinks of us is what is looked at
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if cert == nil {
				return new(tls.Certificate), nil
			}
			return cert, nil
		},
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

func visit(t *testing.T, c *http.Client, url string) (int, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	res, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	return res.StatusCode, string(body), nil
}

// From elsewhere an operator sees all, and everybody else, with whatever certificate,
// what they would see without one; who shows a bad one sees nothing.
func TestAdminTLSFromElsewhere(t *testing.T) {
	ca := tlstest.NewCA(t, "test")
	addr := exposed(t, net.JoinHostPort(outside(t), "0"), telemetry.AdminOptions{TLS: ca.Source(t, tlsconf.RoleStorage, "n1"), Profiling: true})
	slow, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer slow.Close()
	_, err = slow.Write([]byte{0x16, 0x03})
	require.NoError(t, err)

	spiffe := func(s string) []*url.URL {
		u, err := url.Parse(s)
		require.NoError(t, err)
		return []*url.URL{u}
	}
	root := spiffe("spiffe://test/admin/root")
	auth := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	pair := func(f tlsconf.Files) *tls.Certificate {
		c := tlstest.KeyPair(t, f)
		return &c
	}
	role := func(r tlsconf.Role) *tls.Certificate { return pair(ca.Files(t, r, "x")) }
	for name, tt := range map[string]struct {
		cert *tls.Certificate
		code int // of what not everybody sees; 0: not even a handshake
	}{
		"no certificate": {nil, 403},
		"client":         {role(tlsconf.RoleClient), 403},
		"proxy":          {role(tlsconf.RoleProxy), 403},
		"storage":        {role(tlsconf.RoleStorage), 403},
		"admin":          {role(tlsconf.RoleAdmin), 200},
		"admin of another cluster, by the same CA": {pair(ca.Sign(t, &x509.Certificate{URIs: spiffe("spiffe://other/admin/root"), ExtKeyUsage: auth})), 403},
		"two roles":  {pair(ca.Sign(t, &x509.Certificate{URIs: append(spiffe("spiffe://test/client/root"), root...), ExtKeyUsage: auth})), 403},
		"another CA": {pair(tlstest.NewCA(t, "test").Files(t, tlsconf.RoleAdmin, "root")), 0},
		"expired": {pair(ca.Sign(t, &x509.Certificate{
			URIs: root, ExtKeyUsage: auth, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
		})), 0},
		"not valid yet": {pair(ca.Sign(t, &x509.Certificate{
			URIs: root, ExtKeyUsage: auth, NotBefore: time.Now().Add(time.Hour), NotAfter: time.Now().Add(2 * time.Hour),
		})), 0},
		"not for clients": {pair(ca.Sign(t, &x509.Certificate{URIs: root, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})), 0},
	} {
		t.Run(name, func(t *testing.T) {
			c := visitor(t, tt.cert)
			for _, path := range []string{"/healthz", "/readyz", "/metrics", "/api/status", "/debug/pprof/", "/nothing"} {
				code, body, err := visit(t, c, "https://"+addr+path)
				switch {
				case tt.code == 0:
					require.Error(t, err, path)
				case path == "/healthz" || path == "/readyz" || path == "/metrics":
					require.NoError(t, err)
					require.Equal(t, 200, code, path)
				case tt.code == 200 && path == "/nothing":
					require.Equal(t, 404, code)
				default:
					require.NoError(t, err)
					require.Equal(t, tt.code, code, path)
				}
				if tt.code == 403 && code == 403 {
					require.Contains(t, body, "certificate of role admin")
				}
			}
		})
	}

	t.Run("plaintext", func(t *testing.T) {
		code, body, err := visit(t, visitor(t, nil), "http://"+addr+"/healthz")
		require.NoError(t, err)
		require.Equal(t, 400, code)
		require.Contains(t, body, "HTTPS")
	})
	t.Run("TLS 1.2", func(t *testing.T) {
		_, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
		require.Error(t, err)
	})
	t.Run("another site's page in an operator's browser", func(t *testing.T) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+addr+"/api/status", nil)
		require.NoError(t, err)
		req.Header.Set("Sec-Fetch-Site", "cross-site")
		res, err := visitor(t, role(tlsconf.RoleAdmin)).Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, 403, res.StatusCode)
	})
	t.Run("half of a handshake", func(t *testing.T) {
		require.NoError(t, slow.SetReadDeadline(time.Now().Add(20*time.Second)))
		_, err := io.ReadAll(slow)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "it is still open")
	})
}

// A CA that was changed counts for connections that there are already.
func TestAdminTLSRotation(t *testing.T) {
	was, is := tlstest.NewCA(t, "test"), tlstest.NewCA(t, "test")
	files := was.Files(t, tlsconf.RoleStorage, "n1")
	before, after := tlstest.KeyPair(t, was.Files(t, tlsconf.RoleAdmin, "root")), tlstest.KeyPair(t, is.Files(t, tlsconf.RoleAdmin, "root"))
	own, err := tlsconf.Load(files)
	require.NoError(t, err)
	addr := exposed(t, net.JoinHostPort(outside(t), "0"), telemetry.AdminOptions{TLS: own})
	status := "https://" + addr + "/api/status"
	old, young := visitor(t, &before), visitor(t, &after)
	var shown []byte
	seen := func(c *http.Client) {
		c.Transport.(*http.Transport).TLSClientConfig.VerifyConnection = func(cs tls.ConnectionState) error {
			shown = cs.PeerCertificates[0].Raw
			return nil
		}
	}
	seen(old)
	seen(young)
	code, _, err := visit(t, old, status)
	require.NoError(t, err)
	require.Equal(t, 200, code)
	first := shown
	_, _, err = visit(t, young, status)
	require.Error(t, err)

	next := is.Files(t, tlsconf.RoleStorage, "n1")
	for from, to := range map[string]string{next.CA: files.CA, next.Cert: files.Cert, next.Key: files.Key} {
		text, err := os.ReadFile(from)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(to, text, 0o600))
	}
	require.NoError(t, own.Reload())
	code, _, err = visit(t, old, status)
	require.NoError(t, err, "the connection is still there")
	require.Equal(t, 403, code)
	code, _, err = visit(t, young, status)
	require.NoError(t, err)
	require.Equal(t, 200, code)
	require.NotEqual(t, first, shown, "and the port's own certificate is the new one")
	old.CloseIdleConnections()
	_, _, err = visit(t, old, "https://"+addr+"/healthz")
	require.Error(t, err)
}

// What the commands do with it.
func TestAdminTLSCommands(t *testing.T) {
	ca := tlstest.NewCA(t, "test")
	own := ca.Source(t, tlsconf.RoleStorage, "n1")
	far := exposed(t, net.JoinHostPort(outside(t), "0"), telemetry.AdminOptions{TLS: own})
	near := exposed(t, "127.0.0.1:0", telemetry.AdminOptions{TLS: own})
	plain := exposed(t, "127.0.0.1:0", telemetry.AdminOptions{})
	farPlain := exposed(t, net.JoinHostPort(outside(t), "0"), telemetry.AdminOptions{})
	certs := func(f tlsconf.Files) cli.Certs { return cli.Certs{CACert: f.CA, Cert: f.Cert, Key: f.Key} }
	admin, client := certs(ca.Files(t, tlsconf.RoleAdmin, "root")), certs(ca.Files(t, tlsconf.RoleClient, "app"))
	other := certs(tlstest.NewCA(t, "test").Files(t, tlsconf.RoleAdmin, "root"))
	for name, tt := range map[string]struct {
		address string
		certs   cli.Certs
		says    string // empty: it works
	}{
		"operator, from elsewhere":       {far, admin, ""},
		"client, from elsewhere":         {far, client, "role admin is needed"},
		"client, on the machine":         {near, client, ""},
		"of another CA":                  {near, other, "certificate"},
		"without certificates":           {near, cli.Certs{}, "-ca-cert"},
		"certificates, and no TLS there": {plain, admin, ""},
		"no TLS, and not here":           {farPlain, admin, "HTTP response to HTTPS"},
		"half of the files":              {near, cli.Certs{CACert: admin.CACert}, "takes all of"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			var st any
			a, err := (&cli.AdminConnect{Certs: tt.certs, Address: tt.address}).Open()
			if err == nil {
				err = a.Status(ctx, &st)
			}
			if tt.says != "" {
				require.ErrorContains(t, err, tt.says)
				return
			}
			require.NoError(t, err)
			require.Equal(t, "secret", st)
			require.NoError(t, a.Ready(ctx))
		})
	}
}
