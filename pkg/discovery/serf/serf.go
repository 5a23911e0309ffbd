package serf

import (
	"context"
	"slices"

	"github.com/logd-io/logd/pkg/discovery"
	"github.com/logd-io/logd/pkg/membership"
)

// Gossip is what the source needs of a membership.Gossip.
type Gossip interface {
	// Members answers all members; it is not changed.
	Members() []membership.Member
	// Changes answers a channel that is closed when Members differs from what it
	// was at the call.
	Changes() <-chan struct{}
}

// Source follows a Gossip.
type Source struct{ gossip Gossip }

// New makes a Source.
func New(g Gossip) *Source { return &Source{gossip: g} }

// Run implements discovery.Source. While no storage member is known it says
// nothing.
func (s *Source) Run(ctx context.Context, up chan<- []discovery.Node) error {
	var last []discovery.Node
	for {
		changed := s.gossip.Changes()
		if set := nodes(s.gossip.Members()); len(set) > 0 && !slices.Equal(set, last) {
			last = slices.Clone(set)
			if err := discovery.Send(ctx, up, set); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func nodes(members []membership.Member) []discovery.Node {
	var set []discovery.Node
	for _, m := range members {
		if m.Role == membership.RoleStorage && m.State != membership.Left {
			set = append(set, discovery.Node{ID: m.ID, RPCAddr: m.RPCAddr})
		}
	}
	return discovery.Set(set)
}
