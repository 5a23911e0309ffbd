package raftstore_test

import (
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/raftstore"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// Raft forgets that it cut the end of its log when what should come instead
// cannot be stored. So a full disk refuses the cut, and where that was not
// foreseen the node stops.
func TestConflictOnAFullDisk(t *testing.T) {
	var full faultfs.Switch
	mem := memfs.New()
	disk := faultfs.Wrap(mem, faultfs.When(faultfs.All(full.On, faultfs.Is(faultfs.Create, faultfs.Allocate), faultfs.Name("*.free")), faultfs.Fail(syscall.ENOSPC)))
	var faults []error
	s := open(t, disk, func(err error) { faults = append(faults, err) })
	defer s.Close()
	require.NoError(t, s.StoreLogs(entries(1, 6, 2)))
	full.Set(true)
	require.ErrorIs(t, s.DeleteRange(4, 6), syscall.ENOSPC)
	last, err := s.LastIndex()
	require.NoError(t, err)
	require.Equal(t, uint64(6), last, "nothing is cut")
	require.NoError(t, s.StoreLogs(entries(7, 7, 2)), "the segment has room left")

	full.Set(false)
	require.NoError(t, s.DeleteRange(4, 7))
	full.Set(true)
	require.NoError(t, s.StoreLogs(entries(4, 4, 3)), "its segment was preallocated before the cut")
	require.Empty(t, faults)

	full.Set(false)
	require.NoError(t, s.DeleteRange(4, 4))
	full.Set(true)
	giant := &raft.Log{Index: 4, Term: 4, Data: make([]byte, 1<<17)} // larger than a segment
	require.False(t, stray(func() { _ = s.StoreLog(giant) }), "Raft may not go on")
	require.Len(t, faults, 1)
	require.ErrorIs(t, faults[0], syscall.ENOSPC)
}

// A node that lost the file of its vote, or its whole log, does not start as if
// it had never had one.
func TestRefusesADirectoryThatLostAPart(t *testing.T) {
	for part, vote := range map[string]bool{"raft-state": false, "log": true} {
		t.Run(part, func(t *testing.T) {
			fs := memfs.New()
			s := open(t, fs, nil)
			require.NoError(t, s.StoreLogs(entries(1, 3, 2)))
			require.NoError(t, s.SetUint64([]byte("CurrentTerm"), 2))
			require.NoError(t, s.Close())
			if vote {
				fs = onlyVote(t, fs)
			} else {
				require.NoError(t, fs.Remove("data/raft-state"))
			}
			for range 2 { // and says so again
				var corrupt *raftstore.CorruptError
				_, err := raftstore.Open(raftstore.Options{FS: fs, Dir: "data"})
				require.ErrorAs(t, err, &corrupt)
				require.Contains(t, corrupt.Path, part)
			}
		})
	}
}

// onlyVote is a copy of fs that has the file of the vote and nothing else.
func onlyVote(t *testing.T, fs *memfs.FS) *memfs.FS {
	left := memfs.New()
	require.NoError(t, left.MkdirAll("data"))
	b, err := vfs.ReadFile(fs, "data/raft-state")
	require.NoError(t, err)
	require.NoError(t, vfs.WriteFileAtomic(left, "data/raft-state", b))
	return left
}
