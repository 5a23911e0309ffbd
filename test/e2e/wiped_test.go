package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/harness"
)

// A node that promised, and lost all it had before the cluster began: it never
// begins. The others say so, and how to go on.
func TestWipedBeforeTheyBegan(t *testing.T) {
	w := without(t, 3)
	uuid := w.prime(w.Nodes[:2]...)
	w.wipe(w.Nodes[2])
	w.boot(w.Nodes...)
	w.tells(w.Nodes[0], uuid, "waiting for the promise of node3.", "logd bootstrap forget")
	w.tells(w.Nodes[1], uuid, "waiting for it to begin", "logd bootstrap forget")
	w.says(w.Nodes[2], "waiting for node1.")
	w.kill(w.Nodes...)
	for _, n := range w.Nodes[:2] {
		require.Contains(t, w.logd("bootstrap", "forget", "-yes", n.DataDir), "Forgot cluster "+uuid)
	}
	w.boot(w.Nodes...)
	require.NotEqual(t, uuid, w.formed(w.Nodes...))
}

// A node that lost all it had is a new one under its old name. It gets in when an
// operator has removed the old id, and says so until then.
func TestWipedAfterTheyBegan(t *testing.T) {
	w := start(t)
	uuid := w.formed(w.Nodes...)
	_, err := produce(w.ctx, w.naive(), "before")
	require.NoError(t, err)
	n := w.follower()
	old := w.stats(n).GetNodeId()
	w.kill(n)
	w.wipe(n)
	w.boot(n)
	w.says(n, "in no cluster yet", n.Name+" is in the configuration as "+old, "logd operator raft remove-peer "+old)
	w.until("members says so too", func() error { // the nodes are asked again and again
		if said := w.logd("members", "-admin", n.Admin); !strings.Contains(said, "remove-peer "+old) {
			return errors.New(said)
		}
		return nil
	})
	w.remove(old)
	require.Equal(t, uuid, w.formed(w.Nodes...))
	require.NotEqual(t, old, w.stats(n).GetNodeId())
	got, err := w.ReadNode(w.ctx, n, 1)
	require.NoError(t, err)
	require.Equal(t, "before", string(got[0].GetValue()))
}

// All but one lost all they had. They begin nothing beside the one that has not,
// whether it is up or down.
func TestTheMajorityIsWiped(t *testing.T) {
	t.Parallel()
	w := start(t)
	uuid := w.formed(w.Nodes...)
	survivor := w.follower()
	var lost []*harness.Node
	w.kill(w.Nodes...)
	for _, n := range w.Nodes {
		if n != survivor {
			lost = append(lost, n)
		}
	}
	w.wipe(lost...)
	w.boot(lost...)
	for _, n := range lost {
		w.says(n, "in no cluster yet")
		require.Empty(t, w.stats(n).GetClusterId())
	}
	w.boot(survivor)
	for _, n := range lost {
		w.says(n, "in no cluster yet", "join through "+survivor.Name)
		require.Empty(t, w.stats(n).GetClusterId())
		require.NoFileExists(t, filepath.Join(n.DataDir, "promise"))
	}
	st := w.stats(survivor)
	require.Equal(t, uuid, st.GetClusterId())
	require.NotEqual(t, "leader", st.GetState())

	// Only an operator goes on with one.
	w.kill(w.Nodes...)
	w.logd("recover", "-yes", survivor.DataDir)
	require.NoError(t, w.proxy.Kill())
	w.boot(w.Nodes...)
	require.NotEqual(t, uuid, w.formed(w.Nodes...))
}

// A node that began alone and has grown to three loses its disk. Started again, with the
// bootstrap_expect of the first day, it begins no second cluster beside the others: not
// while they are down, and not when they are there.
func TestTheFirstOneIsWiped(t *testing.T) {
	t.Parallel()
	w := prepare(t, nil, func(o *harness.Options) { o.Nodes = 1 })
	first := w.Nodes[0]
	w.boot(first)
	uuid := w.formed(first)
	var others []*harness.Node
	for range 2 {
		n, err := w.AddNode(0)
		require.NoError(t, err)
		w.boot(n)
		others = append(others, n)
	}
	require.Equal(t, uuid, w.formed(w.Nodes...))
	list := fmt.Sprintf("[%q", first.Gossip)
	replaceFile(t, first.Config, strings.Replace(fileText(t, first.Config), list,
		fmt.Sprintf("%s, %q, %q", list, others[0].Gossip, others[1].Gossip), 1))
	old := w.stats(first).GetNodeId()

	w.kill(w.Nodes...)
	w.wipe(first)
	w.boot(first)
	w.says(first, "in no cluster yet", "bootstrap_expect is 1", others[0].Gossip)
	require.Empty(t, w.stats(first).GetClusterId())
	w.boot(others...)
	w.says(first, "in no cluster yet", "is in the configuration as "+old)
	w.remove(old)
	require.Equal(t, uuid, w.formed(w.Nodes...))
}

// Every node has lost all it had, and they begin anew while a proxy remembers who they
// were. What its clients sent, and send, does not go to the new cluster, and what that
// has does not come out for the log they knew: they are told to wait, and operators
// why. A restart lets the proxy serve it, and that is told, too.
func TestAllAreWipedAndAProxyRemembers(t *testing.T) {
	w := without(t, 3)
	w.proxy = w.remembering()
	require.NoError(t, w.proxy.Start())
	w.boot(w.Nodes...)
	first := w.formed(w.Nodes...)
	require.NoError(t, w.ProxyReady(w.ctx, w.proxy))
	for i := range 3 {
		_, err := produce(w.ctx, w.naive(), fmt.Sprint("before ", i))
		require.NoError(t, err)
	}

	// It sleeps while they are replaced, and wakes to connections that are gone and to
	// nodes of the same names at the same addresses, one of which leads.
	require.NoError(t, w.proxy.Signal(syscall.SIGSTOP))
	w.kill(w.Nodes...)
	w.wipe(w.Nodes...)
	w.boot(w.Nodes...)
	second := w.formed(w.Nodes...)
	require.NotEqual(t, first, second)
	leader := w.leader()
	direct := w.dial("client", leader)
	_, err := produce(w.ctx, direct, "of the second")
	require.NoError(t, err)
	conn := w.naive()
	type sent struct {
		what string
		err  error
	}
	answers := make(chan sent, 2) // one each
	go func() {
		ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
		defer cancel()
		_, err := produce(ctx, conn, "for the first")
		answers <- sent{"produce", err}
	}()
	go func() {
		ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
		defer cancel()
		_, err := logv1.NewLogClient(conn).Consume(ctx, &logv1.ConsumeRequest{Offset: 0})
		answers <- sent{"consume", err}
	}()
	require.NoError(t, w.proxy.Signal(syscall.SIGCONT))
	for range 2 {
		a := <-answers
		require.Error(t, a.err, a.what)
	}
	w.until("the proxy says why", func() error {
		_, err := harness.Get(w.ctx, "http://"+w.proxy.Admin+"/readyz")
		if err == nil {
			return errors.New("it is ready")
		}
		if !strings.Contains(err.Error(), "are of cluster "+second) || !strings.Contains(err.Error(), "serves "+first) {
			return err
		}
		return nil
	})
	out, err := os.ReadFile(w.proxy.Log)
	require.NoError(t, err)
	require.Contains(t, string(out), "belongs to cluster "+second+", not "+first)
	require.Contains(t, w.proxyStatus(), second+", which nodes belong to")
	got, err := w.ReadNode(w.ctx, leader, 1)
	require.NoError(t, err)
	require.Equal(t, "of the second", string(got[0].GetValue()))
	require.EqualValues(t, 1, w.stats(leader).GetVisible(), "nothing else was appended")

	// An operator lets it go on.
	require.NoError(t, w.proxy.Kill())
	require.NoError(t, w.proxy.Start())
	require.NoError(t, w.ProxyReady(w.ctx, w.proxy))
	out, err = os.ReadFile(w.proxy.Log)
	require.NoError(t, err)
	require.Regexp(t, `\[WARN\].*another cluster than before the restart.*cluster=`+second+` former=`+first, string(out))
	require.Contains(t, w.proxyStatus(), first+" was served before")
	resp, err := logv1.NewLogClient(w.naive()).Consume(w.ctx, &logv1.ConsumeRequest{Offset: 0})
	require.NoError(t, err)
	require.Equal(t, "of the second", string(resp.GetRecord().GetValue()))
}

// remembering is a proxy that has a data_dir.
func (w *world) remembering() *harness.Proxy {
	w.t.Helper()
	p, err := w.AddProxy(fmt.Sprintf("data_dir = %q\n", filepath.Join(w.t.TempDir(), "proxy")))
	require.NoError(w.t, err)
	return p
}

func (w *world) proxyStatus() string {
	w.t.Helper()
	out, err := exec.CommandContext(w.ctx, filepath.Join(bin, "logproxy"), "status", "-admin", w.proxy.Admin).CombinedOutput()
	require.NoError(w.t, err, "%s", out)
	return string(out)
}
