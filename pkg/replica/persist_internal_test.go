package replica

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// Replication to a peer that is away ends when it is not wanted any more, and
// with the transport; a heartbeat reports the failure at once.
func TestPersistEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wanted atomic.Bool
		dials := 0
		a := &transport{
			id: "a.00000001", cluster: transportCluster, logger: hclog.NewNullLogger(), rules: allRules,
			start: func() (uint64, uint64) { return 0, 0 }, flip: func() {}, reads: newReads(nil, false),
			dial:       func(context.Context, string) (net.Conn, error) { dials++; return nil, errors.New("refused") },
			replicates: func(id string, term uint64) bool { return wanted.Load() && id == "b.00000002" && term == 3 },
		}
		a.open()
		append1 := &raft.AppendEntriesRequest{Term: 3, Entries: []*raft.Log{{Index: 1, Term: 3}}}
		took := func(req *raft.AppendEntriesRequest) time.Duration {
			begin := time.Now()
			require.ErrorContains(t, a.call("b.00000002", req), "refused")
			return time.Since(begin)
		}
		require.Zero(t, took(append1), "not the leader")
		wanted.Store(true)
		require.Zero(t, took(&raft.AppendEntriesRequest{Term: 3}), "a heartbeat")
		require.Zero(t, took(&raft.AppendEntriesRequest{Term: 2, LeaderCommitIndex: 1}), "an older term")

		time.AfterFunc(time.Minute, func() { wanted.Store(false) })
		dials = 0
		require.InDelta(t, time.Minute, took(append1), float64(lastRetry))
		require.Less(t, dials, 300, "it does not spin")

		wanted.Store(true)
		time.AfterFunc(time.Second, func() { _ = a.Close() })
		require.Equal(t, time.Second, took(append1))
	})
}
