package e2e_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
	"github.com/logd-io/logd/test/harness"
)

// Whoever has no business at a node is refused with a clear error, and nobody else
// notices. Each case tries a node's RPC port while the cluster is under load.
func TestStrangersAreRefused(t *testing.T) {
	w := prepare(t, nil, func(o *harness.Options) { o.NodeConfig = "limits {\n  handshake_timeout = \"1s\"\n}\n" })
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))
	tr := w.load()
	tr.more(100)
	n := w.follower()
	good := w.Cert("client")
	ca := &tlstest.CA{Cluster: "harness", CertFile: good.CA, KeyFile: filepath.Join(filepath.Dir(good.CA), "ca-key.pem")}
	expired := ca.Sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "late"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
	})
	stranger := tlstest.NewCA(t, "harness").Files(t, tlsconf.RoleAdmin, "admin")
	conf := func(edit func(*tls.Config)) credentials.TransportCredentials {
		c, err := w.TLS("client", n, tlsconf.ALPNgRPC)
		require.NoError(t, err)
		edit(c)
		return credentials.NewTLS(c)
	}
	with := func(f tlsconf.Files) func(*tls.Config) {
		pair := tlstest.KeyPair(t, f)
		return func(c *tls.Config) {
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		}
	}
	for name, creds := range map[string]credentials.TransportCredentials{
		"of another CA":  conf(with(stranger)),
		"expired":        conf(with(expired)),
		"no certificate": conf(func(c *tls.Config) { c.GetClientCertificate = nil }),
		"TLS 1.2":        conf(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }),
		"plaintext":      insecure.NewCredentials(),
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := grpc.NewClient("passthrough:///"+n.RPC, grpc.WithTransportCredentials(creds))
			require.NoError(t, err)
			defer conn.Close()
			_, err = produce(w.ctx, conn, "x")
			// What the alert says may be lost: with TLS 1.3 the client writes before it comes.
			require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
		})
	}
	t.Run("nothing is said", func(t *testing.T) {
		conn, err := net.Dial("tcp", n.RPC)
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
		_, err = conn.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF, "it is closed")
	})
	t.Run("by role", func(t *testing.T) { refusedByRole(w, n) })
	t.Run("another gossip key", func(t *testing.T) { refusedByGossip(w) })
	tr.finish()
}

// refusedByRole has good certificates that are for something else.
func refusedByRole(w *world, n *harness.Node) {
	t := w.t
	denied := func(err error, says string) {
		t.Helper()
		require.Equal(t, codes.PermissionDenied, status.Code(err), "%v", err)
		require.Contains(t, err.Error(), says)
	}
	appended := func(ctx context.Context, c nodev1.NodeClient) error {
		s, err := c.Append(ctx)
		require.NoError(t, err)
		_, err = s.Recv()
		return err
	}
	client := nodev1.NewNodeClient(w.dial("client", n))
	denied(appended(w.ctx, client), "role client")
	as := metadata.AppendToOutgoingContext(w.ctx, "logd-original-principal", "root")
	_, err := produce(as, w.dial("client", w.leader()), "x")
	denied(err, "only a proxy speaks for others")
	_, err = produce(as, w.dial("admin", w.leader()), "x")
	denied(err, "only a proxy speaks for others")
	_, err = client.RemovePeer(w.ctx, &nodev1.RemovePeerRequest{Id: "node1.00000001"})
	denied(err, "role client")

	proxy := nodev1.NewNodeClient(w.dial(w.proxy.Name, n))
	denied(appended(w.ctx, proxy), "has to say for whom")
	_, err = proxy.Join(w.ctx, &nodev1.JoinRequest{Id: w.proxy.Name + ".00000001"})
	denied(err, "role proxy")
	_, err = proxy.RemovePeer(as, &nodev1.RemovePeerRequest{Id: "node1.00000001"})
	denied(err, "role proxy")

	// A join that is repeated changes nothing, and nobody joins as another.
	leader := w.leader()
	id := w.stats(n).GetNodeId()
	node := nodev1.NewNodeClient(w.dial(n.Name, leader))
	before := w.stats(leader).GetPeers()
	_, err = node.Join(w.ctx, &nodev1.JoinRequest{Id: id})
	require.NoError(t, err)
	for _, other := range []string{"node9.00000001", n.Name + ".00000001", w.stats(leader).GetNodeId()} {
		_, err = node.Join(w.ctx, &nodev1.JoinRequest{Id: other})
		require.Equal(t, codes.InvalidArgument, status.Code(err), "%s: %v", other, err)
	}
	require.Len(t, w.stats(leader).GetPeers(), len(before))
}

// refusedByGossip starts a node with another gossip key: it finds nobody and says so,
// and nobody finds it.
func refusedByGossip(w *world) {
	t := w.t
	n, err := w.AddNode(0)
	require.NoError(t, err)
	conf, err := os.ReadFile(n.Config)
	require.NoError(t, err)
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	var lines []string
	for _, line := range strings.Split(string(conf), "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "gossip_key") {
			line = `gossip_key = "` + base64.StdEncoding.EncodeToString(key) + `"`
		}
		lines = append(lines, line)
	}
	require.NoError(t, os.WriteFile(n.Config, []byte(strings.Join(lines, "\n")), 0o600))
	require.NoError(t, n.Process.Start())
	w.until("the node says why", func() error {
		out, err := os.ReadFile(n.Log)
		if err == nil && !strings.Contains(string(out), "is gossip_key the same there?") {
			err = errors.New("no word of the key")
		}
		return err
	})
	ready, err := harness.Get(w.ctx, "http://"+n.Admin+"/readyz")
	require.Error(t, err, ready)
	for _, p := range w.stats(w.leader()).GetPeers() {
		require.NotContains(t, p.GetId(), n.Name+".")
	}
	status, err := harness.Get(w.ctx, "http://"+w.leader().Admin+"/api/status")
	require.NoError(t, err)
	require.NotContains(t, status, n.Name+".", "gossip does not know it")
	require.NoError(t, n.Kill())
	w.Nodes = w.Nodes[:len(w.Nodes)-1]
}
