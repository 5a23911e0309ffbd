// Package static is the discovery source of a list written by hand.
//
// The list may be shorter than the cluster: the nodes it names tell of the others.
// It has addresses only, host names included, which are looked up on each
// connection and never here. The proxy's composition makes it from configuration.
//
// The package is promised to importers.
package static
