package agent_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/pkg/agent"
	"github.com/logd-io/logd/pkg/discovery/zk/zktest"
	"github.com/logd-io/logd/pkg/internal/testutil"
)

const serverset = "/discovery/test/logd"

func registers(c config.Node, server string) config.Node {
	c.Register = []config.Register{{Kind: "zookeeper", Servers: []string{server}, Path: serverset}}
	return c
}

// isMember waits until the serverset has exactly these addresses.
func isMember(t *testing.T, s *zktest.Server, addrs ...string) {
	t.Helper()
	testutil.Eventually(t, patience, func() error {
		found := map[string]bool{}
		for _, data := range s.Children(serverset) {
			found[data] = true
		}
		for _, addr := range addrs {
			host, port, err := net.SplitHostPort(addr)
			require.NoError(t, err)
			if !found[fmt.Sprintf(`{"serviceEndpoint":{"host":%q,"port":%s},"additionalEndpoints":{},"status":"ALIVE"}`, host, port)] {
				return fmt.Errorf("%s is not among %v", addr, found)
			}
		}
		if len(found) != len(addrs) {
			return fmt.Errorf("members are %v", found)
		}
		return nil
	})
}

func TestANodeIsRegisteredWhileItIsReady(t *testing.T) {
	s := zktest.New(t)
	elsewhere := newWorld(t)
	waiting := elsewhere.start(registers(elsewhere.config("n2", 2), s.Addr())) // for ever: nobody else comes
	w := newWorld(t)
	n := w.start(registers(w.config("n1", 1), s.Addr()))
	n.until("ready", ready)
	isMember(t, s, n.Addr())
	s.Cut()
	isMember(t, s, n.Addr())
	require.NotEmpty(t, waiting.NotReady(), "who is not ready is no member")
	n.drain()
	require.Empty(t, s.Children(serverset), "an orderly end leaves no member")
}

func TestANodeServesWithoutItsZooKeeper(t *testing.T) {
	w := newWorld(t)
	c := registers(w.config("n1", 1), "127.0.0.1:1")
	c.Register[0].User, c.Register[0].PasswordFile = "u", filepath.Join(w.dir, "missing")
	n := w.start(c)
	n.until("ready", ready)
	require.Equal(t, uint64(0), w.produce("x", n))
	n.drain()
}

func TestCheckOpensWhatRegisterNames(t *testing.T) {
	w := newWorld(t)
	c := registers(w.config("n1", 1), "127.0.0.1:1")
	require.NoError(t, agent.Check(c))
	r := &c.Register[0]
	r.User, r.PasswordFile, r.TLS = "u", filepath.Join(w.dir, "missing"), config.TLS{CAFile: c.TLS.KeyFile, CertFile: c.TLS.CertFile, KeyFile: c.TLS.KeyFile}
	err := agent.Check(c)
	require.ErrorContains(t, err, "register.zookeeper.password_file")
	require.ErrorContains(t, err, "register.zookeeper.tls")
	require.NoError(t, os.WriteFile(r.PasswordFile, []byte("p\n"), 0o600))
	r.TLS.CAFile = c.TLS.CAFile
	require.NoError(t, agent.Check(c))
}
