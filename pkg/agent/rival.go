package agent

import (
	"context"
	"net"
	"sync"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/membership"
	"github.com/logd-io/logd/pkg/replica"
)

// askRival tells who answers at another address where gossip has this node's id. Who
// has its certificate and its id, and is another process, is a copy of its data
// directory, or itself as it was before it was moved, still running.
func (a *Agent) askRival(ctx context.Context, c membership.Claim) membership.Answer {
	// A name may lead to either of the two; the address that gossip has does not.
	host, _, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return membership.NoAnswer
	}
	_, port, err := net.SplitHostPort(c.RPCAddr)
	if err != nil {
		return membership.NoAnswer
	}
	var st *nodev1.StatsResponse
	err = a.call(ctx, net.JoinHostPort(host, port), replica.NameOf(a.id), func(ctx context.Context, c nodev1.NodeClient) (err error) {
		st, err = c.Stats(ctx, &nodev1.StatsRequest{})
		return err
	})
	switch {
	case err != nil:
		a.logger.Debug("nobody answers by this node's name", "at", c.Addr, "err", err)
		return membership.NoAnswer
	case st.GetNodeId() != a.id: // a new node under the name
		return membership.NoAnswer
	case st.GetProcess() == a.process:
		return membership.Myself
	}
	return membership.Another
}

// outvoted tells whether more of the other storage nodes know this node's id at the
// address of c than at its own.
func (a *Agent) outvoted(ctx context.Context, c membership.Claim) bool {
	own := a.address(a.id)
	if c.RPCAddr == own { // one name for both
		return false
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	here, there := 0, 0 // guarded by mu
	for _, m := range a.gossip.Members() {
		if m.ID == a.id || m.Role != membership.RoleStorage || m.State != membership.Alive {
			continue
		}
		wg.Go(func() {
			st, err := a.stats(ctx, m.ID)
			if err != nil || st.GetNodeId() != m.ID {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, p := range st.GetPeers() {
				switch {
				case p.GetId() != a.id:
				case p.GetRpcAddr() == own:
					here++
				case p.GetRpcAddr() == c.RPCAddr:
					there++
				}
			}
		})
	}
	wg.Wait()
	return there > here
}
