// Package agent is a logd process without its command line: it composes the
// replicated log, gossip, bootstrap, autopilot, the RPC server and the admin
// server out of one configuration, opens them in order, runs them, and releases
// them in reverse.
//
// Invariant: a node announces itself as able to serve only when it is, and it
// joins a cluster only through promises or an authenticated Join.
//
// Its callers are cmd/logd and devcluster. It never exits the process: a fatal
// fault is what Run returns.
package agent
