// Package serf is the discovery source that listens to gossip.
//
// It tells the storage members that have not left, failed ones too: that gossip
// does not reach a node is no reason to believe that we do not, and whether it
// answers is found out by asking it. The proxy's composition makes it from its
// membership.Gossip. It never joins, and never says who leads.
//
// The package is promised to importers.
package serf
