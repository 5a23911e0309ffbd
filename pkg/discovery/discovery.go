package discovery

import (
	"cmp"
	"context"
	"slices"
)

// Node is a storage node as a source knows it.
type Node struct {
	// ID is empty when the source knows only an address; the node is then asked.
	ID string
	// RPCAddr is host:port of its RPC listener.
	RPCAddr string
}

// Source is one origin of the node set.
type Source interface {
	// Run sends the set on up, at once if it is known and whenever it changes,
	// until ctx ends, and then answers context.Cause(ctx). A sent set belongs to
	// the receiver. Another error means that the source is over for good.
	Run(ctx context.Context, up chan<- []Node) error
}

// Set sorts nodes by address and id and drops duplicates and entries without an
// address. It works in place and answers the shortened slice.
func Set(nodes []Node) []Node {
	nodes = slices.DeleteFunc(nodes, func(n Node) bool { return n.RPCAddr == "" })
	slices.SortFunc(nodes, func(a, b Node) int {
		return cmp.Or(cmp.Compare(a.RPCAddr, b.RPCAddr), cmp.Compare(a.ID, b.ID))
	})
	return slices.Compact(nodes)
}

// Send sends set on up unless ctx ends first.
func Send(ctx context.Context, up chan<- []Node, set []Node) error {
	select {
	case up <- set:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
