package server_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/server"
	"github.com/logd-io/logd/pkg/tlsconf"
)

func (r *rig) peer(name string) nodev1.NodeClient {
	return nodev1.NewNodeClient(r.dial(tlsconf.RoleStorage, name))
}

func (r *rig) admin() nodev1.NodeClient {
	return nodev1.NewNodeClient(r.dial(tlsconf.RoleAdmin, "root"))
}

func TestWatchClusterIsPushed(t *testing.T) {
	r := start(t, func(c *server.Config) { c.OffsetsInterval = time.Hour })
	w, err := r.proxy().WatchCluster(ctxOf(t), &nodev1.WatchClusterRequest{})
	require.NoError(t, err)
	v, err := w.Recv()
	require.NoError(t, err)
	require.Equal(t, cluster, v.ClusterId)
	require.Equal(t, uint64(4), v.Term)
	require.Equal(t, selfID, v.LeaderId)
	require.Equal(t, selfID, v.NodeId)
	require.True(t, v.Ready)
	require.Len(t, v.Peers, 2)
	require.Equal(t, "two:2", v.Peers[1].RpcAddr)
	r.set(func(v *replica.View) { v.Term, v.LeaderID = 5, "" })
	v, err = w.Recv()
	require.NoError(t, err)
	require.Equal(t, uint64(5), v.Term)
	require.Empty(t, v.LeaderId)
}

func TestWatchClusterTicksForOffsets(t *testing.T) {
	r := start(t, func(c *server.Config) { c.OffsetsInterval = 5 * time.Millisecond })
	w, err := r.proxy().WatchCluster(ctxOf(t), &nodev1.WatchClusterRequest{})
	require.NoError(t, err)
	_, err = w.Recv()
	require.NoError(t, err)
	r.put("0", "1")
	for {
		v, err := w.Recv()
		require.NoError(t, err)
		if v.Visible == 2 {
			return
		}
	}
}

func TestJoin(t *testing.T) {
	r := start(t)
	join := func(name, id, clusterID string) error {
		resp, err := r.peer(name).Join(ctxOf(t), &nodev1.JoinRequest{Id: id, RpcAddr: "x:1", ClusterId: clusterID})
		if err == nil {
			require.Equal(t, cluster, resp.ClusterId)
		}
		return err
	}
	field := func(err error) string {
		info, _ := apierr.From(err)
		require.Equal(t, apierr.ReasonInvalid, info.Reason, "%v", err)
		return info.Metadata[apierr.KeyField]
	}
	for _, id := range []string{"n4.00000004", "n3", "n3.", "n3.0000000", "n3.0000000G", "n3.x.00000003", "n3.000000031", ""} {
		require.Equal(t, "id", field(join("n3", id, "")), id)
	}
	require.Equal(t, "cluster_id", field(join("n3", "n3.00000003", "11111111-2222-3333-4444-555555555555")))
	require.Empty(t, r.added, "refused joins changed something")

	require.NoError(t, join("n3", "n3.00000003", ""))
	require.NoError(t, join("n3", "n3.00000003", cluster), "replayed")
	require.NoError(t, join("n3", "n3.00000003", ""), "replayed")
	require.Equal(t, []string{"n3.00000003"}, r.added)
	require.Equal(t, "id", field(join("n3", "n3.aaaaaaaa", "")), "a wiped node, its old id not removed")
	require.NoError(t, join("n2", otherID, ""), "a voter stays what it is")
	require.Equal(t, []string{"n3.00000003"}, r.added)

	// Bound to the cluster, and not in its configuration: it was removed.
	err := join("n6", "n6.00000006", cluster)
	require.Equal(t, "id", field(err))
	require.ErrorContains(t, err, "was removed")
	require.ErrorContains(t, err, "data_dir")
	require.Equal(t, []string{"n3.00000003"}, r.added)
	r.confirmWith(func(context.Context) (uint64, error) { return 0, &replica.NotLeaderError{LeaderID: otherID, Term: 5} })
	require.Equal(t, apierr.ReasonNotLeader, apierr.ReasonOf(join("n6", "n6.00000006", cluster)), "a deposed leader does not know who was removed")
	r.confirmWith(nil)
	r.mu.Lock()
	r.fresh = []replica.Peer{{ID: "n6.00000006"}}
	r.mu.Unlock()
	require.NoError(t, join("n6", "n6.00000006", cluster), "it has just been taken in")
	require.Equal(t, []string{"n3.00000003"}, r.added)

	r.follow()
	require.Equal(t, apierr.NotLeader{Leader: otherID, Address: "two:2", Term: 4}, reasonOf(t, join("n5", "n5.00000005", "")))
}

func TestPromise(t *testing.T) {
	r := start(t)
	ask := func(as, initiator string, servers ...string) error {
		_, err := r.peer(as).Promise(ctxOf(t), &nodev1.PromiseRequest{ClusterId: cluster, Initiator: initiator, Servers: servers})
		return err
	}
	require.NoError(t, ask("n2", otherID, selfID, otherID))
	require.Equal(t, [][]string{{selfID, otherID}}, r.promises)
	for name, err := range map[string]error{
		"in another's name":     ask("n3", otherID, selfID, otherID),
		"without this node":     ask("n2", otherID, otherID, "n3.00000003"),
		"without the initiator": ask("n2", otherID, selfID, "n3.00000003"),
	} {
		require.Equal(t, apierr.ReasonInvalid, apierr.ReasonOf(err), name)
	}
	require.Len(t, r.promises, 1)
	r.mu.Lock()
	r.grant = errors.New("bound to another list")
	r.mu.Unlock()
	err := ask("n2", otherID, selfID, otherID)
	require.Equal(t, apierr.ReasonInvalid, apierr.ReasonOf(err))
	require.ErrorContains(t, err, "bound to another list")
}

func TestAdministration(t *testing.T) {
	r := start(t)
	a := r.admin()
	st, err := a.Stats(ctxOf(t), &nodev1.StatsRequest{})
	require.NoError(t, err)
	require.Equal(t, selfID, st.NodeId)
	require.Equal(t, "leader", st.State)
	require.Equal(t, int64(-1), st.LastContactMs)
	require.NotZero(t, st.ClockUnixNano)
	require.Equal(t, "test", st.Version)
	require.Len(t, st.Peers, 2)

	for _, id := range []string{"", "n9.00000009", selfID} {
		_, err = a.RemovePeer(ctxOf(t), &nodev1.RemovePeerRequest{Id: id})
		require.Equal(t, apierr.ReasonInvalid, apierr.ReasonOf(err), id)
	}
	_, err = a.RemovePeer(ctxOf(t), &nodev1.RemovePeerRequest{Id: otherID})
	require.NoError(t, err)
	require.Equal(t, []string{otherID}, r.removed)

	_, err = a.TransferLeadership(ctxOf(t), &nodev1.TransferLeadershipRequest{TargetId: "n9.00000009"})
	require.Equal(t, apierr.ReasonInvalid, apierr.ReasonOf(err))
	got, err := a.TransferLeadership(ctxOf(t), &nodev1.TransferLeadershipRequest{})
	require.NoError(t, err)
	require.Equal(t, otherID, got.LeaderId)
	_, err = a.TransferLeadership(ctxOf(t), &nodev1.TransferLeadershipRequest{})
	require.Equal(t, apierr.ReasonNotLeader, apierr.ReasonOf(err))
	_, err = a.RemovePeer(ctxOf(t), &nodev1.RemovePeerRequest{Id: otherID})
	require.Equal(t, apierr.ReasonNotLeader, apierr.ReasonOf(err))
}

func TestTransferThatFailsSaysWhy(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		code codes.Code
		why  string
	}{
		"a cluster of one": {replica.ErrNoOtherVoter, codes.FailedPrecondition, "no other voter"},
		"Raft gave up":     {&replica.TransferError{Err: errors.New("leadership transfer timeout")}, codes.Unavailable, "not handed on: leadership transfer timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t)
			r.keeps = tc.err
			_, err := r.admin().TransferLeadership(ctxOf(t), &nodev1.TransferLeadershipRequest{})
			require.Equal(t, tc.code, status.Code(err), "%v", err)
			require.ErrorContains(t, err, tc.why)
		})
	}
}

// With one of three dead, the loss of another that lives would be the end: it is the
// dead one that was meant.
func TestRemovalThatNobodyCouldCommitIsRefused(t *testing.T) {
	const third, fourth = "n3.00000003", "n4.00000004"
	var dead atomic.Pointer[string]
	r := start(t, func(c *server.Config) {
		c.Answers = func(_ context.Context, id string) error {
			if *dead.Load() == id {
				return errors.New("gone")
			}
			return nil
		}
	})
	r.set(func(v *replica.View) {
		v.Peers = []replica.Peer{{ID: selfID, Voter: true}, {ID: otherID, Voter: true}, {ID: third, Voter: true}, {ID: fourth}}
	})
	remove := func(id string) error {
		_, err := r.admin().RemovePeer(ctxOf(t), &nodev1.RemovePeerRequest{Id: id})
		return err
	}
	died := third
	dead.Store(&died)
	err := remove(otherID)
	require.Equal(t, apierr.ReasonInvalid, apierr.ReasonOf(err))
	require.ErrorContains(t, err, third+" does not answer")
	require.Empty(t, r.removed)
	require.NoError(t, remove(fourth), "it has no vote")
	require.NoError(t, remove(third))
	nobody := ""
	dead.Store(&nobody)
	require.NoError(t, remove(otherID))
	// Of four the loss of one alive and one dead leaves two of three.
	dead.Store(&died)
	r.set(func(v *replica.View) { v.Peers[3].Voter = true })
	require.NoError(t, remove(otherID))
	require.Equal(t, []string{fourth, third, otherID, otherID}, r.removed)
}
