// Package throttle bounds what each principal produces, reads and asks a second.
//
// A principal past a rate is slowed down and nobody else is: rates are counted by
// principal. A stream is made to wait, which is back-pressure and keeps its order; a
// call, which could only wait by holding on to what it has sent, is refused before it
// does anything, with the time after which it may come again. What is read is counted
// when its size is known, after the fact: who has read too much waits before the next
// read.
//
// Each rate has a second of its own in store, and of bytes at least [leastStore], so
// that one message always fits.
//
// Invariant: principals are remembered in bounded memory, and one that is forgotten
// had nothing to remember: its stores were full. Those that come when there is no
// place share one account.
//
// Rates may be changed at any time. Where none are set a *Throttle costs a load, and a
// nil one a comparison.
//
// Used by a node's server and by a proxy. It starts no goroutine.
package throttle
