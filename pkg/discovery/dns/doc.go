// Package dns is the discovery source that looks a name up: its addresses with a
// port, or the hosts and ports of its SRV records.
//
// Invariant: an answer that is empty or fails changes nothing, NXDOMAIN too.
//
// The name is looked up at an interval, and sooner after a failure. Go's resolver does
// not tell how long an answer is good for, so the interval is the operator's to choose.
// The proxy's composition makes a Source.
//
// The package is promised to importers.
package dns
