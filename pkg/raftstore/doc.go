// Package raftstore gives hashicorp/raft its log, its votes and its snapshots
// out of one commit log.
//
// Invariant: what Raft was told is stored survives a crash, exactly as it was
// told; and after a fault that makes this doubtful no call returns to Raft any
// more. The log is the only copy of the records: a snapshot here is a
// checkpoint, the small state at one entry, and Raft itself never deletes or
// empties anything.
//
// Only pkg/replica calls it. It never interprets an entry or a checkpoint's
// state, never decides when to take a checkpoint or what to retain, and starts
// no goroutine. It is importable, but its API is not promised to other modules.
package raftstore
