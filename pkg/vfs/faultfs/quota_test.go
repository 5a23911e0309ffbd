package faultfs_test

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

func TestQuota(t *testing.T) {
	mem := memfs.New()
	require.NoError(t, mem.MkdirAll("d"))
	require.NoError(t, vfs.WriteFileAtomic(mem, "d/old", make([]byte, 100)))
	q, err := faultfs.NewQuota(mem, "d", 1000)
	require.NoError(t, err)
	free := func(want uint64) {
		t.Helper()
		got, err := q.Free("d")
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	free(900)
	f, err := q.Create("d/new")
	require.NoError(t, err)
	require.NoError(t, f.Allocate(500))
	free(400)
	_, err = f.WriteAt(make([]byte, 500), 0)
	require.NoError(t, err, "preallocated")
	free(400)
	require.ErrorIs(t, f.Allocate(901), syscall.ENOSPC)
	free(400)
	n, err := f.WriteAt(make([]byte, 500), 450)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, 450, n, "what fits is written")
	free(0)
	_, err = q.Create("d/more")
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, q.Rename("d/new", "d/old"), "replaced")
	free(100)
	require.NoError(t, f.Truncate(200))
	free(800)
	q.Outside(2000)
	free(0)
	_, err = f.WriteAt(make([]byte, 200), 0)
	require.NoError(t, err, "it has its space")
	q.Outside(0)
	require.NoError(t, q.Remove("d/old"))
	free(1000)
	require.NoError(t, f.Close())
	require.Zero(t, q.Used())
}
