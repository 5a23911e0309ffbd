package raftstore_test

import (
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/raftstore"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// Defect 3 of the prior art (docs/defects.md): asked to cut a tail that conflicts
// with the leader's, the store cut its front and kept the tail.
func TestDefect03DeleteRangeCutsTheFront(t *testing.T) {
	fs := memfs.New()
	s := open(t, fs, nil)
	old := entries(1, 10, 1)
	require.NoError(t, s.StoreLogs(old))
	require.NoError(t, s.DeleteRange(7, 10))
	requireLog(t, s, old[:6])
	want := append(old[:6:6], entries(7, 8, 2)...)
	require.NoError(t, s.StoreLogs(want[6:]))
	requireLog(t, s, want)

	// The front goes by retention, never because Raft compacts.
	require.ErrorIs(t, s.DeleteRange(1, 4), raftstore.ErrPrefix)
	requireLog(t, s, want)
	require.NoError(t, s.Close())
	s = open(t, fs, nil)
	defer s.Close()
	requireLog(t, s, want)
}

// requireLog checks that the store has exactly want.
func requireLog(t *testing.T, s *raftstore.Store, want []*raft.Log) {
	t.Helper()
	first, err := s.FirstIndex()
	require.NoError(t, err)
	last, err := s.LastIndex()
	require.NoError(t, err)
	require.Equal(t, []uint64{want[0].Index, want[len(want)-1].Index}, []uint64{first, last})
	var l raft.Log
	for _, e := range want {
		require.NoError(t, s.GetLog(e.Index, &l))
		require.Equal(t, *e, l)
	}
	require.Equal(t, raft.ErrLogNotFound, s.GetLog(last+1, &l))
}
