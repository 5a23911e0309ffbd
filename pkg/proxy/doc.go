// Package proxy is logproxy put together: certificates, gossip, discovery, control, the data
// path, the listener for clients and the admin server, with one life.
//
// Invariants:
//
//   - Without TLS it listens on loopback addresses and unix sockets only, by what
//     was really bound.
//   - No call of a client reaches node.v1, or any gRPC service of a node; no
//     metadata of a client reaches a node that only a proxy may set.
//   - Run drains before it returns, in this order: health says NOT_SERVING, drain_delay
//     passes, in which calls are served as before, no more is accepted, GOAWAY, calls finish, what is left of them at the end of
//     drain_timeout is ended, then the connections to the nodes close, then gossip
//     is left. What serves a call outlives the call.
//
// cmd/logproxy and devcluster open and run it. It decides nothing about routes
// (control) and handles no record (forward). It imports nothing of a node.
package proxy
