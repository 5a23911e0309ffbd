package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/proxy"
	"github.com/logd-io/logd/test/harness"
)

// join starts a new node beside those that run, and waits until it votes.
func (w *world) join() *harness.Node {
	w.t.Helper()
	n, err := w.AddNode(0)
	require.NoError(w.t, err)
	require.NoError(w.t, n.Process.Start())
	require.NoError(w.t, w.NodeReady(w.ctx, n))
	w.voter(w.stats(n).GetNodeId())
	return n
}

// retire takes a running node out of the group, as an operator does: leadership goes to
// another first, then its id leaves the configuration, then it stops.
func (w *world) retire(n *harness.Node) {
	w.t.Helper()
	id := w.stats(n).GetNodeId()
	w.until("leadership is elsewhere", func() error {
		leader := w.leader()
		if leader != n {
			return nil
		}
		_, err := nodev1.NewNodeClient(w.dial("admin", leader)).TransferLeadership(w.ctx, &nodev1.TransferLeadershipRequest{})
		if err == nil {
			err = fmt.Errorf("%s has just handed it on", n.Name)
		}
		return err
	})
	w.until(n.Name+" is removed", func() error {
		leader := w.leader()
		_, err := nodev1.NewNodeClient(w.dial("admin", leader)).RemovePeer(w.ctx, &nodev1.RemovePeerRequest{Id: id})
		return err
	})
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	require.NoError(w.t, n.Stop(ctx))
}

// Every node is replaced by another, one after the other, the proxy's own contacts among
// them, and naive clients see nothing of it.
func TestEveryNodeIsReplaced(t *testing.T) {
	t.Parallel()
	w := start(t)
	tr := w.load()
	tr.more(200)
	for _, old := range w.Nodes[:3:3] {
		w.join()
		tr.more(50)
		w.retire(old)
		tr.more(50)
	}
	t.Logf("longest wait %v", tr.LongestWait())
	tr.finish()
	require.Len(t, w.stats(w.leader()).GetPeers(), 3)
	w.until("nobody waits for those who were removed", func() error {
		var st proxy.Status
		text, err := harness.Get(w.ctx, "http://"+w.proxy.Admin+"/api/status")
		if err == nil {
			err = json.Unmarshal([]byte(text), &st)
		}
		if err != nil {
			return err
		}
		members := w.logd("members", "-admin", w.leader().Admin)
		if len(st.Nodes) != 3 || strings.Contains(members, "failed") {
			return fmt.Errorf("the proxy knows %d nodes, and gossip\n%s", len(st.Nodes), members)
		}
		return nil
	})
}

// Three nodes become five, and then three again without two of the first, the leader
// among them.
func TestThreeFiveThree(t *testing.T) {
	t.Parallel()
	w := start(t)
	tr := w.load()
	tr.more(200)
	w.join()
	w.join()
	tr.more(100)
	require.Len(t, w.stats(w.leader()).GetPeers(), 5)
	leader := w.leader()
	w.retire(leader)
	tr.more(50)
	for _, n := range w.Nodes[:3] {
		if n != leader {
			w.retire(n)
			break
		}
	}
	tr.more(100)
	t.Logf("longest wait %v", tr.LongestWait())
	tr.finish()
	require.Len(t, w.stats(w.leader()).GetPeers(), 3)
}
