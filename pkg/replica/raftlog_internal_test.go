package replica

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

func TestRaftLogIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		stopping := false
		l := newRaftLog(hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Info}), func() bool { return stopping }).Named("raft")
		lines := func() []string {
			defer out.Reset()
			return strings.SplitAfter(strings.TrimSuffix(out.String(), "\n"), "\n")
		}
		down := func(id string) {
			l.Error("failed to heartbeat to", "peer", raft.ServerAddress(id), "error", "refused")
		}
		for range 3600 { // an hour, once a second
			down("node2")
			time.Sleep(time.Second)
		}
		said := lines()
		require.Equal(t, raftLogBurst+3600/10-1, len(said))
		require.NotContains(t, said[0], "left_out")
		require.Contains(t, said[raftLogBurst], "[ERROR] raft: failed to heartbeat to: peer=node2 error=refused left_out=5")

		down("node3")
		require.Contains(t, lines()[0], "peer=node3", "another peer is another kind")
		l.Warn("failed to heartbeat to", "peer", "node2")
		require.Contains(t, lines()[0], "[WARN]", "as is another level")

		time.Sleep(time.Hour)
		down("node2")
		require.Contains(t, lines()[0], "left_out=", "what was left out last is told when there is a next")
		time.Sleep(time.Hour)
		for range 100 {
			down("node2")
		}
		require.Equal(t, raftLogBurst, len(lines()), "quiet between, it may be said as often as at first")

		l.Error("peer has newer term, stopping replication", "peer", "node2")
		require.Contains(t, lines()[0], "[INFO]")
		for i := range 10 * raftLogKinds {
			l.Info(fmt.Sprint("kind ", i))
		}
		require.Less(t, len(lines()), raftLogKinds+raftLogBurst+1, "kinds beyond the bound are one")

		l.Error("one of many")
		require.NotEqual(t, []string{""}, lines(), "and each level has its own")
		time.Sleep(raftLogEvery)
		l.Info("kind of its own")
		l.Info("another")
		require.Len(t, lines(), 2)
		for range 10 {
			l.Info("one that is paced alone")
		}
		require.Len(t, lines(), raftLogBurst, "what has been quiet makes room")

		stopping = true
		l.Error("failed to appendEntries to", "peer", "node9")
		l.With("id", 1).Warn("failed to get log")
		require.Equal(t, []string{""}, lines(), "at a stop they are of no interest")
	})
}
