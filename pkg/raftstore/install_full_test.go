package raftstore_test

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/raftstore"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// installed is a checkpoint that lies beyond a log of 20 entries.
func installed() raftstore.Installed {
	return raftstore.Installed{Index: 25, Term: 2, Next: 25, Config: config("a"), ConfigIndex: 1, State: []byte("state at 25")}
}

// An install that a full disk refused never comes back, whatever a crash leaves of
// its files: what is acknowledged after it stays.
func TestARefusedInstallDoesNotComeBack(t *testing.T) {
	mem := memfs.New()
	var full faultfs.Switch
	disk := faultfs.Wrap(mem, faultfs.When(faultfs.All(full.On, faultfs.Is(faultfs.Create), faultfs.Name("start*")), faultfs.Fail(syscall.ENOSPC)))
	var fatal error
	s := open(t, disk, func(err error) { fatal = err })
	require.NoError(t, s.StoreLogs(entries(1, 20, 2)))
	publish(t, s, entries(1, 20, 2))
	checkpoint(t, s.Snapshots(), 5, 5)
	mem.Record()
	full.Set(true)
	err := s.Install(installed())
	require.True(t, raftstore.IsFull(err), "%v", err)
	require.NoError(t, fatal)
	full.Set(false)
	require.NoError(t, s.StoreLogs(entries(21, 40, 2)), "from a leader whose log goes back further")
	n := mem.Ops()
	for seed := range uint64(20) {
		c := open(t, mem.CrashAt(n, seed), nil)
		require.Equal(t, uint64(1), c.Log().First(), "seed %d", seed)
		require.Equal(t, uint64(40), c.Log().Last(), "seed %d", seed)
		require.NoError(t, c.Close())
	}
	require.NoError(t, s.Close())
}

// A disk that is full only when the checkpoint is there already, at the sync of its
// directory, has not refused the install: the node stops, and the next start is one
// of before or after it.
func TestAnInstallThatIsHalfDoneIsFatal(t *testing.T) {
	mem := memfs.New()
	var full faultfs.Switch
	disk := faultfs.Wrap(mem, faultfs.When(faultfs.All(full.On, faultfs.Is(faultfs.SyncDir), faultfs.Name("checkpoints")), faultfs.Fail(syscall.ENOSPC)))
	var fatal error
	s := open(t, disk, func(err error) { fatal = err })
	require.NoError(t, s.StoreLogs(entries(1, 20, 2)))
	publish(t, s, entries(1, 20, 2))
	checkpoint(t, s.Snapshots(), 5, 5)
	full.Set(true)
	require.False(t, stray(func() { _ = s.Install(installed()) }), "nothing may be acknowledged any more")
	require.ErrorContains(t, fatal, syscall.ENOSPC.Error())
	full.Set(false)
	require.NoError(t, s.Close())
	c := open(t, mem.Kill(), nil)
	require.Equal(t, uint64(25), c.Log().Last())
	require.NoError(t, c.Close())
}

// A store opens on a full disk though checkpoints go by each other's names, and
// though the one at its start is there once: what is whole stays until there is room.
func TestOpenOnAFullDiskKeepsWholeCheckpoints(t *testing.T) {
	mem := whole(t)
	names := checkpointFiles(t, mem) // 10, its copy, 20 to 60
	require.NoError(t, mem.Remove(names[1]))
	require.NoError(t, mem.Rename(names[3], "data/checkpoints/other"))
	require.NoError(t, mem.Rename(names[4], names[3]))
	require.NoError(t, mem.Rename("data/checkpoints/other", names[4]))
	var full faultfs.Switch
	full.Set(true)
	disk := faultfs.Wrap(mem, faultfs.When(faultfs.All(full.On, faultfs.Is(faultfs.Create), faultfs.Name("*.tmp")), faultfs.Fail(syscall.ENOSPC)))
	s, err := quarantine(disk)
	require.NoError(t, err)
	require.Equal(t, []uint64{60, 50, 20, 10}, indexes(t, s.Snapshots()))
	require.NoError(t, s.Close())
	full.Set(false)
	s, err = quarantine(disk)
	require.NoError(t, err)
	require.Equal(t, []uint64{60, 50, 40, 30, 20, 10}, indexes(t, s.Snapshots()))
	require.Equal(t, names, checkpointFiles(t, mem))
	require.NoError(t, s.Close())
}
