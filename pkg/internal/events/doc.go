// Package events keeps what has happened lately in a process, for people: a leader
// that changed, a hold that is over, a certificate that was read again.
//
// Invariant: a Log takes bounded memory whatever is added, ids only grow, also from one
// run of the process to the next, and adding never waits for who reads.
//
// Whoever knows of a change adds it; the admin page and `logproxy status -watch` read.
// What happens once a call is never an event: it is counted, and told once a second.
// Events are no audit: old ones go, and none survives the process.
package events
