package e2e_test

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLeaderKilled(t *testing.T) {
	t.Parallel()
	w := start(t)
	tr := w.load()
	tr.more(500)
	leader := w.leader()
	require.NoError(t, leader.Kill())
	tr.more(500)
	require.NoError(t, leader.Process.Start())
	require.NoError(t, w.NodeReady(w.ctx, leader))
	tr.more(200)
	tr.finish()
}

func TestFollowerKilled(t *testing.T) {
	w := start(t)
	tr := w.load()
	tr.more(300)
	f := w.follower()
	require.NoError(t, f.Kill())
	tr.more(300)
	require.NoError(t, f.Process.Start())
	require.NoError(t, w.NodeReady(w.ctx, f))
	tr.more(100)
	tr.finish()
}

// A proxy's death is seen by its clients: what was under way has an unknown
// outcome. Nothing acknowledged is lost, nothing is there twice.
func TestProxyKilled(t *testing.T) {
	w := start(t)
	tr := w.load()
	tr.more(300)
	require.NoError(t, w.proxy.Kill())
	require.NoError(t, w.proxy.Process.Start())
	require.NoError(t, w.ProxyReady(w.ctx, w.proxy))
	tr.more(300)
	tr.halt()
	require.Error(t, <-tr.tailed, "a stream cannot outlive its proxy")
	v := tr.check()
	require.LessOrEqual(t, v.InLog, tr.Produced())
	require.GreaterOrEqual(t, v.InLog, tr.Acked())
}

// A leader that stands still for 10 s and then goes on must find that it is
// none any more.
func TestLeaderPaused(t *testing.T) {
	t.Parallel()
	w := start(t)
	tr := w.load()
	tr.more(300)
	leader := w.leader()
	require.NoError(t, leader.Signal(syscall.SIGSTOP))
	paused := time.NewTimer(10 * time.Second)
	defer paused.Stop()
	tr.more(300)
	<-paused.C
	require.NoError(t, leader.Signal(syscall.SIGCONT))
	w.until("the paused node follows", func() error {
		st, err := w.Stats(w.ctx, leader)
		if err != nil {
			return err
		}
		if st.GetState() != "follower" || !st.GetReady() {
			return fmt.Errorf("it is %s, ready %t", st.GetState(), st.GetReady())
		}
		return nil
	})
	tr.more(200)
	tr.finish()
}

func TestAllNodesKilledAtOnce(t *testing.T) {
	w := start(t)
	tr := w.load()
	tr.more(500)
	for _, n := range w.Nodes {
		require.NoError(t, n.Signal(syscall.SIGKILL))
	}
	for _, n := range w.Nodes {
		_, err := n.Wait(w.ctx)
		require.NoError(t, err)
	}
	require.NoError(t, w.Start())
	tr.more(300)
	require.NoError(t, w.Ready(w.ctx))
	// The proxy holds produces for ten seconds; how long three nodes take to
	// come back on a busy machine is not ours to promise, so an error is allowed
	// here. Loss, duplicates and gaps are not.
	tr.halt()
	v := tr.check()
	tr.tailReads(v.InLog)
}

// A rolling restart with SIGTERM shows a naive client nothing at all.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	w := start(t)
	tr := w.load()
	tr.more(200)
	for _, n := range w.Nodes {
		ctx, cancel := context.WithTimeout(w.ctx, patience)
		require.NoError(t, n.Stop(ctx))
		cancel()
		tr.more(100)
		require.NoError(t, n.Process.Start())
		require.NoError(t, w.NodeReady(w.ctx, n))
		tr.more(100)
	}
	tr.finish()
}

func TestNodeJoinsRunningCluster(t *testing.T) {
	t.Parallel()
	w := start(t)
	tr := w.load()
	tr.more(300)
	n, err := w.AddNode(0)
	require.NoError(t, err)
	require.NoError(t, n.Process.Start())
	require.NoError(t, w.NodeReady(w.ctx, n))
	id := w.stats(n).GetNodeId()
	w.voter(id)
	tr.more(100)
	tr.finish()
}

// voter waits until the leader's configuration has id as a voter.
func (w *world) voter(id string) {
	w.t.Helper()
	w.until(id+" is a voter", func() error {
		for _, p := range w.stats(w.leader()).GetPeers() {
			if p.GetId() == id && p.GetVoter() {
				return nil
			}
		}
		return fmt.Errorf("%s is no voter yet", id)
	})
}

// A wiped disk is another node under the old name: refused until the old id is
// removed, then taken in under its new id.
func TestWipedNodeRejoins(t *testing.T) {
	t.Parallel()
	w := start(t)
	tr := w.load()
	tr.more(300)
	n := w.follower()
	old := w.stats(n).GetNodeId()
	require.NoError(t, n.Kill())
	require.NoError(t, os.RemoveAll(n.DataDir))
	w.remove(old)
	require.NoError(t, n.Process.Start())
	require.NoError(t, w.NodeReady(w.ctx, n))
	id := w.stats(n).GetNodeId()
	require.NotEqual(t, old, id)
	w.voter(id)
	tr.more(100)
	tr.finish()
}
