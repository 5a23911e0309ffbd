// Package replica is one replicated log: it turns batches into committed,
// numbered records on a majority of nodes.
//
// Invariant: every node applies the same entries in the same order and so gives
// every accepted batch the same offsets, without holes; a batch is answered only
// after it is durable on a majority; one that its producer repeats within the
// window is answered with its first offsets. DESIGN.md numbers the invariants
// and says what each fault does.
//
// The agent composes it, the server submits to it and reads its log, autopilot
// changes its configuration. Nothing above it knows hashicorp/raft, except
// autopilot.
//
// It never decodes a record, never asks gossip, never talks gRPC, and never
// holds more than one log: several replicas may live in one process. It is
// importable, but its API is not promised to other modules.
package replica
