// Package bootstrap has storage nodes without state agree, once, on the uuid and
// the first configuration of their cluster.
//
// Two nodes that bootstrap different lists of servers are a split brain Raft
// cannot see. So nobody bootstraps on what gossip says. The smallest id among
// exactly bootstrap_expect nodes without state, the initiator, makes up a uuid
// and asks each of the others for a promise to (uuid, list); with all promises
// it bootstraps itself, and the others learn the configuration by replication.
//
// Invariants:
//
//	I1  A node makes one promise, ever, and it is on disk before anybody hears
//	    of it. The initiator makes its own first.
//	I2  Only the initiator of a promise bootstraps, exactly that list under
//	    exactly that uuid, and only after every server on the list has promised.
//	I3  A node with state promises nothing and bootstraps nothing.
//
// From I1 and I2: two bootstraps that share a server are the same one.
//
// The agent calls it, and gives it the network, Raft and what gossip knows as
// small interfaces; the server passes requests for promises on to Grant, after
// checking that the request comes from its initiator. It never removes a promise
// by itself: Forget is for an operator.
//
// Importable, not promised.
package bootstrap
