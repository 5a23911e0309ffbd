package static

import (
	"context"
	"fmt"
	"net"
	"slices"

	"github.com/logd-io/logd/pkg/discovery"
)

// Source is a fixed list of addresses.
type Source struct{ set []discovery.Node }

// New makes a Source of host:port addresses. The first that is not one is the
// error.
func New(addrs []string) (*Source, error) {
	set := make([]discovery.Node, 0, len(addrs))
	for _, a := range addrs {
		host, port, err := net.SplitHostPort(a)
		if err != nil {
			return nil, fmt.Errorf("static node %q: %w", a, err)
		}
		if host == "" || port == "" {
			return nil, fmt.Errorf("static node %q: want host:port", a)
		}
		set = append(set, discovery.Node{RPCAddr: a})
	}
	return &Source{set: discovery.Set(set)}, nil
}

// Run implements discovery.Source.
func (s *Source) Run(ctx context.Context, up chan<- []discovery.Node) error {
	if err := discovery.Send(ctx, up, slices.Clone(s.set)); err != nil {
		return err
	}
	<-ctx.Done()
	return context.Cause(ctx)
}
