// Package balance decides which of several upstreams gets the next read.
//
// A Policy turns a list of candidates into a Picker; the list a Picker was built
// from never changes, so when the candidates do, a new Picker is built. Build
// is cheap, and Pick neither blocks nor allocates: both are on the way of a request.
//
// Invariant: Pick answers an index into the list its Picker was built from, never
// one that skip refused, and answers ok when any candidate is left that skip does
// not refuse (policy "leader" excepted: it has no candidates at all).
//
// The proxy's route.Table calls it, and clients that balance for themselves may.
// It never dials, never measures, and never learns which node leads.
//
// The package is promised to importers.
package balance
