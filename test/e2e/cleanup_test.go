package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/test/harness"
)

func (w *world) within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(w.ctx, d)
}

func hostOf(t *testing.T, addr string) string {
	t.Helper()
	host, _, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	return host
}

// fiveWith is five nodes, and what their autopilot is told.
func fiveWith(t *testing.T, autopilot string) *world {
	t.Helper()
	return calm(t, func(opt *harness.Options) {
		opt.Nodes = 5
		opt.NodeConfig = "autopilot { " + autopilot + " }\n"
	})
}

// health is what the leader's autopilot says of id, once ok takes it.
func (w *world) health(what, id string, ok func(*nodev1.ServerHealth) bool) (found *nodev1.ServerHealth) {
	w.t.Helper()
	w.until(id+": "+what, func() error {
		st := w.stats(w.leader()).GetAutopilot()
		for _, s := range st.GetServers() {
			if s.GetId() == id && ok(s) {
				found = s
				return nil
			}
		}
		return fmt.Errorf("the leader says %v", st)
	})
	return found
}

// operator runs a command of logd that asks the leader.
func (w *world) operator(args ...string) string {
	w.t.Helper()
	f := w.Cert("admin")
	return w.logd(append(args, "-address", w.leader().RPC, "-ca-cert", f.CA, "-cert", f.Cert, "-key", f.Key)...)
}

// killFollowers ends followers for good, the newest first, since those who come later are
// told of the first three, and answers their ids.
func (w *world) killFollowers(n int) (ids []string) {
	w.t.Helper()
	leader := w.leader()
	for _, node := range slices.Backward(w.Nodes) {
		if node == leader || !node.Running() || len(ids) == n {
			continue
		}
		ids = append(ids, w.stats(node).GetNodeId())
		require.NoError(w.t, node.Kill())
	}
	return ids
}

// gone waits until nobody of ids is in the configuration, and the others of it are.
func (w *world) gone(want []string, ids ...string) {
	w.t.Helper()
	want = slices.DeleteFunc(slices.Clone(want), func(id string) bool { return slices.Contains(ids, id) })
	w.until(fmt.Sprintf("%v are removed", ids), func() error {
		if got := w.peers(); !slices.Equal(got, want) {
			return fmt.Errorf("the configuration is %v, not %v", got, want)
		}
		return nil
	})
}

// longDead waits until id has been dead for thrice the grace.
func (w *world) longDead(grace time.Duration, ids ...string) {
	w.t.Helper()
	for _, id := range ids {
		w.health("is dead for long", id, func(s *nodev1.ServerHealth) bool { return s.GetDeadMs() > 3*grace.Milliseconds() })
	}
}

// Nodes die for good. While nobody does their part they stay, however long; once
// replacements vote they are removed, and those alone.
func TestLongDeadServersAreReplaced(t *testing.T) {
	t.Parallel()
	long(t)
	const grace = time.Second
	w := fiveWith(t, `dead_server_grace = "1s"`)
	tr := w.load()
	tr.more(200)
	before := w.peers()
	require.Len(t, before, 5)

	// One of five, and nobody in its place.
	w.allHealthy(before) // the leader's gossip knows it, and so says that it fails
	one := w.killFollowers(1)[0]
	w.longDead(grace, one)
	require.Equal(t, before, w.peers())
	require.Contains(t, w.operator("operator", "autopilot", "state"), one)
	require.Contains(t, w.logd("members", "-admin", w.leader().Admin), "failed")
	tr.more(50)

	// A new leader knows nothing of how long that has been, and it has never seen
	// five healthy: it does not remove either.
	old := w.leader()
	_, err := nodev1.NewNodeClient(w.dial("admin", old)).TransferLeadership(w.ctx, &nodev1.TransferLeadershipRequest{})
	require.NoError(t, err)
	w.until("another leads", func() error {
		if w.leader() == old {
			return fmt.Errorf("%s still does", old.Name)
		}
		return nil
	})
	w.longDead(grace, one)
	require.Equal(t, before, w.peers())

	w.join()
	before = withAll(before, w.peers())
	w.gone(before, one)
	w.until("autopilot has looked again", func() error {
		if state := w.operator("operator", "autopilot", "state"); strings.Contains(state, one) {
			return errors.New(state)
		}
		return nil
	})
	require.NotContains(t, w.operator("operator", "raft", "list-peers"), one)
	tr.more(50)

	// Two of five at once: one in their place is not enough, two are.
	before = w.peers()
	w.allHealthy(before)
	two := w.killFollowers(2)
	w.longDead(grace, two...)
	w.join()
	w.longDead(grace, two...)
	w.voters5(before, two)
	w.join()
	before = withAll(before, w.peers())
	w.gone(before, two...)
	require.Len(t, w.peers(), 5)

	said := ""
	for _, n := range w.Nodes {
		said += fileText(t, n.Log)
	}
	for _, id := range append(two, one) {
		require.Equal(t, 1, countLines(said, "a dead server leaves the configuration", "node="+id, "dead_for=", "healthy_voters="), id)
	}
	require.Equal(t, 3, countLines(said, "a dead server leaves the configuration"), "nobody else was removed")
	tr.finish()
}

// A node dies for good, and the others restart: gossip does not know it then, and never
// hears of it. It stays while nobody does its part, and goes once another votes.
func TestLongADeadServerThatGossipDoesNotKnowIsReplaced(t *testing.T) {
	t.Parallel()
	long(t)
	const grace = time.Second
	w := calm(t, func(opt *harness.Options) { opt.NodeConfig = "autopilot { dead_server_grace = \"1s\" }\n" })
	before := w.peers()
	f := w.follower()
	dead := w.stats(f).GetNodeId()
	w.seen(f, dead, "alive")
	require.NoError(t, f.Kill())
	w.seen(f, dead, "failed")
	for _, n := range w.Nodes {
		if n == f {
			continue
		}
		ctx, cancel := w.within(patience)
		require.NoError(t, n.Stop(ctx))
		cancel()
		require.NoError(t, n.Process.Start())
		require.NoError(t, w.NodeReady(w.ctx, n))
	}
	unknown := w.health("is dead for long, and gossip does not know it", dead, func(s *nodev1.ServerHealth) bool {
		return s.GetGossip() == "unknown" && s.GetDeadMs() > 3*grace.Milliseconds()
	})
	require.True(t, unknown.GetVoter())
	require.Equal(t, before, w.peers(), "nobody does its part")

	w.join()
	w.gone(withAll(before, w.peers()), dead)
	require.Len(t, w.peers(), 3)
}

// allHealthy waits until the leader sees all of them healthy.
func (w *world) allHealthy(ids []string) {
	w.t.Helper()
	for _, id := range ids {
		w.health("is healthy", id, (*nodev1.ServerHealth).GetHealthy)
	}
}

// voters5 requires that everybody of before is still there, and the dead among them.
func (w *world) voters5(before, dead []string) {
	w.t.Helper()
	now := w.peers()
	for _, id := range append(slices.Clone(before), dead...) {
		require.Contains(w.t, now, id)
	}
}

func withAll(a, b []string) []string {
	all := append(slices.Clone(a), b...)
	slices.Sort(all)
	return slices.Compact(all)
}

// countLines is how many lines of text have all the words.
func countLines(text string, words ...string) (n int) {
	for line := range strings.Lines(text) {
		if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) }) {
			n++
		}
	}
	return n
}

// A dead node comes back before its grace is over, when another does its part already:
// it stays.
func TestLongADeadServerComesBackInTime(t *testing.T) {
	t.Parallel()
	long(t)
	const grace = 40 * time.Second
	w := fiveWith(t, `dead_server_grace = "40s"`)
	tr := w.load()
	tr.more(100)
	before := w.peers()
	w.allHealthy(before)
	id := w.killFollowers(1)[0]
	killed := time.Now()
	w.health("is dead", id, func(s *nodev1.ServerHealth) bool { return s.GetDeadMs() > 0 })
	w.join()
	now := w.peers()
	require.Len(t, now, 6)
	if s := w.health("is dead", id, func(s *nodev1.ServerHealth) bool { return s.GetDeadMs() > 0 }); s.GetDeadMs() > (grace / 2).Milliseconds() {
		t.Skip("this machine is too slow to come back in time")
	}
	for _, n := range w.Nodes {
		if !n.Running() {
			require.NoError(t, n.Process.Start())
			require.NoError(t, w.NodeReady(w.ctx, n))
		}
	}
	w.health("is well", id, func(s *nodev1.ServerHealth) bool { return s.GetHealthy() && s.GetDeadMs() == 0 })
	w.until("what would have been its grace is over", func() error {
		if left := grace + grace/4 - time.Since(killed); left > 0 {
			return fmt.Errorf("%s are left", left)
		}
		return nil
	})
	require.Equal(t, now, w.peers())
	tr.finish()
}
