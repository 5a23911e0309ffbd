// Package membership knows who is in the cluster, by gossip (hashicorp/serf).
//
// What it says is a hint. Gossip is protected by one key that all members
// share, so a member can claim anything; who somebody is stands in its
// certificate, and who leads is known from Raft. A failed member may be alive
// behind a cut link, a live one may be about to die.
//
// Invariant: Members returns an immutable value, sorted by id, that is at least
// as new as the last close of the channel from Changes; a member that fails is
// kept as Failed, and becomes Left only when it said so or an operator did.
//
// Keys change on all members at once (keyring.go): one is used only when everybody
// who is alive has it, and forgotten only when nobody encrypts with it.
//
// Who is a member is kept in a file (snapshot.go), for a start while nobody that is
// configured answers.
//
// Agents of nodes and proxies call it, and package discovery/serf. It never
// touches Raft, never blocks a caller on the network except in Join and Leave,
// and never exits the process: when gossip ends by itself (another process uses
// the same id), Run returns the reason.
//
// Importable, not promised.
package membership
