package main

import (
	"context"
	"io"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/pkg/bootstrap"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
)

// promised makes a stopped node that has promised, and returns its data directory
// and the id it promised under.
func promised(t *testing.T, uuid string, then func(r *replica.Replica, id string)) (home, id string) {
	t.Helper()
	home = filepath.Join(t.TempDir(), "n1")
	id, err := replica.LoadNodeID(vfs.OS{}, home, "n1")
	require.NoError(t, err)
	r, err := replica.Open(replica.Config{ID: id, FS: vfs.OS{}, Dir: filepath.Join(home, "raft")})
	require.NoError(t, err)
	store, err := bootstrap.Open(vfs.OS{}, home)
	require.NoError(t, err)
	require.NoError(t, store.Make(bootstrap.Promise{Cluster: uuid, Initiator: id, Servers: []string{id, "n2.00000002", "n3.00000003"}}))
	require.NoError(t, r.Bind(uuid))
	then(r, id)
	require.NoError(t, r.Close())
	return home, id
}

func TestForgetMakesANewNode(t *testing.T) {
	const uuid = "11111111-1111-4111-8111-111111111111"
	home, id := promised(t, uuid, func(*replica.Replica, string) {})
	before := contents(t, home)

	got := logd(t, "no\n", "bootstrap", "forget", home)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stdout, id+", n2.00000002, n3.00000003")
	require.Contains(t, got.stderr, "nothing was changed")
	require.Equal(t, before, contents(t, home))

	require.Equal(t, 2, logd(t, uuid+"\n", "bootstrap", "forget", "-format", "json", home).code, "who would answer?")
	require.Equal(t, before, contents(t, home))

	lock, err := vfs.OS{}.Lock(filepath.Join(home, "lock"))
	require.NoError(t, err)
	got = logd(t, "", "bootstrap", "forget", "-yes", home)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "in use by a running node")
	require.NoError(t, lock.Close())

	got = logd(t, uuid+"\n", "bootstrap", "forget", home)
	require.Equal(t, 0, got.code, got.stderr)
	store, err := bootstrap.Open(vfs.OS{}, home)
	require.NoError(t, err)
	_, ok := store.Promised()
	require.False(t, ok)
	next, err := replica.LoadNodeID(vfs.OS{}, home, "n1")
	require.NoError(t, err)
	require.NotEqual(t, id, next, "nobody meets the old id again")
	r, err := replica.Open(replica.Config{ID: next, FS: vfs.OS{}, Dir: filepath.Join(home, "raft")})
	require.NoError(t, err)
	require.Empty(t, r.View().ClusterID, "it is bound to nothing")
	require.NoError(t, r.Close())

	got = logd(t, "", "bootstrap", "forget", "-yes", home)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "no promise")
}

// What a command that ended at any of its changes left is finished by the next.
func TestForgetIsFinished(t *testing.T) {
	const uuid = "11111111-1111-4111-8111-111111111111"
	for n, whole := int64(1), false; !whole; n++ {
		home, id := promised(t, uuid, func(*replica.Replica, string) {})
		disk := faultfs.Wrap(vfs.OS{}, faultfs.When(
			faultfs.All(faultfs.Is(faultfs.Remove, faultfs.SyncDir), faultfs.From(n)), faultfs.Fail(syscall.EIO)))
		o, err := replica.OpenOffline(disk, home, raftDir)
		require.NoError(t, err)
		err = forget(cli.Env{Stdout: io.Discard}, disk, home, o, true, cli.Table)
		require.NoError(t, o.Close())
		if whole = err == nil; whole {
			require.Greater(t, n, int64(5), "it makes changes")
			break
		}
		got := logd(t, "", "bootstrap", "forget", "-yes", home)
		if got.code != 0 { // the last of them was the sync of what is gone
			require.Contains(t, got.stderr, "no promise", "at %d", n)
		}
		next, err := replica.LoadNodeID(vfs.OS{}, home, "n1")
		require.NoError(t, err)
		require.NotEqual(t, id, next)
		require.NoFileExists(t, filepath.Join(home, "raft", "cluster-id"))
		require.NoFileExists(t, filepath.Join(home, "promise"))
	}
}

func TestForgetLeavesANodeWithState(t *testing.T) {
	const uuid = "11111111-1111-4111-8111-111111111111"
	home, _ := promised(t, uuid, func(r *replica.Replica, id string) {
		require.NoError(t, r.Bootstrap(context.Background(), uuid, []string{id, "n2.00000002", "n3.00000003"}))
	})
	before := contents(t, home)
	got := logd(t, "", "bootstrap", "forget", "-yes", home)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, uuid)
	require.Contains(t, got.stderr, "nothing was changed")
	require.Equal(t, before, contents(t, home))
}
