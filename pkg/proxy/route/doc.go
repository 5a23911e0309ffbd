// Package route is the one thing the proxy's control path and data path share: who
// leads, who may be read from, and how to reach them.
//
// Invariant: a Table and everything it holds stay as they are once it is
// published; control builds a whole new one instead. A request loads one Table,
// picks once, and is never stopped by a newer one; it may ask to be told of it.
//
// control publishes, forward and the proxy's composition load. The package
// decides nothing: it never ejects, dials or compares terms.
package route
