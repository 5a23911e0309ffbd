// Package smart is a client that balances by itself, in the way of the client of the
// book "Distributed Services with Go": a gRPC resolver asks GetServers, and a picker
// sends produces to the leader and consumes to the followers in turn.
//
// It is a stranger on purpose: it knows log.v1 and plain TLS, and nothing of ours
// besides. Tests hold with it what such a client meets at a cluster and at a
// proxy; nothing that ships imports it.
package smart
