// Package forward is the proxy's data path: it answers log.v1.Log downstream and
// speaks node.v1.Node upstream.
//
// Invariant: a record a client was told is appended is in the log once, at the
// offset told; a record of unknown outcome is never sent again under another
// sequence number; and the offsets a consume stream delivers are consecutive,
// whichever nodes they come from. DESIGN.md has the rest, numbered.
//
// The proxy's composition makes one Forwarder and registers it with a gRPC server
// made with ServerCodec. Routing comes in as immutable route.Tables; what forward
// learns on the way goes out through Hints and never waits.
//
// It never decides who leads, never dials, never re-encodes a record, and never
// passes a client's metadata on.
package forward
