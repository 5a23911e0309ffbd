// Package deptest reads the import graph of the module and finds out who reaches
// whom, so that its test can hold the import rules of ARCHITECTURE.md.
//
// Invariant: the graph is that of what ships, imports of tests left out, as the
// go command sees it on this platform without cgo; a path it reports is a
// shortest one.
//
// Only its own test uses it. It never looks at what a package does, only at its
// name, its imports and its comment.
package deptest
