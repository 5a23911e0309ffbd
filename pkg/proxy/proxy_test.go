package proxy_test

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/logd-io/logd/config"
	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/balance"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/membership"
	"github.com/logd-io/logd/pkg/proxy"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

func TestMain(m *testing.M) { testutil.VerifyMain(m) }

func TestPlaintextIsRefusedWhereOthersCanReachIt(t *testing.T) {
	ca := tlstest.NewCA(t, cluster)
	n := startNode(t, ca)
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0"} {
		t.Run(addr, func(t *testing.T) {
			c := conf(t, ca, n)
			c.Listener.Address = addr
			_, err := proxy.Open(c, proxy.Deps{})
			var refused *proxy.PlaintextError
			require.ErrorAs(t, err, &refused)
			require.ErrorContains(t, err, "listener.address")
		})
	}
	for _, addr := range []string{"127.0.0.1:0", "127.0.0.9:0", "localhost:0", filepath.Join(t.TempDir(), "a.sock"), "unix://" + filepath.Join(t.TempDir(), "b.sock")} {
		t.Run(addr, func(t *testing.T) {
			c := conf(t, ca, n)
			c.Listener.Address = addr
			p, err := proxy.Open(c, proxy.Deps{})
			require.NoError(t, err)
			require.NoError(t, p.Close())
			require.NoError(t, p.Close())
		})
	}
}

func TestUnixSocket(t *testing.T) {
	ca := tlstest.NewCA(t, cluster)
	n := startNode(t, ca)
	path := filepath.Join(t.TempDir(), "logproxy.sock")
	// Left behind by a process that was killed.
	lis, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	lis.SetUnlinkOnClose(false)
	require.NoError(t, lis.Close())

	c := conf(t, ca, n)
	c.Listener.Address = "unix://" + path
	r := run(t, c)
	r.isReady(t)
	require.Equal(t, "unix://"+path, r.Addr())
	servers, err := logv1.NewLogClient(dial(t, r.Addr(), nil)).GetServers(testutil.Context(t, bound), &logv1.GetServersRequest{})
	require.NoError(t, err)
	require.Len(t, servers.Servers, 1)
	require.True(t, servers.Servers[0].IsLeader)
	require.Equal(t, r.ID(), servers.Servers[0].Id)
	require.Equal(t, r.Addr(), servers.Servers[0].RpcAddr)

	_, err = proxy.Open(c, proxy.Deps{})
	require.ErrorContains(t, err, "another process listens there")
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("not ours"), 0o600))
	c.Listener.Address = file
	_, err = proxy.Open(c, proxy.Deps{})
	require.ErrorContains(t, err, file)
	require.FileExists(t, file)
}

func TestCertificatesThatDoNotFit(t *testing.T) {
	ca := tlstest.NewCA(t, cluster)
	n := startNode(t, ca)
	files := func(f tlsconf.Files) config.TLS {
		return config.TLS{CAFile: f.CA, CertFile: f.Cert, KeyFile: f.Key}
	}
	for _, c := range []struct {
		name  string
		spoil func(*config.Proxy)
		says  string
	}{
		{"a client's", func(c *config.Proxy) { c.Upstream.TLS = files(ca.Files(t, tlsconf.RoleClient, "app")) }, "role client"},
		{"a node's", func(c *config.Proxy) { c.Upstream.TLS = files(ca.Files(t, tlsconf.RoleStorage, "n2")) }, "role storage"},
		{"another name", func(c *config.Proxy) { c.Name = "other" }, `name: "other"`},
		{"another cluster", func(c *config.Proxy) { c.Cluster = "other" }, `cluster: "other"`},
		{"no file", func(c *config.Proxy) { c.Upstream.TLS.KeyFile = "/nowhere/key.pem" }, "/nowhere/key.pem"},
		{"no file for clients", func(c *config.Proxy) {
			c.Listener.TLS = files(ca.Files(t, tlsconf.RoleProxy, "px"))
			c.Listener.TLS.CAFile = "/nowhere/ca.pem"
		}, "listener.tls"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := conf(t, ca, n)
			c.spoil(&cfg)
			_, err := proxy.Open(cfg, proxy.Deps{})
			require.ErrorContains(t, err, c.says)
		})
	}
}

func TestPortsInUse(t *testing.T) {
	ca := tlstest.NewCA(t, cluster)
	n := startNode(t, ca)
	for _, c := range []struct {
		says string
		set  func(*config.Proxy)
	}{
		{"listener.address", func(c *config.Proxy) { c.Listener.Address = n.addr }},
		{"admin.address", func(c *config.Proxy) { c.Admin.Address = n.addr }},
	} {
		cfg := conf(t, ca, n)
		c.set(&cfg)
		_, err := proxy.Open(cfg, proxy.Deps{})
		require.ErrorContains(t, err, c.says)
		require.ErrorContains(t, err, n.addr)
	}
}

func TestReadyHealthAndStatus(t *testing.T) {
	ca := tlstest.NewCA(t, cluster)
	n := startNode(t, ca)
	c := conf(t, ca, n)
	c.DataDir = filepath.Join(t.TempDir(), "data")

	p, err := proxy.Open(c, proxy.Deps{})
	require.NoError(t, err)
	require.False(t, p.Status().Ready)
	require.Equal(t, []string{"no node has been found"}, p.Status().Reasons)
	require.NoError(t, p.Close())
	was := p.Addr()

	r := run(t, c)
	require.Equal(t, was, r.Addr(), "port 0 is the port it was before")
	r.isReady(t)
	var addrs proxy.Addrs
	body, err := os.ReadFile(filepath.Join(c.DataDir, "addrs.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(body, &addrs))
	require.Equal(t, proxy.Addrs{Listener: r.Addr(), Admin: r.AdminAddr()}, addrs)

	cc := dial(t, r.Addr(), nil)
	for _, service := range []string{"", "log.v1.Log"} {
		testutil.Eventually(t, bound, func() error {
			h, err := healthv1.NewHealthClient(cc).Check(testutil.Context(t, bound), &healthv1.HealthCheckRequest{Service: service})
			if err == nil && h.Status != healthv1.HealthCheckResponse_SERVING {
				return status.Error(codes.Unavailable, h.Status.String())
			}
			return err
		})
	}

	var text string
	var st proxy.Status
	testutil.Eventually(t, bound, func() error { // where the log ends is heard in its own time
		var code int
		code, text = get(t, r.AdminAddr(), "/api/status")
		require.Equal(t, http.StatusOK, code)
		st = proxy.Status{}
		require.NoError(t, json.Unmarshal([]byte(text), &st))
		if len(st.Nodes) != 1 || st.Nodes[0].Visible == nil {
			return errors.New(text)
		}
		return nil
	})
	require.Equal(t, r.ID(), st.ID)
	require.True(t, st.Ready)
	require.Equal(t, uuid, st.ClusterID)
	require.Equal(t, n.id, st.LeaderID)
	require.True(t, st.Nodes[0].Leader)
	require.Equal(t, n.addr, st.Nodes[0].Address)
	require.Equal(t, uint64(0), *st.Nodes[0].Lag)
	require.Contains(t, text, `"p50_seconds": null`, "no call has had a part in it")

	_, text = get(t, r.AdminAddr(), "/metrics")
	require.Contains(t, text, `logproxy_upstream_is_leader{upstream="n1.0000000a"} 1`)
	require.Contains(t, text, `logproxy_requests_total{code="OK",method="Check",upstream="none"}`)
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)
}

// What is not known is null or missing, and no zero that could be true.
func TestStatusOfANodeThatIsDown(t *testing.T) {
	ca := tlstest.NewCA(t, cluster)
	n := startNode(t, ca)
	n.absent = []*nodev1.Peer{{Id: "n2.0000000b", RpcAddr: "127.0.0.1:1", Voter: true}}
	n.leads("")
	r := run(t, conf(t, ca, n))
	var st map[string]any
	var nodes []any
	testutil.Eventually(t, bound, func() error {
		_, text := get(t, r.AdminAddr(), "/api/status")
		st = nil
		require.NoError(t, json.Unmarshal([]byte(text), &st))
		if nodes = st["nodes"].([]any); len(nodes) != 2 || nodes[0].(map[string]any)["next_offset"] == nil {
			return errors.New(text)
		}
		return nil
	})
	require.NotContains(t, st, "leader_id")
	up, down := nodes[0].(map[string]any), nodes[1].(map[string]any)
	require.Equal(t, 1., up["next_offset"])
	require.Equal(t, 0., up["lag_records"])
	for _, key := range []string{"next_offset", "lag_records", "p50_seconds", "p99_seconds"} {
		require.Contains(t, down, key)
		require.Nil(t, down[key], key)
	}
}

// What a configuration may name is what there is.
func TestEveryPolicyCanBeConfigured(t *testing.T) {
	require.Equal(t, balance.Names(), config.Policies())
	ca := tlstest.NewCA(t, cluster)
	n := startNode(t, ca)
	for _, name := range config.Policies() {
		c := conf(t, ca, n)
		c.Consume.Balance = name
		p, err := proxy.Open(c, proxy.Deps{})
		require.NoError(t, err)
		require.NoError(t, p.Close())
	}
	c := conf(t, ca, n)
	c.Consume.Balance = "random"
	_, err := proxy.Open(c, proxy.Deps{})
	require.ErrorContains(t, err, "consume.balance")
}

func TestReflection(t *testing.T) {
	ca := tlstest.NewCA(t, cluster)
	r := run(t, conf(t, ca, startNode(t, ca)))
	cc := dial(t, r.Addr(), nil)
	ctx := testutil.Context(t, bound)

	v1, err := reflv1.NewServerReflectionClient(cc).ServerReflectionInfo(ctx)
	require.NoError(t, err)
	require.NoError(t, v1.Send(&reflv1.ServerReflectionRequest{
		MessageRequest: &reflv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "log.v1.Log.Produce"},
	}))
	a, err := v1.Recv()
	require.NoError(t, err)
	require.NotEmpty(t, a.GetFileDescriptorResponse().GetFileDescriptorProto())

	alpha, err := reflv1alpha.NewServerReflectionClient(cc).ServerReflectionInfo(ctx)
	require.NoError(t, err)
	require.NoError(t, alpha.Send(&reflv1alpha.ServerReflectionRequest{
		MessageRequest: &reflv1alpha.ServerReflectionRequest_ListServices{},
	}))
	b, err := alpha.Recv()
	require.NoError(t, err)
	var names []string
	for _, s := range b.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	require.Contains(t, names, "log.v1.Log")
	require.NotContains(t, names, "node.v1.Node")
}

func TestListenerWithTLS(t *testing.T) {
	ca := tlstest.NewCA(t, cluster)
	n := startNode(t, ca)
	c := conf(t, ca, n)
	f := ca.Files(t, tlsconf.RoleProxy, "px")
	c.Listener.Address = "0.0.0.0:0" // allowed now
	c.Listener.TLS = config.TLS{CAFile: f.CA, CertFile: f.Cert, KeyFile: f.Key}
	r := run(t, c)
	r.isReady(t)
	host, port, err := net.SplitHostPort(r.Addr())
	require.NoError(t, err)
	require.NotEqual(t, "0.0.0.0", host, "an address that a client can use")
	addr := net.JoinHostPort("127.0.0.1", port)
	as := func(role tlsconf.Role, name string, of *tlstest.CA) credentials.TransportCredentials {
		return credentials.NewTLS(of.Source(t, role, name).Client(tlsconf.ALPNgRPC, tlsconf.RoleProxy, "px"))
	}
	echo := func(creds credentials.TransportCredentials) error {
		var out wrapperspb.StringValue
		return dial(t, addr, creds).Invoke(testutil.Context(t, bound), "/test.Other/Echo", text("hello"), &out)
	}

	// Listening on every address, the proxy is to each client at the one it came to.
	for _, host := range []string{"127.0.0.1", "127.0.0.7"} {
		came := net.JoinHostPort(host, port)
		servers, err := logv1.NewLogClient(dial(t, came, as(tlsconf.RoleClient, "app", ca))).GetServers(testutil.Context(t, bound), &logv1.GetServersRequest{})
		require.NoError(t, err)
		require.Len(t, servers.Servers, 1)
		require.Equal(t, came, servers.Servers[0].RpcAddr)
	}

	for role, name := range map[tlsconf.Role]string{tlsconf.RoleClient: "app", tlsconf.RoleAdmin: "root"} {
		require.NoError(t, echo(as(role, name, ca)))
		require.Equal(t, []string{name}, n.came(t).md["logd-original-principal"])
	}
	for what, creds := range map[string]credentials.TransportCredentials{
		"a node":                      as(tlsconf.RoleStorage, "n1", ca),
		"another proxy":               as(tlsconf.RoleProxy, "p2", ca),
		"a client of another CA":      credentials.NewTLS(foreign(t)),
		"nobody: plaintext":           nil,
		"nobody: TLS, no certificate": credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}),
	} {
		require.Equal(t, codes.Unavailable, status.Code(echo(creds)), what)
	}
	require.Empty(t, n.calls)
}

// foreign is a client's configuration with a certificate of a CA that the proxy
// does not know, and no check of the proxy's.
func foreign(t *testing.T) *tls.Config {
	f := tlstest.NewCA(t, cluster).Files(t, tlsconf.RoleClient, "app")
	return &tls.Config{
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS13,
		Certificates: []tls.Certificate{tlstest.KeyPair(t, f)},
	}
}

func TestNodesAreFoundByGossipAndToldOfTheEnd(t *testing.T) {
	ca := tlstest.NewCA(t, cluster)
	n := startNode(t, ca)
	g, err := membership.Open(membership.Config{
		ID: n.id, Role: membership.RoleStorage, BindAddr: "127.0.0.1:0", Label: cluster,
		Key: make([]byte, 32), Tags: membership.Tags{RPCAddr: n.addr},
	})
	require.NoError(t, err)
	ctx := testutil.Context(t, 2*bound)
	ran := make(chan error, 1)
	go func() { ran <- g.Run(ctx) }()
	t.Cleanup(func() {
		require.NoError(t, g.Close())
		require.NoError(t, <-ran)
	})

	c := conf(t, ca, n)
	c.Discovery = nil
	c.Gossip.Key = gossipKey
	c.Gossip.RetryJoin = []string{g.Addr()}
	r := run(t, c)
	r.isReady(t)
	state := func(want membership.State) func() error {
		return func() error {
			for _, m := range g.Members() {
				if m.ID == r.ID() && m.Role == membership.RoleProxy && m.State == want {
					return nil
				}
			}
			return status.Errorf(codes.Unavailable, "%+v", g.Members())
		}
	}
	testutil.EventuallyOn(t, bound, g.Changes, state(membership.Alive))
	r.stop()
	require.NoError(t, <-r.done)
	testutil.EventuallyOn(t, bound, g.Changes, state(membership.Left))
}
