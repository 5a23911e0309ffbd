package raftstore

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
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
