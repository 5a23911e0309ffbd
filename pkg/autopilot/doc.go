// Package autopilot decides who becomes a voter, and who is one no more: a node that
// joined as a non-voter is promoted once it has been caught up and healthy for a while
// (hashicorp/raft-autopilot), and one that gossip does not see alive, and that has not
// answered, for a long time leaves when another does its part (our own rule, see cleanup).
//
// Invariant: a removal never leaves fewer healthy voters than were needed, nor takes a
// majority's worth at a time. Who merely failed, or is merely not seen in gossip, stays
// in Raft's configuration, and a proxy is never a candidate, whatever it says about itself.
//
// The agent runs one Pilot a node; it works while the node leads. It never
// decides who may join: that is the RPC server's, with a certificate.
//
// Importable, not promised.
package autopilot
