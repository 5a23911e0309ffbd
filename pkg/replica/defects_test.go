package replica_test

import (
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
)

// Defect 2 of the prior art (docs/defects.md): after a restart Raft's log was
// applied to a log that held it already.
func TestDefect02RestartAppliesAgain(t *testing.T) {
	c := boot(t, 1, nil)
	n := c.node(nodeID(1))
	var want []string
	for _, msg := range []string{"one", "two", "three"} {
		c.produce([16]byte{9}, uint64(len(want)), msg)
		want = append(want, msg)
		if msg == "two" {
			require.NoError(t, n.r.Checkpoint()) // the next restart is from between
		}
		require.NoError(t, n.stop())
		n.start()
		n.await("it leads again", func(v replica.View) bool { return v.IsLeader })
		_, msgs := n.read()
		require.Equal(t, want, msgs)
	}
}

// Defect 3 (docs/defects.md): a follower kept a tail that conflicted with the
// leader's and cut its front instead, and nobody noticed.
func TestDefect03ConflictingTailIsKept(t *testing.T) {
	t.Parallel()
	_, n, p := follower(t)
	send := func(term, prev, prevTerm, commit uint64, entries ...*raft.Log) {
		t.Helper()
		resp, err := p.appendEntries(n.id, term, prev, prevTerm, commit, entries...)
		require.NoError(t, err)
		require.True(t, resp.Success)
	}
	send(2, 1, 1, 3, entries(2, 9, 2, "old")...)
	n.visible(2)
	send(3, 4, 2, 4, entries(5, 6, 3, "new")...)
	send(3, 6, 3, 6)
	n.visible(5)
	_, msgs := n.read()
	require.Equal(t, []string{"old 2", "old 3", "old 4", "new 5", "new 6"}, msgs)
	require.Equal(t, uint64(6), n.r.Log().Last())
}
