package agent_test

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/agent"
	"github.com/logd-io/logd/pkg/bootstrap"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
)

// 'logd bootstrap forget' may die at any of its changes, and the node be started
// without it being run again. From the first change on it is a new node, which must
// not wait for a cluster that knows only its old id; before, nothing is different.
func TestForgettingThatWasInterruptedIsFinishedByTheNode(t *testing.T) {
	const uuid = "11111111-1111-4111-8111-111111111111"
	w := newWorld(t)
	changes := func(n int64) *faultfs.FS {
		return faultfs.Wrap(vfs.OS{}, faultfs.When(
			faultfs.All(faultfs.Is(faultfs.Remove, faultfs.SyncDir), faultfs.From(n)), faultfs.Fail(syscall.EIO)))
	}
	for n, whole := int64(1), false; !whole; n++ {
		c := w.config("n1", 3)
		c.DataDir = t.TempDir()
		id, err := replica.LoadNodeID(vfs.OS{}, c.DataDir, "n1")
		require.NoError(t, err)
		r, err := replica.Open(replica.Config{ID: id, FS: vfs.OS{}, Dir: filepath.Join(c.DataDir, "raft")})
		require.NoError(t, err)
		require.NoError(t, r.Bind(uuid))
		require.NoError(t, r.Close())
		store, err := bootstrap.Open(vfs.OS{}, c.DataDir)
		require.NoError(t, err)
		promise := bootstrap.Promise{Cluster: uuid, Initiator: id, Servers: []string{id, "n2.00000002", "n3.00000003"}}
		require.NoError(t, store.Make(promise))

		// What the command does.
		disk := changes(n)
		o, err := replica.OpenOffline(disk, c.DataDir, "raft")
		require.NoError(t, err)
		dropped, err := bootstrap.Open(disk, c.DataDir) // which syncs
		if err == nil {
			err = o.Unbind(uuid)
		}
		if err == nil {
			err = dropped.Forget()
		}
		whole = err == nil
		require.NoError(t, o.Close())

		// The node may be killed, too.
		if n > 2 && n < 7 {
			_, err := agent.Open(c, agent.Deps{FS: faultfs.Wrap(vfs.OS{}, faultfs.When(
				faultfs.All(faultfs.Is(faultfs.Remove), faultfs.Name("promise")), faultfs.Fail(syscall.EIO)))})
			require.ErrorContains(t, err, "forget the promise", "at change %d", n)
		}
		a, err := agent.Open(c, agent.Deps{})
		require.NoError(t, err)
		if n <= 2 { // nothing was changed
			require.Equal(t, id, a.ID())
			require.Equal(t, uuid, a.View().ClusterID)
			require.FileExists(t, filepath.Join(c.DataDir, "promise"))
		} else {
			require.NotEqual(t, id, a.ID())
			require.Empty(t, a.View().ClusterID, "at change %d", n)
			require.NoFileExists(t, filepath.Join(c.DataDir, "promise"))
			require.NoFileExists(t, filepath.Join(c.DataDir, "raft", "cluster-id"))
		}
		require.NoError(t, a.Close())
	}
}
