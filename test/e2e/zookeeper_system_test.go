//go:build system

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/discovery/zk"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/test/harness"
)

const zooPath = "/discovery/test/logd"

// zoo is a cluster that registers in a real ZooKeeper, and a proxy that knows the nodes
// from there alone.
type zoo struct {
	*world
	server *harness.ZooKeeper
	place  zk.Config // as the nodes write it
}

// prepareZoo starts nothing. With tls nodes and proxy use ZooKeeper's other port.
func prepareZoo(t *testing.T, tls bool) *zoo {
	t.Helper()
	z := &zoo{place: zk.Config{Path: zooPath, User: "logd", Password: "secret"}}
	w := prepare(t, nil)
	z.world = w
	opt := harness.ZooKeeperOptions{Dir: filepath.Dir(w.Nodes[0].DataDir), Host: w.Host(210)}
	folder := filepath.Dir(w.Cert("client").CA)
	if tls {
		w.issue(tlsconf.CAParams{CertFile: filepath.Join(folder, "ca.pem"), KeyFile: filepath.Join(folder, "ca-key.pem")}, tlsconf.RoleStorage, "zookeeper", opt.Host)
		f := w.Cert("zookeeper")
		opt.PEM, opt.CA = filepath.Join(opt.Dir, "zookeeper.pem"), f.CA
		key, err := os.ReadFile(f.Key)
		require.NoError(t, err)
		cert, err := os.ReadFile(f.Cert)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(opt.PEM, append(key, cert...), 0o600))
	}
	server, err := harness.NewZooKeeper(opt)
	if errors.Is(err, harness.ErrNoZooKeeper) && os.Getenv("LOGD_TEST_ZOOKEEPER") == "" {
		t.Skip(err)
	}
	require.NoError(t, err)
	z.server = server
	t.Cleanup(func() {
		if server.Running() {
			require.NoError(t, server.Kill())
		}
		if t.Failed() {
			t.Logf("the end of ZooKeeper's log:\n%s", server.Tail(20))
		}
	})
	z.place.Servers = []string{server.Addr}
	settings := func(name string) string {
		f := w.Cert(name)
		text := fmt.Sprintf("servers = [%q]\n  path = %q\n  session_timeout = \"2s\"\n", server.Addr, zooPath)
		if tls {
			text = strings.Replace(text, server.Addr, server.TLS, 1)
			text += fmt.Sprintf("  tls {\n    ca_file = %q\n    cert_file = %q\n    key_file = %q\n  }\n", f.CA, f.Cert, f.Key)
		}
		return text
	}
	for _, n := range w.Nodes {
		edit(t, n.Config, func(text string) string {
			return text + "\nregister \"zookeeper\" {\n  " + settings(n.Name) + "  user = \"logd\"\n  password = \"secret\"\n}\n"
		})
	}
	edit(t, w.proxy.Config, func(text string) string {
		return text + "\ndiscovery \"zookeeper\" {\n  " + settings(w.proxy.Name) + "}\n"
	})
	return z
}

// session is a connection of the test's own.
func (z *zoo) session(cfg zk.Config) *zk.Conn {
	z.t.Helper()
	var c *zk.Conn
	z.until("ZooKeeper answers", func() (err error) {
		c, err = zk.Dial(z.ctx, cfg)
		return err
	})
	return c
}

var memberName = regexp.MustCompile(`^member_\d{10}$`)

// members are the addresses that are registered, by name of the znode.
func (z *zoo) members() (map[string]string, error) {
	c, err := zk.Dial(z.ctx, z.place)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var names []string
	if _, err := c.Children(z.ctx, zooPath, func(name string) { names = append(names, name) }); err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, name := range names {
		if !memberName.MatchString(name) {
			return nil, fmt.Errorf("%q is no member's name", name)
		}
		data, err := c.Get(z.ctx, zooPath+"/"+name)
		if errors.Is(err, zk.ErrNoNode) {
			continue
		}
		if err != nil {
			return nil, err
		}
		m, err := zk.ParseMember(data)
		if err != nil {
			return nil, err
		}
		if found[name], err = m.Addr(); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// registered waits until exactly these nodes are, each once.
func (z *zoo) registered(nodes ...*harness.Node) {
	z.t.Helper()
	z.until(fmt.Sprintf("%d nodes are registered", len(nodes)), func() error {
		found, err := z.members()
		if err != nil {
			return err
		}
		at := map[string]int{}
		for _, addr := range found {
			at[addr]++
		}
		for _, n := range nodes {
			if at[n.RPC] != 1 || len(found) != len(nodes) {
				return fmt.Errorf("registered are %v", found)
			}
		}
		if len(found) != len(nodes) {
			return fmt.Errorf("registered are %v", found)
		}
		return nil
	})
}

// others are the nodes but n.
func (z *zoo) others(n *harness.Node) (others []*harness.Node) {
	for _, o := range z.Nodes {
		if o != n {
			others = append(others, o)
		}
	}
	return others
}

func (z *zoo) serves(what string) {
	z.t.Helper()
	_, err := produce(z.ctx, z.naive(), what)
	require.NoError(z.t, err, what)
}

// Nodes come and go in ZooKeeper as they do: killed, stopped, paused until their
// session has expired; and whatever becomes of ZooKeeper, the cluster and the proxy
// serve.
func TestSystemZooKeeper(t *testing.T) {
	z := prepareZoo(t, false)
	require.NoError(t, z.Start()) // all of them before there is a ZooKeeper
	for _, n := range z.Nodes {
		require.NoError(t, z.NodeReady(z.ctx, n), "a node does not need ZooKeeper")
	}
	require.NoError(t, z.server.Start())
	z.registered(z.Nodes...)
	require.NoError(t, z.ProxyReady(z.ctx, z.proxy))
	z.serves("in the beginning")
	for _, n := range z.Nodes {
		status, err := harness.Get(z.ctx, "http://"+n.Admin+"/api/status")
		require.NoError(t, err)
		require.Regexp(t, `"member": ?"`+zooPath+`/member_`, status)
		require.Equal(t, 1.0, z.metric(n, "logd_registered"))
	}

	// Who is not the nodes' user reads, and removes nothing.
	stranger := z.session(zk.Config{Servers: z.place.Servers, Path: zooPath})
	found, err := z.members()
	require.NoError(t, err)
	for name := range found {
		require.ErrorContains(t, stranger.Remove(z.ctx, zooPath+"/"+name), "NoAuth")
	}
	require.NoError(t, stranger.Close())

	victim := z.follower()
	z.kill(victim)
	z.registered(z.others(victim)...)
	z.boot(victim)
	z.registered(z.Nodes...)

	victim = z.leader()
	require.NoError(t, victim.Stop(z.ctx))
	found, err = z.members() // no timeout: it has taken leave
	require.NoError(t, err)
	require.NotContains(t, values(found), victim.RPC)
	z.serves("with one stopped")
	z.boot(victim)
	z.registered(z.Nodes...)

	victim = z.follower()
	require.NoError(t, victim.Signal(syscall.SIGSTOP))
	z.registered(z.others(victim)...)
	require.NoError(t, victim.Signal(syscall.SIGCONT))
	z.registered(z.Nodes...)

	// An operator removes a member of a node that is there.
	mine := z.session(z.place)
	for name := range found {
		require.NoError(t, mine.Remove(z.ctx, zooPath+"/"+name))
	}
	require.NoError(t, mine.Close())
	z.registered(z.Nodes...)

	// Killed, and it comes back with what it had on its disk.
	for range 2 {
		require.NoError(t, z.server.Kill())
		z.serves("without a ZooKeeper")
		victim = z.leader()
		z.kill(victim)
		z.serves("without a ZooKeeper and a leader")
		z.boot(victim)
		require.NoError(t, z.server.Start())
		z.registered(z.Nodes...)
		z.serves("with ZooKeeper again")
	}
	require.NoError(t, z.proxy.Kill())
	require.NoError(t, z.proxy.Start())
	require.NoError(t, z.ProxyReady(z.ctx, z.proxy))
	z.serves("in the end")
}

func values(m map[string]string) (all []string) {
	for _, v := range m {
		all = append(all, v)
	}
	return all
}

// Over mutual TLS, and nobody without a certificate.
func TestSystemZooKeeperTLS(t *testing.T) {
	z := prepareZoo(t, true)
	require.NoError(t, z.server.Start())
	require.NoError(t, z.Start())
	z.registered(z.Nodes...)
	require.NoError(t, z.ProxyReady(z.ctx, z.proxy))
	z.serves("over TLS")

	ctx, cancel := context.WithTimeout(z.ctx, patience)
	defer cancel()
	_, err := zk.Dial(ctx, zk.Config{Servers: []string{z.server.TLS}, Path: zooPath})
	require.Error(t, err)
	_, port, err := net.SplitHostPort(z.server.TLS)
	require.NoError(t, err)
	f := z.Cert("client")
	_, err = zk.Dial(ctx, zk.Config{
		Servers: []string{net.JoinHostPort("localhost", port)}, Path: zooPath,
		CAFile: f.CA, CertFile: f.Cert, KeyFile: f.Key,
	})
	require.Error(t, err, "its certificate is for another host")
}
