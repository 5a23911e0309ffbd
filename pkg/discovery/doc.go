// Package discovery is where the set of storage nodes comes from.
//
// Invariant: a Source sends whole sets, each sorted by address and id and without
// duplicates, and after a failure says nothing rather than something smaller:
// what it sent last stays good.
//
// The proxy's control runs the sources and merges their sets. A source knows
// addresses and nothing else: who leads and who is healthy is asked of the nodes.
//
// The package is promised to importers. Its sources are packages of their own:
// serf (gossip), static (a list), dns (a name) and zk (a serverset in ZooKeeper).
package discovery
