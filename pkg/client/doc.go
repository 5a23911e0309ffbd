// Package client is a small Go client of log.v1: it produces in a pipeline,
// consumes from an offset on, and asks where the log begins and ends.
//
// Invariant: what it reports as acknowledged, a server acknowledged; it never
// repeats a request by itself, since behind a proxy that is the proxy's work.
//
// The commands use it, and it is promised to importers. It speaks to one
// address, a sidecar's or a node's; it does not balance.
package client
