package raftstore_test

import (
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/raftstore"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// Raft reads 64 entries for one RPC, which may take a quarter of them; the others
// are not read from disk again for the next one.
func TestWhatWasReadFromDiskIsNotReadTwice(t *testing.T) {
	var reads atomic.Int64 // of segments, which were made as .free
	fs := faultfs.Wrap(memfs.New(), faultfs.When(faultfs.All(faultfs.Is(faultfs.Read), faultfs.Name("*.free")), func(faultfs.Op) (int, error) {
		reads.Add(1)
		return -1, nil
	}))
	s, err := raftstore.Open(raftstore.Options{FS: fs, Dir: "data", SegmentBytes: 4096, CacheBytes: 1})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	es := entries(1, 8, 1)
	require.NoError(t, s.StoreLogs(es))
	get := func(index uint64) (l raft.Log) {
		require.NoError(t, s.GetLog(index, &l))
		return l
	}
	count := func(f func()) int64 {
		before := reads.Load()
		f()
		return reads.Load() - before
	}
	get(3)
	require.Positive(t, count(func() { get(3) }), "an entry that may still be cut is not kept")
	for i := range es {
		require.NoError(t, s.Log().Publish([]commitlog.Applied{{
			FirstOffset: uint64(i), Count: 1, Index: es[i].Index, Len: uint32(len(es[i].Data)),
		}}))
	}
	require.Positive(t, count(func() { require.Equal(t, *es[2], get(3)) }))
	require.Zero(t, count(func() { require.Equal(t, *es[2], get(3)) }))
	checkpoint(t, s.Snapshots(), 5, 5)
	_, err = s.Retain(5)
	require.NoError(t, err)
	var l raft.Log
	require.Equal(t, raft.ErrLogNotFound, s.GetLog(3, &l), "what retention took is gone")
}
