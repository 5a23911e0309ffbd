// Package server is what a node answers on its RPC port: the services log.v1.Log
// and node.v1.Node over mutual TLS, and the hand-over of Raft's connections,
// which come to the same port.
//
// Invariants. A record leaves with the offset the log gave it and never with
// what a client wrote into offset, term or type: those three fields are taken out
// of every record before it is submitted, and the offset is put behind the stored
// bytes on the way out. Batches of one stream are submitted in the order they
// came and acknowledged in that order; the first that is refused ends the stream
// after the acknowledgements before it. A caller's identity is read from its
// certificate once a connection, and every method names the roles it takes.
//
// The agent makes one Server a node. status.go is the one place where domain
// errors become statuses. The package never touches Raft or the disk itself, never
// retries, and starts no goroutine before Serve.
//
// Not promised to importers outside this repository.
package server
