package e2e_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/harness"
)

// move gives a stopped node another address. Whoever has the old one in retry_join
// keeps it.
func (w *world) move(n *harness.Node, host string) {
	w.t.Helper()
	text, err := os.ReadFile(n.Config)
	require.NoError(w.t, err)
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "bind_addr") {
			lines[i] = fmt.Sprintf("bind_addr = %q", host)
		}
	}
	require.NoError(w.t, os.WriteFile(n.Config, []byte(strings.Join(lines, "\n")), 0o600))
	for _, addr := range []*string{&n.RPC, &n.Gossip, &n.Admin} {
		_, port, err := net.SplitHostPort(*addr)
		require.NoError(w.t, err)
		*addr = net.JoinHostPort(host, port)
	}
}

// known waits until every node, and who asks the proxy, is told where they are now.
func (w *world) known() {
	w.t.Helper()
	for _, n := range w.Nodes {
		w.until(n.Name+" knows where all are", func() error {
			resp, err := logv1.NewLogClient(w.dial("client", n)).GetServers(w.ctx, &logv1.GetServersRequest{})
			if err != nil {
				return err
			}
			at := map[string]string{}
			for _, s := range resp.GetServers() {
				name, _, _ := strings.Cut(s.GetId(), ".")
				at[name] = s.GetRpcAddr()
			}
			for _, other := range w.Nodes {
				if at[other.Name] != other.RPC {
					return fmt.Errorf("%s is at %s, and not %q", other.Name, other.RPC, at[other.Name])
				}
			}
			return nil
		})
	}
}

// A node that comes back elsewhere is found by all, the proxy among them; its id
// says who it is, and nothing else.
func TestLongANodeMoves(t *testing.T) {
	t.Parallel()
	long(t)
	w := start(t)
	uuid := w.formed(w.Nodes...)
	tr := w.load()
	tr.more(100)
	for i, n := range []*harness.Node{w.follower(), w.leader()} {
		id := w.stats(n).GetNodeId()
		w.kill(n)
		w.move(n, w.Host(51+i))
		w.boot(n)
		require.Equal(t, uuid, w.formed(w.Nodes...))
		require.Equal(t, id, w.stats(n).GetNodeId())
		w.known()
		tr.more(100)
	}
	tr.finish()
	w.servesAlone()
}

// servesAlone has the proxy use every node: with one of them down the others do.
func (w *world) servesAlone() {
	w.t.Helper()
	for _, n := range w.Nodes {
		w.kill(n)
		_, err := produce(w.ctx, w.naive(), "without "+n.Name)
		require.NoError(w.t, err)
		w.boot(n)
		require.NoError(w.t, w.NodeReady(w.ctx, n))
	}
}

// All come back elsewhere at once, with retry_join as it was: they remember nobody
// that is there, so an operator gives them a name to find each other by.
func TestLongAllNodesMove(t *testing.T) {
	t.Parallel()
	long(t)
	w := start(t)
	uuid := w.formed(w.Nodes...)
	_, err := produce(w.ctx, w.naive(), "before")
	require.NoError(t, err)
	for _, n := range w.Nodes {
		require.NoError(t, n.Stop(w.ctx))
	}
	for i, n := range w.Nodes {
		old := n.Gossip
		w.move(n, w.Host(51+i))
		for _, other := range w.Nodes {
			rewrite(t, other.Config, fmt.Sprintf("%q", old), fmt.Sprintf("%q", n.Gossip))
		}
		rewrite(t, w.proxy.Config, fmt.Sprintf("%q", old), fmt.Sprintf("%q", n.Gossip))
	}
	w.boot(w.Nodes...)
	require.Equal(t, uuid, w.formed(w.Nodes...))
	w.known()
	// The proxy was told the old addresses. A node finds it, from what gossip
	// remembers.
	require.NoError(t, w.ProxyReady(w.ctx, w.proxy))
	off, err := produce(w.ctx, w.naive(), "after")
	require.NoError(t, err)
	require.Equal(t, uint64(1), off)
	require.NoError(t, w.proxy.Kill())
	require.NoError(t, w.proxy.Start())
	require.NoError(t, w.ProxyReady(w.ctx, w.proxy))
	w.servesAlone()
}

// Two nodes come back each at the other's old address. Who answers there is told by
// its certificate, so nobody takes the one for the other.
func TestLongTwoNodesSwapAddresses(t *testing.T) {
	t.Parallel()
	long(t)
	w := start(t)
	uuid := w.formed(w.Nodes...)
	a, b := w.leader(), w.follower()
	ids := []string{w.stats(a).GetNodeId(), w.stats(b).GetNodeId()}
	tr := w.load()
	tr.more(50)
	hostA, _, _ := net.SplitHostPort(a.RPC)
	hostB, _, _ := net.SplitHostPort(b.RPC)
	w.kill(a, b)
	w.move(a, hostB)
	w.move(b, hostA)
	w.boot(a, b)
	require.Equal(t, uuid, w.formed(w.Nodes...))
	require.Equal(t, ids, []string{w.stats(a).GetNodeId(), w.stats(b).GetNodeId()})
	w.known()
	tr.more(100)
	tr.finish()
	w.servesAlone()
}
