// Package registrar keeps a node's member in a serverset while the node is ready.
//
// Invariant: a member is there only while the node says that it is ready, or until its
// session has timed out where nobody could be told otherwise; and whatever fails here
// is counted, said and tried again, and never the node's trouble.
//
// The agent makes a Registrar over zk.Dial and tells it of readiness. Who reads the
// serverset is not its affair: package zk does for proxies.
package registrar
