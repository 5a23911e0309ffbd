// Package netlimit bounds how many connections others can make a process hold.
//
// A process without a file descriptor left cannot open a segment either, and
// connecting takes no certificate. So connections are counted in two groups. One
// that has not shown who it is may be closed for a newer one: what is silent
// gives way, and who means it gets in even during a flood. One that has shown it
// is never closed for others; beyond the limit the newcomer is turned away.
//
// Invariant: of the connections that came through a Newest and were neither kept
// nor closed, at most its limit are open.
//
// Used by every listener; it starts no goroutine and knows nothing of protocols.
package netlimit
