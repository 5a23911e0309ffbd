package replica_test

import (
	"math"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/raftstore"
)

// A node answers a peer that repairs from its disk, whether Raft runs or not, up
// to what it cannot read itself.
func TestEntriesForAPeer(t *testing.T) {
	c := boot(t, 1, nil)
	n := c.node(nodeID(1))
	c.produce([16]byte{1}, 0, "one")
	c.produce([16]byte{1}, 1, "two")
	require.NoError(t, n.r.Checkpoint())
	at := n.r.Log().Last()
	c.produce([16]byte{1}, 2, "three")
	last := n.r.Log().Last()
	term := n.r.Stats().Term
	require.NoError(t, n.stop())

	r := n.open()
	defer func() { require.NoError(t, r.Close()) }()
	x, err := r.Entries(1, math.MaxUint64, 1<<20)
	require.NoError(t, err)
	require.Len(t, x.Entries, int(last))
	require.Equal(t, []uint64{1, last}, []uint64{x.First, x.Last})
	require.GreaterOrEqual(t, x.Commit, at, "the checkpoint is committed")
	require.Equal(t, term, r.Stats().Term)
	require.Equal(t, x.Commit, r.Stats().CommitIndex)
	few, err := r.Entries(2, last, 1)
	require.NoError(t, err)
	require.Equal(t, x.Entries[1:2], few.Entries, "one entry at least")
	none, err := r.Entries(last+1, math.MaxUint64, 1)
	require.NoError(t, err)
	require.Empty(t, none.Entries)

	ckpt, err := r.NewestCheckpoint(math.MaxUint64)
	require.NoError(t, err)
	require.Equal(t, at, ckpt.Index)
	require.EqualValues(t, 2, ckpt.Next)
	config, err := raftstore.DecodeConfiguration(ckpt.Config)
	require.NoError(t, err)
	require.Equal(t, raft.ServerID(n.id), config.Servers[0].ID)
	ckpt, err = r.NewestCheckpoint(at - 1)
	require.NoError(t, err)
	require.Zero(t, ckpt.Index)
}
