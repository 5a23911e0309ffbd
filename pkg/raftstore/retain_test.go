package raftstore_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// Retention meets a checkpoint that rotted since it was made: the log begins at
// an older one instead, and the node lives.
func TestRetentionPassesOverADamagedCheckpoint(t *testing.T) {
	fs := memfs.New()
	var fatal error
	s := open(t, fs, func(err error) { fatal = err })
	require.NoError(t, s.StoreLogs(entries(1, 20, 2)))
	publish(t, s, entries(1, 20, 2))
	for _, index := range []uint64{5, 10, 15} {
		checkpoint(t, s.Snapshots(), index, index)
	}
	name := fmt.Sprintf("data/checkpoints/%020d-%d.ckp", 10, 2)
	info, err := fs.Stat(name)
	require.NoError(t, err)
	require.NoError(t, fs.Corrupt(name, info.Size-1, 1))

	var moved bool
	require.True(t, stray(func() { moved, err = s.Retain(12) }), "it returns")
	require.NoError(t, err)
	require.True(t, moved)
	require.NoError(t, fatal)
	require.Equal(t, uint64(6), s.Log().First())
	require.NoError(t, s.Close())

	s = open(t, fs, nil)
	require.Equal(t, uint64(6), s.Log().First())
	require.True(t, stray(func() { moved, err = s.Retain(16) }))
	require.NoError(t, err)
	require.Equal(t, uint64(16), s.Log().First())
	require.NoError(t, s.Close())
}
