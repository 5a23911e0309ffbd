// Package discoverytest is the suite that every discovery.Source must pass.
//
// It holds what control relies on: whole sets, in order, and an end that comes
// when it is asked for. Tests call it; it is never linked into a program.
package discoverytest
