package proxy_test

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/pkg/discovery/zk"
	"github.com/logd-io/logd/pkg/discovery/zk/zktest"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/proxy"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

// A proxy is ready once somebody has registered a node, and goes on when ZooKeeper has
// gone; its failures are counted.
func TestANodeThatIsRegisteredInZooKeeper(t *testing.T) {
	ca := tlstest.NewCA(t, "test")
	n := startNode(t, ca)
	s := zktest.New(t)
	c := conf(t, ca, n)
	c.Discovery = []config.Discovery{{Kind: "zookeeper", Servers: []string{s.Addr()}, Path: "/discovery/test/logd"}}
	reg := prometheus.NewRegistry()
	p := runWith(t, c, proxy.Deps{Version: "v0", Registry: reg})
	m, err := zk.NewMember(n.addr)
	require.NoError(t, err)
	data, err := m.Data()
	require.NoError(t, err)
	s.Set("/discovery/test/logd/member_0000000000", string(data))
	p.isReady(t)
	s.Cut()
	testutil.Eventually(t, bound, func() error {
		families, err := reg.Gather()
		require.NoError(t, err)
		for _, f := range families {
			if f.GetName() == "logproxy_discovery_failures_total" && f.GetMetric()[0].GetCounter().GetValue() > 0 {
				return nil
			}
		}
		return net.ErrClosed
	})
	p.isReady(t)
}

func TestCheckOpensWhatDiscoveryNames(t *testing.T) {
	ca := tlstest.NewCA(t, "test")
	c := conf(t, ca, startNode(t, ca))
	c.Discovery = []config.Discovery{{
		Kind: "zookeeper", Servers: []string{"127.0.0.1:1"}, Path: "/a", User: "u", PasswordFile: filepath.Join(t.TempDir(), "missing"),
		TLS: config.TLS{CAFile: c.Upstream.TLS.KeyFile, CertFile: c.Upstream.TLS.CertFile, KeyFile: c.Upstream.TLS.KeyFile},
	}}
	err := proxy.Check(c)
	require.ErrorContains(t, err, "discovery.zookeeper.password_file")
	require.ErrorContains(t, err, "discovery.zookeeper.tls")
}
