package replica

import (
	"math"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// raftConfig gives the settings every node runs with. What is not obvious:
//
//   - CommitTimeout is what a follower waits, on an idle log, to learn that the
//     last record is committed.
//   - TrailingLogs and SnapshotThreshold at their largest: Raft never deletes
//     entries and takes no snapshot by itself; the start of the log moves by
//     retention only.
//   - RestoreCommittedLogs stays off: in v1.8.0 it loses the configuration
//     entries between the newest checkpoint and the commit index, and hangs
//     NewRaft when there is much to replay.
//   - LeaderLeaseTimeout is the most Raft allows, since heartbeats wait for the
//     follower's disk here.
func raftConfig(id string, heartbeat time.Duration, logger hclog.Logger) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(id)
	c.ProtocolVersion = 3
	c.HeartbeatTimeout = heartbeat
	c.ElectionTimeout = heartbeat
	c.LeaderLeaseTimeout = heartbeat
	c.CommitTimeout = 5 * time.Millisecond
	c.MaxAppendEntries = 64
	c.BatchApplyCh = true
	c.ShutdownOnRemove = true
	c.TrailingLogs = math.MaxUint64
	c.SnapshotThreshold = math.MaxUint64
	c.RestoreCommittedLogs = false
	c.NoLegacyTelemetry = true
	c.PreVoteDisabled = false
	c.Logger = logger
	return c
}
