package raftstore_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/vfs"
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

// The checkpoint at the log's start rots, the one copy of it or both, whichever of
// them was read when the store was opened: one is written again from the other, with
// neither it is not used any more, and the node lives.
func TestRetentionMendsTheCheckpointAtTheStart(t *testing.T) {
	name := fmt.Sprintf("data/checkpoints/%020d-%d.ckp", 5, 2)
	for _, reopened := range []bool{false, true} {
		for _, rotten := range [][]string{{name}, {name + ".copy"}, {name, name + ".copy"}} {
			what := fmt.Sprint(reopened, rotten)
			fs := memfs.New()
			var fatal error
			s := open(t, fs, func(err error) { fatal = err })
			require.NoError(t, s.StoreLogs(entries(1, 20, 2)))
			publish(t, s, entries(1, 20, 2))
			for _, index := range []uint64{5, 10, 15} {
				checkpoint(t, s.Snapshots(), index, index)
			}
			moved, err := s.Retain(6)
			require.NoError(t, err)
			require.True(t, moved)
			want, err := vfs.ReadFile(fs, name)
			require.NoError(t, err)
			if reopened { // from the copy, and then there are two again
				require.NoError(t, s.Close())
				require.NoError(t, fs.Corrupt(name, 9, 1))
				s = open(t, fs, func(err error) { fatal = err })
			}
			for _, n := range rotten {
				require.NoError(t, fs.Corrupt(n, int64(len(want)-1), 1))
			}
			if len(rotten) == 1 {
				require.Equal(t, []uint64{15, 10, 5}, indexes(t, s.Snapshots()), what)
			}
			require.True(t, stray(func() { moved, err = s.Retain(6) }), what)
			require.NoError(t, err, what)
			require.False(t, moved, what)
			require.NoError(t, fatal, what)
			if len(rotten) == 1 {
				require.Equal(t, []uint64{15, 10, 5}, indexes(t, s.Snapshots()), what)
				for _, n := range []string{name, name + ".copy"} {
					got, err := vfs.ReadFile(fs, n)
					require.NoError(t, err, what)
					require.Equal(t, want, got, what)
				}
			} else {
				require.Equal(t, []uint64{15, 10}, indexes(t, s.Snapshots()), what)
				require.NotEmpty(t, s.Damage().Checkpoints, what)
			}
			require.True(t, stray(func() { moved, err = s.Retain(11) }), what)
			require.NoError(t, err, what)
			require.Equal(t, uint64(11), s.Log().First(), what)
			require.NoError(t, s.Close(), what)
		}
	}
}
