package e2e_test

import (
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

	"github.com/logd-io/logd/test/harness"
)

// calm is three nodes whose leader does not change because a machine is busy.
func calm(t *testing.T, tweaks ...func(*harness.Options)) *world {
	t.Helper()
	tweaks = append(tweaks, func(opt *harness.Options) { opt.Heartbeat = time.Second })
	w := prepare(t, nil, tweaks...)
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))
	return w
}

// seen waits until gossip, as every other running node tells it, has id as state. Of one
// that fails before a node has heard of it that node never hears: it is to be seen alive
// first.
func (w *world) seen(n *harness.Node, id, state string) {
	w.t.Helper()
	w.until(fmt.Sprintf("gossip says that %s is %s", id, state), func() error {
		for _, other := range w.Nodes {
			if other == n || !other.Running() {
				continue
			}
			got, err := w.gossip(other)
			if err != nil {
				return err
			}
			if got[id] != state {
				return fmt.Errorf("%s says %q", other.Name, got[id])
			}
		}
		return nil
	})
}

// steady requires that f moves nobody in Raft: not the leader, not the term, not the
// configuration.
func (w *world) steady(f func()) {
	w.t.Helper()
	w.underOneLeader(func(leader *harness.Node) error {
		before, peers := w.stats(leader), w.peers()
		f()
		after := w.stats(leader)
		if after.GetState() != "leader" || after.GetTerm() != before.GetTerm() {
			return fmt.Errorf("%s, which led term %d, is %s in term %d", leader.Name, before.GetTerm(), after.GetState(), after.GetTerm())
		}
		require.Equal(w.t, peers, w.peers())
		return nil
	})
}

// A node that stands still for so long that gossip takes it for failed, goes on, and
// stands still again: nobody is removed, nobody is elected, and clients see nothing.
func TestGossipFlaps(t *testing.T) {
	w := calm(t)
	tr := w.load()
	tr.more(200)
	f := w.follower()
	id := w.stats(f).GetNodeId()
	w.seen(f, id, "alive")
	w.steady(func() {
		for range 4 {
			require.NoError(t, f.Signal(syscall.SIGSTOP))
			w.seen(f, id, "failed")
			tr.more(100)
			require.NoError(t, f.Signal(syscall.SIGCONT))
			w.seen(f, id, "alive")
			tr.more(50)
		}
		require.NoError(t, w.NodeReady(w.ctx, f))
	})
	tr.finish()
}

// A copy of a node's data directory is started while the node runs. Gossip ends in the
// copy, which says why and exits; nobody else notices.
func TestTwoProcessesWithOneID(t *testing.T) {
	t.Parallel()
	w := calm(t)
	tr := w.load()
	tr.more(200)
	f := w.follower()
	ctx, cancel := w.within(patience)
	defer cancel()
	require.NoError(t, f.Stop(ctx))
	host, dir := w.Host(210), filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.CopyFS(dir, os.DirFS(f.DataDir)))
	require.NoError(t, f.Process.Start())
	require.NoError(t, w.NodeReady(w.ctx, f))
	id := w.stats(f).GetNodeId()
	w.seen(f, id, "alive")

	text := strings.NewReplacer(
		fmt.Sprintf("%q", f.DataDir), fmt.Sprintf("%q", dir),
		fmt.Sprintf("bind_addr        = %q", hostOf(t, f.RPC)), fmt.Sprintf("bind_addr        = %q", host),
	).Replace(fileText(t, f.Config))
	require.Contains(t, text, host)
	conf := filepath.Join(t.TempDir(), "copy.hcl")
	require.NoError(t, os.WriteFile(conf, []byte(text), 0o600))
	second := &harness.Process{
		Name: "copy", Path: filepath.Join(bin, "logd"), Args: []string{"agent", "-config", conf},
		Log: filepath.Join(t.TempDir(), "copy.log"),
	}
	w.steady(func() {
		require.NoError(t, second.Start())
		t.Cleanup(func() {
			if second.Running() {
				require.NoError(t, second.Kill())
			}
			requireNoRace(t, second)
		})
		code, err := second.Wait(ctx)
		require.NoError(t, err, "%s", second.Tail(40))
		require.Equal(t, 1, code)
		require.Contains(t, second.Tail(20), "name conflict")
		require.Contains(t, second.Tail(20), id)
		tr.more(100)
	})
	w.seen(f, id, "alive")
	require.True(t, f.Running())
	require.NoError(t, w.NodeReady(w.ctx, f))
	tr.finish()
}

// A node and a proxy that can reach nobody of retry_join find the others in what they
// remember of gossip, and still do when that is damaged.
func TestRejoinFromTheSnapshot(t *testing.T) {
	t.Parallel()
	w := prepare(t, nil)
	proxyDir := filepath.Join(t.TempDir(), "proxy")
	edit(t, w.proxy.Config, func(text string) string { return fmt.Sprintf("data_dir = %q\n", proxyDir) + text })
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))
	f := w.follower()
	id := w.stats(f).GetNodeId()
	w.seen(f, id, "alive")
	nowhere := func(text string) string {
		for i := 1; i <= 3; i++ {
			text = strings.ReplaceAll(text, fmt.Sprintf("%q", w.Host(i)+":8401"), fmt.Sprintf("%q", w.Host(200+i)+":8401"))
		}
		require.Contains(t, text, w.Host(201))
		return text
	}
	edit(t, f.Config, nowhere)
	edit(t, w.proxy.Config, nowhere)
	produces := func(value string) {
		t.Helper()
		_, err := produce(w.ctx, w.naive(), value)
		require.NoError(t, err)
	}
	again := func(p *harness.Process, n *harness.Node, snapshot string) {
		t.Helper()
		if n == nil {
			require.NoError(t, w.ProxyReady(w.ctx, w.proxy))
		} else {
			require.NoError(t, w.NodeReady(w.ctx, n))
			w.seen(n, id, "alive")
			w.until(n.Name+" sees the others", func() error {
				states, err := w.gossip(n)
				if err != nil {
					return err
				}
				alive := 0
				for _, state := range states {
					if state == "alive" {
						alive++
					}
				}
				if alive < 3 {
					return fmt.Errorf("%v", states)
				}
				return nil
			})
		}
		w.until("the others are in "+snapshot, func() error { // Serf writes it twice a second
			b, err := os.ReadFile(snapshot)
			if err != nil {
				return err
			}
			if strings.Count(string(b), "alive: node") < 2 {
				return errors.New("they are not")
			}
			return nil
		})
	}
	for _, x := range []struct {
		p        *harness.Process
		n        *harness.Node
		snapshot string
	}{
		{f.Process, f, filepath.Join(f.DataDir, "gossip.snapshot")},
		{w.proxy.Process, nil, filepath.Join(proxyDir, "gossip.snapshot")},
	} {
		again(x.p, x.n, x.snapshot)
		require.NoError(t, x.p.Kill())
		if x.n != nil {
			w.seen(x.n, id, "failed")
		}
		require.NoError(t, x.p.Start())
		again(x.p, x.n, x.snapshot)
		produces("after " + x.p.Name + " is back")

		require.NoError(t, x.p.Kill())
		if x.n != nil {
			w.seen(x.n, id, "failed")
		}
		edit(t, x.snapshot, func(text string) string {
			return "\x00\x00garbage\nclock: 99999999999999999999\n" + text + "not-ali"
		})
		require.NoError(t, x.p.Start())
		again(x.p, x.n, x.snapshot)
		require.Contains(t, fileText(t, x.p.Log), "gossip snapshot was damaged or cut short")
		produces("after " + x.p.Name + " is back with a damaged snapshot")
	}
}

// A host that is too long for what gossip carries of a node is refused by name.
func TestLongHostsAreRefused(t *testing.T) {
	w := prepare(t, nil)
	long := strings.Repeat("a.", 127)
	setting(t, w.Nodes[0], fmt.Sprintf("\nadvertise_addr = %q\n", long))
	edit(t, w.proxy.Config, func(text string) string {
		return strings.Replace(text, "gossip {", fmt.Sprintf("gossip {\n  advertise_address = %q", long), 1)
	})
	for _, argv := range [][]string{
		{"logd", "validate", w.Nodes[0].Config, "advertise_addr"},
		{"logd", "agent", "-config", w.Nodes[0].Config, "advertise_addr"},
		{"logproxy", "validate", w.proxy.Config, "gossip.advertise_address"},
		{"logproxy", "agent", "-config", w.proxy.Config, "gossip.advertise_address"},
	} {
		last := len(argv) - 1
		out, err := exec.CommandContext(w.ctx, filepath.Join(bin, argv[0]), argv[1:last]...).CombinedOutput()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, "%v", argv)
		require.Equal(t, 1, exit.ExitCode(), "%v: %s", argv, out)
		require.Contains(t, string(out), argv[last])
		require.Contains(t, string(out), "at most 253")
		require.NotContains(t, string(out), "panic")
	}
}

func edit(t *testing.T, name string, change func(string) string) {
	t.Helper()
	require.NoError(t, os.WriteFile(name, []byte(change(fileText(t, name))), 0o600))
}
