// Package upstream keeps the proxy's gRPC connection to each node.
//
// Invariant: at any time a node id has at most one Node in the Pool, and that Node
// has one connection, to one address, for life, and others to it only while it carries
// many streams; a node that moves gets a new Node. What was taken from the Pool stays
// usable until its calls are done.
//
// control decides which nodes there are and reads their connection's state;
// forward calls through them, by way of route.Table. The package never decides
// who leads, who is healthy or what is retried: a call that fails, fails.
package upstream
