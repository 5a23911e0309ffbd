package e2e_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/test/harness"
)

func (w *world) remove(id string) {
	w.t.Helper()
	w.until(id+" is removed", func() error {
		_, err := nodev1.NewNodeClient(w.dial("admin", w.leader())).RemovePeer(w.ctx, &nodev1.RemovePeerRequest{Id: id})
		if err != nil && !slices.Contains(w.peers(), id) {
			return nil // it was, and the answer was lost with its leader
		}
		return err
	})
}

// A node with the data of another cluster is kept out, and says whose it has.
func TestDataOfAnotherCluster(t *testing.T) {
	w := start(t)
	first := w.formed(w.Nodes...)
	w.kill(w.Nodes...)
	require.NoError(t, w.proxy.Kill())
	stray := w.Nodes[2]
	kept := filepath.Join(t.TempDir(), "kept")
	require.NoError(t, os.Rename(stray.DataDir, kept))
	w.wipe(w.Nodes...)
	w.boot(w.Nodes...)
	second := w.formed(w.Nodes...)
	require.NotEqual(t, first, second)
	require.NoError(t, w.proxy.Start())

	w.kill(stray)
	w.wipe(stray)
	require.NoError(t, os.Rename(kept, stray.DataDir))
	w.boot(stray)
	w.says(stray, "not caught up", "no other node is alive in gossip")
	w.until("the others, or it, say why", func() error {
		for _, n := range w.Nodes {
			out, err := os.ReadFile(n.Log)
			if err != nil {
				return err
			}
			if strings.Contains(string(out), "is in cluster "+first) || strings.Contains(string(out), "data is of cluster "+first) {
				return nil
			}
		}
		return errors.New("no word of it")
	})
	require.Equal(t, first, w.stats(stray).GetClusterId())
	for _, n := range w.Nodes[:2] {
		require.Equal(t, second, w.stats(n).GetClusterId())
	}
	require.NoError(t, w.ProxyReady(w.ctx, w.proxy))
	_, err := produce(w.ctx, w.naive(), "undisturbed")
	require.NoError(t, err)
}

// Names in retry_join that nobody knows hold up nothing.
func TestNamesThatDoNotResolve(t *testing.T) {
	w := without(t, 3)
	for _, n := range w.Nodes {
		rewrite(t, n.Config, "retry_join       = [", `retry_join       = ["nobody.invalid:8401", `)
	}
	w.boot(w.Nodes...)
	w.formed(w.Nodes...)
}

// An id that an operator removed does not come back: neither that of a node that
// was down when it was removed, nor that of one that saw it. Both say so, and with
// nothing left of it come back as new ones.
func TestLongARemovedIDStaysOut(t *testing.T) {
	t.Parallel()
	long(t)
	w := start(t)
	uuid := w.formed(w.Nodes...)
	n := w.follower()
	old := w.stats(n).GetNodeId()
	w.kill(n)
	w.remove(old)
	w.boot(n)
	w.tells(n, "not part of the cluster any more", old+" was removed from the cluster", "remove its data_dir")
	require.Len(t, w.stats(w.leader()).GetPeers(), 2)
	// Repeated by hand, to any node.
	for _, through := range w.Nodes {
		if through == n {
			continue
		}
		_, err := nodev1.NewNodeClient(w.dial(n.Name, through)).Join(w.ctx, &nodev1.JoinRequest{Id: old, RpcAddr: n.RPC, ClusterId: uuid})
		require.Error(t, err)
	}
	require.Len(t, w.stats(w.leader()).GetPeers(), 2)
	w.kill(n)
	w.wipe(n)
	w.boot(n)
	require.Equal(t, uuid, w.formed(w.Nodes...))

	// This one sees it: it ends, and when it is started again it knows.
	n = w.follower()
	old = w.stats(n).GetNodeId()
	w.remove(old)
	w.until("it notices", func() error {
		if !n.Running() {
			return nil
		}
		got, err := w.readiness(n)
		if err == nil && !strings.Contains(got, "not part of the cluster any more") {
			err = errors.New(got)
		}
		return err
	})
	w.kill(n)
	w.boot(n)
	w.tells(n, "not part of the cluster any more", old)
	w.kill(n)
	w.wipe(n)
	w.boot(n)
	require.Equal(t, uuid, w.formed(w.Nodes...))
}

// A follower that is asked to take a node in names who leads, and changes nothing. The
// node finds its way to the leader while leadership goes from one to another.
func TestJoinThroughFollowers(t *testing.T) {
	t.Parallel()
	w := start(t)
	uuid := w.formed(w.Nodes...)
	fresh, err := w.AddNode(0)
	require.NoError(t, err)
	require.NoError(t, vfs.OS{}.MkdirAll(fresh.DataDir))
	id, err := replica.LoadNodeID(vfs.OS{}, fresh.DataDir, fresh.Name)
	require.NoError(t, err)
	req := &nodev1.JoinRequest{Id: id, RpcAddr: fresh.RPC}

	// By hand: a follower names the leader, and changes nothing itself.
	w.underOneLeader(func(leader *harness.Node) error {
		for _, n := range w.Nodes[:3] {
			if n == leader {
				continue
			}
			_, err := nodev1.NewNodeClient(w.dial(fresh.Name, n)).Join(w.ctx, req)
			if err == nil { // it has just been elected
				w.remove(id)
			}
			if err := w.namesTheLeader(err, leader); err != nil {
				return err
			}
		}
		require.Len(t, w.stats(leader).GetPeers(), 3)
		return nil
	})

	moved := 0
	for range 3 {
		old := w.leader()
		w.boot(fresh)
		if _, err := nodev1.NewNodeClient(w.dial("admin", old)).TransferLeadership(w.ctx, &nodev1.TransferLeadershipRequest{}); err == nil {
			moved++
		}
		require.NoError(t, w.NodeReady(w.ctx, fresh))
		require.Equal(t, uuid, w.formed(w.Nodes...))
		require.Equal(t, id, w.stats(fresh).GetNodeId())
		w.kill(fresh)
		w.wipe(fresh)
		w.remove(id)
		require.NoError(t, vfs.OS{}.MkdirAll(fresh.DataDir))
		id, err = replica.LoadNodeID(vfs.OS{}, fresh.DataDir, fresh.Name)
		require.NoError(t, err)
	}
	require.NotZero(t, moved)
}
