// Package benchkit is what the benchmark commands have in common: flags, rounds
// in which everything that is compared has its turn, load, and the lines that
// goals end in.
//
// It needs nothing but the standard library, since the commands that measure
// logd beside its peers are modules of their own.
package benchkit
