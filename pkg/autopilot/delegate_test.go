package autopilot

import (
	"testing"

	"github.com/hashicorp/raft"
	lib "github.com/hashicorp/raft-autopilot"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/membership"
	"github.com/logd-io/logd/pkg/replica"
)

type viewOnly struct {
	Replica
	view replica.View
}

func (v viewOnly) View() replica.View { return v.view }

// What the library may act on is Raft's configuration and the storage members of
// gossip: a server that gossip has not seen is not missing, and a proxy is none.
func TestKnownServersAreRaftsAndStorageMembers(t *testing.T) {
	const a, b, c, d, proxy = "a.00000001", "b.00000002", "c.00000003", "d.00000004", "proxy.0000000f"
	dl := &delegate{cfg: Config{
		ID: a,
		Replica: viewOnly{view: replica.View{LeaderID: a, Peers: []replica.Peer{
			{ID: a, Voter: true}, {ID: b, Voter: true}, {ID: c, Voter: true},
		}}},
		Members: func() []membership.Member {
			return []membership.Member{
				{ID: b, Role: membership.RoleStorage, State: membership.Failed},
				{ID: d, Role: membership.RoleStorage, State: membership.Alive},
				{ID: proxy, Role: membership.RoleProxy, State: membership.Alive, RPCAddr: "127.0.0.1:8410"},
			}
		},
	}}
	known := map[raft.ServerID]lib.NodeStatus{}
	for id, s := range dl.KnownServers() {
		require.Equal(t, id, s.ID)
		require.Equal(t, raft.ServerAddress(id), s.Address, "the address is the id")
		require.Equal(t, id == a, s.IsLeader)
		known[id] = s.NodeStatus
	}
	require.Equal(t, map[raft.ServerID]lib.NodeStatus{
		a: lib.NodeAlive, b: lib.NodeFailed, c: lib.NodeUnknown, d: lib.NodeAlive,
	}, known)
	require.False(t, dl.AutopilotConfig().CleanupDeadServers)
}
