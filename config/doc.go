// Package config is what an operator may decide about a logd node or a logproxy:
// structs with their HCL names, the defaults, loading, and the verdict on it all.
//
// Invariant: a configuration that LoadNode or LoadProxy returns has passed
// Validate, and one that has not comes back with every problem it has, each
// under its HCL path and, where a file said it, with file and line.
//
// cmd/logd, cmd/logproxy, the two compositions and the tests that load the
// shipped examples use it. It never opens a listener, dials, or reads anything
// but the files it was pointed at; it imports nothing else of this module.
// The package is importable and not promised to stay as it is.
package config
