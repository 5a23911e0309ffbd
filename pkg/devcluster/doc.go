// Package devcluster runs storage nodes and a proxy in one process, with
// certificates made on the spot: what `logd dev` is, and what a Go test wants
// that needs a real cluster.
//
// Invariant: a node that is killed is cut off as by a crash and keeps its data
// directory, so that it can be revived on the same addresses; nothing of a
// closed cluster is left running.
//
// It composes agent and proxy and adds nothing to what they promise. It is the
// only package but cmd/logd that sees both.
//
// Promised to importers.
package devcluster
