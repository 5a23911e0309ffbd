package e2e_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/bootstrap"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/test/harness"
)

// boot starts nodes, without waiting for anything.
func (w *world) boot(nodes ...*harness.Node) {
	w.t.Helper()
	for _, n := range nodes {
		require.NoError(w.t, n.Process.Start())
	}
}

// kill ends those of the nodes that run, with SIGKILL.
func (w *world) kill(nodes ...*harness.Node) {
	w.t.Helper()
	for _, n := range nodes {
		if n.Running() {
			require.NoError(w.t, n.Kill())
		}
	}
}

func (w *world) wipe(nodes ...*harness.Node) {
	w.t.Helper()
	for _, n := range nodes {
		require.NoError(w.t, os.RemoveAll(n.DataDir))
	}
}

// readiness is what a running node says of why it is not ready, "" when it is.
func (w *world) readiness(n *harness.Node) (string, error) {
	_, err := harness.Get(w.ctx, "http://"+n.Admin+"/readyz")
	switch {
	case err == nil:
		return "", nil
	case !n.Running():
		return "", harness.Ended(fmt.Errorf("%s has ended:\n%s", n.Name, n.Tail(20)))
	case !strings.Contains(err.Error(), "503"):
		return "", err
	}
	return err.Error(), nil
}

// says waits until a node tells, in its readiness, all of parts.
func (w *world) says(n *harness.Node, parts ...string) {
	w.t.Helper()
	w.until(fmt.Sprintf("%s says %q", n.Name, parts), func() error {
		got, err := w.readiness(n)
		if err != nil {
			return err
		}
		for _, part := range parts {
			if !strings.Contains(got, part) {
				return fmt.Errorf("it says %q", got)
			}
		}
		return nil
	})
}

// tells is says, by the other ways in which an operator may look: the log, and a
// command.
func (w *world) tells(n *harness.Node, parts ...string) {
	w.t.Helper()
	w.says(n, parts...)
	all := func(where string, look func() string) { // each says it in its own time
		w.until(fmt.Sprintf("%s of %s says %q", where, n.Name, parts), func() error {
			text := look()
			for _, part := range parts {
				if !strings.Contains(text, part) {
					return fmt.Errorf("%q is not in\n%s", part, text)
				}
			}
			return nil
		})
	}
	all("the log", func() string { return fileText(w.t, n.Log) })
	all("logd members -admin", func() string { return w.logd("members", "-admin", n.Admin) })
}

// formed waits until these nodes, and nobody else, are one cluster in which all of
// them vote, and returns its uuid.
func (w *world) formed(nodes ...*harness.Node) string {
	w.t.Helper()
	for _, n := range nodes {
		require.NoError(w.t, w.NodeReady(w.ctx, n))
	}
	var uuids, ids []string
	for _, n := range nodes {
		w.until(n.Name+" has the configuration", func() error {
			st, err := w.Stats(w.ctx, n)
			if err != nil {
				return err
			}
			voters := 0
			for _, p := range st.GetPeers() {
				if p.GetVoter() {
					voters++
				}
			}
			if voters != len(nodes) || len(st.GetPeers()) != len(nodes) {
				return fmt.Errorf("it has %v", st.GetPeers())
			}
			return nil
		})
		st := w.stats(n)
		uuids, ids = append(uuids, st.GetClusterId()), append(ids, st.GetNodeId())
		for _, p := range st.GetPeers() {
			require.True(w.t, slices.ContainsFunc(nodes, func(n *harness.Node) bool { return strings.HasPrefix(p.GetId(), n.Name+".") }), "%s", p.GetId())
		}
	}
	require.Len(w.t, slices.Compact(uuids), 1, "one cluster")
	slices.Sort(ids)
	require.Len(w.t, slices.Compact(ids), len(nodes))
	return uuids[0]
}

// without is prepare for a test that has to do with nodes only.
func without(t *testing.T, nodes int) *world {
	t.Helper()
	return prepare(t, nil, func(o *harness.Options) { o.Nodes = nodes })
}

func TestNodesStartAtOnce(t *testing.T) {
	t.Parallel()
	uuids := map[string]bool{}
	for _, n := range []int{1, 3, 3, 3, 3, 5} {
		w := without(t, n)
		w.boot(w.Nodes...)
		uuids[w.formed(w.Nodes...)] = true
		w.kill(w.Nodes...)
	}
	require.Len(t, uuids, 6)
}

// One after the other, the next when those before it wait for it.
func TestNodesStartInAnyOrder(t *testing.T) {
	t.Parallel()
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		w := without(t, 3)
		for i, at := range order {
			w.boot(w.Nodes[at])
			for _, n := range order[:i+1] {
				if i < 2 {
					w.tells(w.Nodes[n], "bootstrap_expect is 3", fmt.Sprintf("%d without state are here", i+1))
				}
			}
		}
		w.formed(w.Nodes...)
		w.kill(w.Nodes...)
	}
}

// Without the third nothing happens, however often the others start.
func TestOneNodeIsMissing(t *testing.T) {
	t.Parallel()
	w := without(t, 3)
	two := w.Nodes[:2]
	for range 3 {
		w.boot(two...)
		for _, n := range two {
			w.tells(n, "bootstrap_expect is 3", "2 without state are here")
		}
		w.kill(two...)
	}
	w.boot(two...)
	for _, n := range two {
		w.tells(n, "2 without state are here")
		require.Empty(t, w.stats(n).GetClusterId())
		require.NoFileExists(t, filepath.Join(n.DataDir, "promise"))
	}
	w.boot(w.Nodes[2])
	w.formed(w.Nodes...)
}

// Four where three are expected. Either all wait, and say so, until one goes; or
// three were quicker than the fourth, which then joins them.
func TestOneNodeTooMany(t *testing.T) {
	t.Parallel()
	waited := 0
	for range 3 {
		w := without(t, 3)
		extra, err := w.AddNode(3)
		require.NoError(t, err)
		w.boot(w.Nodes...)
		many := func() error {
			for _, n := range w.Nodes {
				if got, err := w.readiness(n); err != nil || !strings.Contains(got, "4 nodes without state are here") {
					return errors.Join(fmt.Errorf("%s says %q", n.Name, got), err)
				}
			}
			return nil
		}
		w.until("they wait, or go on", func() error {
			err := many()
			if err != nil && w.stats(w.Nodes[0]).GetClusterId() != "" {
				return nil
			}
			return err
		})
		if many() == nil {
			waited++
			w.kill(extra)
			w.formed(w.Nodes[:3]...)
			w.boot(extra)
		}
		w.formed(w.Nodes...)
		w.kill(w.Nodes...)
	}
	t.Logf("they waited %d times of 3", waited)
}

// rewrite changes a node's configuration.
func rewrite(t *testing.T, file string, oldnew ...string) {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	changed := strings.NewReplacer(oldnew...).Replace(string(text))
	require.NotEqual(t, string(text), changed, "nothing of %q is there", oldnew)
	require.NoError(t, os.WriteFile(file, []byte(changed), 0o600))
}

const expect = "bootstrap_expect = "

// Who was told another number keeps all from beginning, ends none, and when it is
// mended they begin.
func TestNodesToldDifferentNumbers(t *testing.T) {
	t.Parallel()
	w := without(t, 4)
	groups := [][]*harness.Node{w.Nodes[:2], w.Nodes[2:]}
	for _, n := range groups[0] {
		rewrite(t, n.Config, expect+"4", expect+"2")
	}
	// A pair that began before it met the others would be right to.
	w.boot(w.Nodes[0], w.Nodes[2], w.Nodes[3])
	w.tells(w.Nodes[0], "bootstrap_expect is 4 on node", "but 2 here")
	for _, n := range groups[1] {
		w.tells(n, "bootstrap_expect is 2 on node1", "but 4 here")
	}
	w.boot(w.Nodes[1])
	for _, n := range w.Nodes {
		w.tells(n, "set the same number on all")
		require.Empty(t, w.stats(n).GetClusterId())
	}
	for _, n := range groups[0] {
		w.kill(n)
		rewrite(t, n.Config, expect+"2", expect+"4")
		w.boot(n)
	}
	uuid := w.formed(w.Nodes...)

	// On a node with state it does nothing.
	n := w.Nodes[1]
	w.kill(n)
	rewrite(t, n.Config, expect+"4", expect+"2")
	w.boot(n)
	require.Equal(t, uuid, w.formed(w.Nodes...))
	out, err := os.ReadFile(n.Log)
	require.NoError(t, err)
	require.Contains(t, string(out), "bootstrap_expect does nothing")
}

// prime gives stopped nodes their ids and those in promised the promise to one
// cluster of all of them, as a crash may leave them, and returns its uuid.
func (w *world) prime(promised ...*harness.Node) (uuid string) {
	w.t.Helper()
	uuid = fmt.Sprintf("%08x-1111-4111-8111-111111111111", rand.Uint32())
	var ids []string
	for _, n := range w.Nodes {
		require.NoError(w.t, vfs.OS{}.MkdirAll(n.DataDir))
		id, err := replica.LoadNodeID(vfs.OS{}, n.DataDir, n.Name)
		require.NoError(w.t, err)
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, n := range promised {
		store, err := bootstrap.Open(vfs.OS{}, n.DataDir)
		require.NoError(w.t, err)
		require.NoError(w.t, store.Make(bootstrap.Promise{Cluster: uuid, Initiator: ids[0], Servers: ids}))
	}
	return uuid
}

// Whoever had promised when all were killed, what they begin is what was promised.
func TestKilledAfterPromises(t *testing.T) {
	for n := 1; n <= 3; n++ {
		w := without(t, 3)
		uuid := w.prime(w.Nodes[:n]...)
		w.boot(w.Nodes...)
		require.Equal(t, uuid, w.formed(w.Nodes...))
		w.kill(w.Nodes...)
	}
}

// Killed at any moment of the beginning, all or some, again and again: a promise
// that was once there stays, and is what they begin in the end.
func TestLongKilledWhileTheyBegin(t *testing.T) {
	t.Parallel()
	long(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	began := 0
	for range 5 {
		w := without(t, 3)
		seen := map[string]string{} // promises by node
		look := func() {
			for _, n := range w.Nodes {
				text, err := os.ReadFile(filepath.Join(n.DataDir, "promise"))
				if errors.Is(err, os.ErrNotExist) {
					require.NotContains(t, seen, n.Name, "a promise is gone")
					continue
				}
				require.NoError(t, err)
				if old, ok := seen[n.Name]; ok {
					require.Equal(t, old, string(text), "a promise was changed")
				}
				seen[n.Name] = string(text)
			}
		}
		for range 6 {
			for _, n := range w.Nodes {
				if !n.Running() {
					w.boot(n)
				}
			}
			w.pause(time.Duration(rng.IntN(1200)) * time.Millisecond)
			for _, n := range w.Nodes {
				if rng.IntN(3) > 0 {
					w.kill(n)
				}
			}
			look()
			began += len(seen)
		}
		w.kill(w.Nodes...)
		look()
		w.boot(w.Nodes...)
		uuid := w.formed(w.Nodes...)
		for name, text := range seen {
			require.Contains(t, text, uuid, name)
		}
		w.kill(w.Nodes...)
	}
	t.Logf("%d promises were there at a kill", began)
}
