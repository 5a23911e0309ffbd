package replica_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
)

func numbered(from, to int) (msgs []string) {
	for i := from; i < to; i++ {
		msgs = append(msgs, fmt.Sprintf("record %d", i))
	}
	return msgs
}

// I1: three nodes give the same records the same offsets.
func TestReplicates(t *testing.T) {
	t.Parallel()
	c := boot(t, 3, nil)
	p := [16]byte{1}
	for i := range 20 {
		res := c.produce(p, uint64(i*3), numbered(i*3, i*3+3)...)
		require.Equal(t, replica.Result{FirstOffset: uint64(i * 3), Count: 3}, res)
	}
	for _, n := range c.up() {
		n.visible(60)
		lowest, msgs := n.read()
		require.Zero(t, lowest)
		require.Equal(t, numbered(0, 60), msgs)
		n.await("ready", func(v replica.View) bool { return v.Ready })
		v := n.r.View()
		require.Len(t, v.Peers, 3)
		require.Equal(t, c.leader().id, v.LeaderID)
		require.Equal(t, testCluster, v.ClusterID)
	}
	require.Equal(t, 3, countStates(c), "one leader, two followers")
}

func countStates(c *cluster) (n int) {
	leaders := 0
	for _, x := range c.up() {
		switch x.r.View().State {
		case replica.StateLeader:
			leaders++
			n++
		case replica.StateFollower:
			n++
		}
	}
	if leaders != 1 {
		return -1
	}
	return n
}

// I4: a batch sent again after its leader died is in the log once.
func TestLeaderDiesMidProduce(t *testing.T) {
	t.Parallel()
	c := boot(t, 3, nil)
	p := [16]byte{1}
	c.produce(p, 0, "first")
	old := c.leader()
	var pending []*replica.Pending
	for i := range 5 { // the window: more must not be in flight
		x, err := old.r.Submit(replica.Batch{Producer: p, Owner: 1, FirstSeq: uint64(1 + i), Count: 1,
			Records: framed(fmt.Sprintf("record %d", 1+i))})
		require.NoError(t, err)
		pending = append(pending, x)
	}
	_ = old.stop()
	known := 0
	for _, x := range pending {
		if _, err := x.Result(); err == nil {
			known++
		}
	}
	t.Logf("%d of %d were acknowledged before the leader died", known, len(pending))
	for i := range 5 {
		res := c.produce(p, uint64(1+i), fmt.Sprintf("record %d", 1+i))
		require.Equal(t, uint64(1+i), res.FirstOffset)
		if i < known {
			require.True(t, res.Duplicate, "record %d was acknowledged, so it is there", 1+i)
		}
	}
	old.start()
	for _, n := range c.up() {
		n.visible(6)
		_, msgs := n.read()
		require.Equal(t, append([]string{"first"}, numbered(1, 6)...), msgs)
	}
}

// I3, I10: a node restarts from its newest checkpoint, and its log and tables
// come out as they were.
func TestRestartFromTheNewestCheckpoint(t *testing.T) {
	t.Parallel()
	c := boot(t, 1, nil)
	n := c.node(nodeID(1))
	p := [16]byte{1}
	for i := range 30 {
		c.produce(p, uint64(i), fmt.Sprintf("record %d", i))
		if i%10 == 4 {
			require.NoError(t, n.r.Checkpoint())
		}
	}
	hash := n.r.Stats().Hash
	commit := n.r.Stats().AppliedIndex
	for range 3 {
		require.NoError(t, n.stop())
		n.start()
		c.leader()
		n.visible(30)
		_, msgs := n.read()
		require.Equal(t, numbered(0, 30), msgs)
		require.Greater(t, n.r.Stats().AppliedIndex, commit)
		require.NotEqual(t, hash, n.r.Stats().Hash, "a new term's entry is applied as well")
		dup := c.produce(p, 29, "record 29")
		require.Equal(t, replica.Result{FirstOffset: 29, Count: 1, Duplicate: true}, dup)
	}
}

// I10: whatever was acknowledged survives a power loss of all nodes.
func TestPowerLossOfAll(t *testing.T) {
	t.Parallel()
	c := boot(t, 3, func(cfg *replica.Config) { cfg.CheckpointEntries = 7 })
	p := [16]byte{1}
	next := 0
	for round := range 5 {
		for range 12 {
			c.produce(p, uint64(next), fmt.Sprintf("record %d", next))
			next++
		}
		for i, n := range c.up() {
			n.lose(uint64(round*10 + i))
		}
		for i := range 3 {
			c.node(nodeID(i + 1)).start()
		}
		for _, n := range c.up() {
			n.visible(uint64(next))
			_, msgs := n.read()
			require.Equal(t, numbered(0, next), msgs)
		}
	}
}

// I7, I8: a node that lagged behind the start of everyone's log, and one that
// never had anything, come up from the oldest checkpoint and the entries after.
func TestLaggingAndNewNodeCatchUpAfterRetention(t *testing.T) {
	t.Parallel()
	c := boot(t, 3, nil)
	p := [16]byte{1}
	next := 0
	put := func(k int) {
		for range k {
			c.produce(p, uint64(next), fmt.Sprintf("record %d", next))
			next++
		}
	}
	checkpoint := func() {
		for _, n := range c.up() {
			n.visible(uint64(next))
			require.NoError(t, n.r.Checkpoint())
		}
	}
	put(10)
	checkpoint()
	var lagging *node
	for _, n := range c.up() {
		if n != c.leader() {
			lagging = n
		}
	}
	require.NoError(t, lagging.stop())
	for range 3 {
		put(10)
		checkpoint()
	}
	require.NoError(t, c.leader().r.SetLowest(context.Background(), 30))
	put(5)
	for _, n := range c.up() {
		n.visible(uint64(next))
		c.eventually(func() bool { return n.r.Log().Start().Index > 0 }, "%s: start of the log moves", n.id)
		require.Equal(t, uint64(30), n.r.Log().Lowest())
	}

	lagging.start()
	lagging.visible(uint64(next))
	lowest, msgs := lagging.read()
	require.Equal(t, uint64(30), lowest)
	require.Equal(t, numbered(30, next), msgs)
	require.NotZero(t, lagging.r.Log().Start().Index)

	fresh := c.add(nodeID(4))
	fresh.start()
	require.NoError(t, fresh.r.Bind(testCluster))
	require.NoError(t, c.leader().r.AddNonvoter(context.Background(), fresh.id))
	put(3)
	fresh.visible(uint64(next))
	lowest, msgs = fresh.read()
	require.Equal(t, uint64(30), lowest)
	require.Equal(t, numbered(30, next), msgs)
	fresh.await("ready", func(v replica.View) bool { return v.Ready })
	require.NoError(t, c.leader().r.AddVoter(context.Background(), fresh.id))

	// Both restart over what they installed.
	for _, n := range []*node{lagging, fresh} {
		require.NoError(t, n.stop())
		n.start()
		put(1)
		n.visible(uint64(next))
		lowest, msgs = n.read()
		require.Equal(t, uint64(30), lowest)
		require.Equal(t, numbered(30, next), msgs)
	}
	c.equal()
}
