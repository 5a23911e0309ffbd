// Package autopilot decides who becomes a voter: a node that joined as a
// non-voter is promoted once it has been caught up and healthy for a while
// (hashicorp/raft-autopilot).
//
// Invariant: it only ever adds votes. A member that failed, left or was never
// seen in gossip stays in Raft's configuration until an operator removes it, and
// a proxy is never a candidate, whatever it says about itself.
//
// The agent runs one Pilot a node; it works while the node leads. It never
// decides who may join: that is the RPC server's, with a certificate.
//
// Importable, not promised.
package autopilot
