//go:build system

package e2e_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/harness"
)

// names is the hosts file of all the test's hosts.
type names struct {
	t    *testing.T
	file string
	at   map[string]string
}

// newNames puts a hosts file of the test's own in the place of the machine's, where
// this process and those it starts see it.
func newNames(t *testing.T) *names {
	t.Helper()
	n := &names{t: t, file: filepath.Join(t.TempDir(), "hosts"), at: map[string]string{}}
	n.write()
	require.NoError(t, syscall.Mount(n.file, "/etc/hosts", "", syscall.MS_BIND, ""))
	return n
}

// set gives a name an address; none takes it from it.
func (n *names) set(name, addr string) {
	n.at[name] = addr
	n.write()
}

// write keeps the file's inode, which is what is mounted.
func (n *names) write() {
	n.t.Helper()
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n")
	for name, addr := range n.at {
		if addr != "" {
			fmt.Fprintf(&b, "%s %s\n", addr, name)
		}
	}
	require.NoError(n.t, os.WriteFile(n.file, []byte(b.String()), 0o600))
}

// named are hosts that know each other by name.
func named(t *testing.T) (*world, *hosts, *names) {
	t.Helper()
	h := newHosts(t)
	dns := newNames(t)
	w := prepare(t, h)
	proxyHost := hostOf(t, w.proxy.Admin)
	dns.set("proxy1.test", proxyHost)
	edit(t, w.proxy.Config, func(text string) string {
		text = strings.Replace(text, "gossip {", "gossip {\n  advertise_address = \"proxy1.test\"", 1)
		for i := range w.Nodes {
			text = strings.ReplaceAll(text, fmt.Sprintf("%q", h.Address(i+1)+":8401"), fmt.Sprintf("\"node%d.test:8401\"", i+1))
		}
		return text
	})
	for i, n := range w.Nodes {
		dns.set(n.Name+".test", h.Address(i+1))
		edit(t, n.Config, func(text string) string {
			for i := range w.Nodes {
				text = strings.ReplaceAll(text, fmt.Sprintf("%q", h.Address(i+1)+":8401"), fmt.Sprintf("\"node%d.test:8401\"", i+1))
			}
			bind := fmt.Sprintf("bind_addr        = %q", h.Address(i+1))
			require.Contains(t, text, bind)
			return strings.Replace(text, bind, fmt.Sprintf("bind_addr = \"0.0.0.0\"\nadvertise_addr = %q", n.Name+".test"), 1)
		})
	}
	return w, h, dns
}

// readdress gives a stopped node another address under its name.
func (w *world) readdress(h *hosts, dns *names, n *harness.Node, i int) {
	w.t.Helper()
	ns := fmt.Sprintf("h%d", w.number(n))
	h.ip(fmt.Sprintf("-n %s addr del %s/24 dev eth0", ns, hostOf(w.t, n.RPC)))
	h.ip(fmt.Sprintf("-n %s addr add %s/24 dev eth0", ns, h.Address(i)))
	for _, addr := range []*string{&n.RPC, &n.Gossip, &n.Admin} {
		_, port, err := net.SplitHostPort(*addr)
		require.NoError(w.t, err)
		*addr = net.JoinHostPort(h.Address(i), port)
	}
	dns.set(n.Name+".test", h.Address(i))
}

// Nodes are known by name, and what the names mean changes: of a follower and of the
// leader under load, and then of all of them at once. Nobody's configuration does.
func TestSystemNamesMove(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	w, h, dns := named(t)
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))
	uuid := w.formed(w.Nodes...)
	for _, s := range w.servers(w.Nodes[0]) {
		require.Contains(t, s.GetRpcAddr(), ".test:8400", "it is known by name")
	}
	tr := w.load()
	tr.more(200)
	for i, n := range []*harness.Node{w.follower(), w.leader()} {
		id := w.stats(n).GetNodeId()
		w.kill(n)
		w.readdress(h, dns, n, 51+i)
		w.boot(n)
		require.Equal(t, uuid, w.formed(w.Nodes...))
		require.Equal(t, id, w.stats(n).GetNodeId())
		w.failures(n, 0)
		tr.more(200)
	}
	tr.finish()

	next := w.logEnd("client")
	w.kill(w.Nodes...)
	for i, n := range w.Nodes {
		w.readdress(h, dns, n, 61+i)
	}
	w.boot(w.Nodes...)
	require.Equal(t, uuid, w.formed(w.Nodes...))
	require.NoError(t, w.ProxyReady(w.ctx, w.proxy))
	off, err := produce(w.ctx, w.naive(), "after")
	require.NoError(t, err)
	require.Equal(t, next, off, "nothing is lost")
	for _, n := range w.Nodes {
		w.failures(n, 0)
	}
	w.servesAlone()
	// Started anew the proxy knows nothing but the names.
	require.NoError(t, w.proxy.Kill())
	require.NoError(t, w.proxy.Start())
	require.NoError(t, w.ProxyReady(w.ctx, w.proxy))
	_, err = produce(w.ctx, w.naive(), "anew")
	require.NoError(t, err)
}

// servers is what a client is told.
func (w *world) servers(n *harness.Node) []*logv1.Server {
	w.t.Helper()
	resp, err := logv1.NewLogClient(w.dial("client", n)).GetServers(w.ctx, &logv1.GetServersRequest{})
	require.NoError(w.t, err)
	return resp.GetServers()
}

// A node and a proxy are started before their names have an address. They say so, and
// wait.
func TestSystemNamesComeLate(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	w, h, dns := named(t)
	late := w.Nodes[2]
	dns.set(late.Name+".test", "")
	dns.set("proxy1.test", "")
	require.NoError(t, w.Start())
	for _, p := range []*harness.Process{late.Process, w.proxy.Process} {
		w.until(p.Name+" says why it waits", func() error {
			text := fileText(t, p.Log)
			if !strings.Contains(text, "a name has no address") || !strings.Contains(text, p.Name+".test") {
				return fmt.Errorf("it says %s", text)
			}
			return nil
		})
		require.True(t, p.Running())
	}
	for _, n := range w.Nodes[:2] {
		require.Empty(t, w.stats(n).GetClusterId(), "three are expected")
	}
	dns.set(late.Name+".test", h.Address(3))
	dns.set("proxy1.test", hostOf(t, w.proxy.Admin))
	w.formed(w.Nodes...)
	require.NoError(t, w.ProxyReady(w.ctx, w.proxy))
	_, err := produce(w.ctx, w.naive(), "they came")
	require.NoError(t, err)

	// One that waits ends when it is told to.
	w.kill(late)
	dns.set(late.Name+".test", "")
	w.boot(late)
	w.until("it waits again", func() error {
		if text := fileText(t, late.Log); strings.Count(text, "a name has no address") < 2 {
			return fmt.Errorf("it says %s", text)
		}
		return nil
	})
	require.NoError(t, late.Stop(w.ctx))
}
