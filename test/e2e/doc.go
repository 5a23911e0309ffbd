// Package e2e tests the built binaries from outside: three nodes and a proxy,
// killed, paused and restarted under load, and every record then looked for on
// every node. It also holds the named tests of the defects of prior art that
// can only be seen from outside, and what bad input does.
//
// The tests that put every process on a test host of its own, in a network
// namespace or a container, and those that run what README.md shows, need root or
// docker; they carry the build tag system. Tests that wait for most of their time, for
// heartbeats and for processes that start, are t.Parallel(): two at a time take little
// more of two cores than one.
package e2e
