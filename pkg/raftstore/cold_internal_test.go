package raftstore

import (
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

func TestColdEntriesAreBoundedByBytes(t *testing.T) {
	var c cold
	const each = 1 << 20
	for i := range uint64(64) {
		c.put(commitlog.Entry{Index: i + 1, Data: make([]byte, each)})
		require.LessOrEqual(t, c.bytes, int64(coldBytes))
		require.Len(t, c.by, len(c.order))
	}
	_, ok := c.get(1)
	require.False(t, ok, "the oldest went first")
	_, ok = c.get(64)
	require.True(t, ok)
	c.put(commitlog.Entry{Index: 100, Data: make([]byte, coldBytes+1)})
	require.Empty(t, c.by, "what is larger than all of it is not kept")
	require.Zero(t, c.bytes)
}

// A reader is held up when it has read an entry, and meanwhile that is cut, another
// is stored in its place and applied: what was read is not kept for the next reader.
func TestAnEntryThatIsCutOnceItWasReadIsNotKept(t *testing.T) {
	s, err := Open(Options{FS: memfs.New(), Dir: "data", SegmentBytes: 4096, CacheBytes: 1})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	entry := func(index, term uint64) *raft.Log {
		return &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: []byte{byte(index), byte(term)}}
	}
	for i := range uint64(5) {
		require.NoError(t, s.StoreLog(entry(i+1, 1)))
	}
	s.read = func() {
		s.read = nil
		require.NoError(t, s.DeleteRange(5, 5))
		require.NoError(t, s.StoreLog(entry(5, 2)))
		require.NoError(t, s.log.Publish([]commitlog.Applied{{FirstOffset: 0, Count: 1, Index: 5, Len: 2}}))
	}
	var l raft.Log
	require.NoError(t, s.GetLog(5, &l))
	require.Equal(t, uint64(1), l.Term, "what it had read")
	require.NoError(t, s.GetLog(5, &l))
	require.Equal(t, *entry(5, 2), l)
}
