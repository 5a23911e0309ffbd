// Package apierr is the wire vocabulary of logd's errors, in both directions.
//
// Every error a node or a proxy answers on purpose is one of the typed values
// here. On the wire it is a gRPC status with a google.rpc.ErrorInfo whose domain
// is "logd" and whose reason is one of the Reason constants, so that a caller
// decides by reason and never by the code alone. From turns a status back.
//
// The invariant: for every kind, From(kind).Err() is the same value again.
//
// The server makes these values from domain errors; proxies and clients read
// them. The package never logs and knows nothing of the domain packages.
package apierr
