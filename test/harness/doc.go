// Package harness runs a cluster of the built binaries on this machine, each
// node and proxy a process of its own with its own loopback address, and lets a
// test kill, pause and restart them.
//
// Every process it starts is waited for, and ended by its own pid when the
// cluster closes. It is used by the end-to-end tests, the demo and the
// benchmarks; nothing that ships imports it.
package harness
