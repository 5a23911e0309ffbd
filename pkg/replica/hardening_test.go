package replica_test

import (
	"fmt"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
)

// Where each hardening is switched off, and seen to be missed:
//
//	sequence check                   TestPlantedBugs/no_sequence_check
//	applied guard                    TestNothingIsAppliedAgain
//	truncation guard                 raftstore: TestCommittedEntriesAreNotCut
//	install rule                     TestInstallOverALongerDivergentLog
//	what a held checkpoint is        TestACheckpointThatContradictsTheLogIsNotHeld
//	commit clamp                     TestCommitIsClamped
//	raise rule                       TestAppendBelowTheStart
//	shorten                          TestAppendEntriesAreCutByBytes
//	heartbeats through the main loop TestHeartbeatsArriveOnConsumer
//	one RPC in flight                TestOneAppendEntriesIsUnderWay
//	preface                          TestAVoteIsForTheNodeThatIsAsked
//	replication waits                TestReplicationToANodeThatWasAway
//	refused configuration            TestARefusedConfigurationIsForgotten

// I11: a wiped node that came back under its name does not answer for the one it
// was, nor for a cluster that it is not of. Without the check it gives away a vote
// that the other had given already.
func TestAVoteIsForTheNodeThatIsAsked(t *testing.T) {
	t.Parallel()
	for _, off := range [][]replica.Switch{nil, {replica.NoPreface}} {
		for name, other := range map[string]string{"an older id": "", "another cluster": "11111111-0000-4000-8000-000000000000"} {
			t.Run(fmt.Sprint(name, " without ", off), func(t *testing.T) {
				c, n, p := follower(t, off...)
				p.other = other
				asked := n.id
				if other == "" {
					asked = "n1.ffffffff"
					c.mu.Lock()
					c.nodes[asked] = n // whoever looks for it finds the machine it was on
					c.mu.Unlock()
				}
				var resp raft.RequestVoteResponse
				err := p.net.RequestVote(raft.ServerID(asked), raft.ServerAddress(asked),
					&raft.RequestVoteRequest{RPCHeader: p.header(), Term: 5, LastLogIndex: 9, LastLogTerm: 4}, &resp)
				if off == nil {
					require.Error(t, err)
					require.Equal(t, uint64(1), n.r.Stats().Term)
					return
				}
				require.NoError(t, err)
				require.True(t, resp.Granted, "this is what the preface prevents")
			})
		}
	}
}

// I7: a planted bug that takes a checkpoint for held because the log reaches
// beyond it. The leader believes it, and can never replicate from there.
func TestACheckpointThatContradictsTheLogIsNotHeld(t *testing.T) {
	t.Parallel()
	meta, state := checkpointOf(t, 5)
	for _, off := range [][]replica.Switch{nil, {replica.KeepTail}} {
		t.Run(fmt.Sprint("planted ", off), func(t *testing.T) {
			c, n, p := follower(t, off...)
			resp, err := p.appendEntries(n.id, 3, 1, 1, 1, entries(2, meta.Index+10, 3, "stale")...)
			require.NoError(t, err)
			require.True(t, resp.Success)
			_, err = p.appendEntries(n.id, 4, 0, 0, 0)
			require.NoError(t, err)
			install, err := p.install(n.id, 4, meta, 4, state)
			if off == nil {
				require.Error(t, err, "no answer while the checkpoint is installed")
				c.eventually(func() bool { return n.r.Log().Start().Index == meta.Index && n.r.Raft() != nil }, "installed")
				install, err = p.install(n.id, 4, meta, 4, state)
			}
			require.NoError(t, err)
			require.True(t, install.Success)
			resp, err = p.appendEntries(n.id, 4, meta.Index, 4, meta.Index+1, entries(meta.Index+1, meta.Index+1, 4, "new")...)
			require.NoError(t, err)
			require.Equal(t, off == nil, resp.Success, "the follower goes on from the checkpoint it said it has")
		})
	}
}
