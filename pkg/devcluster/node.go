package devcluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/pkg/agent"
)

// running is the node's agent, nil while it is killed.
func (n *Node) running() *agent.Agent {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.agent
}

// Running tells whether the node is up.
func (n *Node) Running() bool { return n.running() != nil }

// Agent is the node itself, nil while it is killed.
func (n *Node) Agent() *agent.Agent { return n.running() }

// Config is the configuration the node runs with.
func (n *Node) Config() config.Node { return n.config }

// Addr is host:port of its RPC listener, "" while it is killed.
func (n *Node) Addr() string {
	if a := n.running(); a != nil {
		return a.Addr()
	}
	return ""
}

// Revive starts a node that does not run, on the data and addresses it had.
func (n *Node) Revive() error {
	others := n.cluster.gossip(n)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.agent != nil {
		return fmt.Errorf("%s runs already", n.Name)
	}
	conf := n.config
	conf.RetryJoin = others
	a, err := agent.Open(conf, agent.Deps{
		Logger:   n.cluster.opt.Logger.Named(n.Name),
		Registry: n.cluster.opt.registry(n.Name),
		Tracing:  n.cluster.opt.tracing(n.Name),
		Version:  n.cluster.opt.Version,
		FS:       n.cluster.opt.Disks[n.Name],
		Listen:   n.link.listen,
		Dial:     n.link.dial,
		Clock:    n.cluster.opt.Clocks[n.Name],
	})
	if err != nil {
		return fmt.Errorf("devcluster: %s: %w", n.Name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	n.agent, n.end, n.ended = a, cancel, ended
	n.cluster.wg.Go(func() {
		defer close(ended)
		err := a.Run(ctx)
		if errors.Is(err, agent.ErrClosed) {
			return // killed
		}
		n.cluster.note(n.Name, err)
		n.cluster.note(n.Name, a.Close())
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.agent == a {
			n.agent = nil
		}
	})
	return nil
}

// Kill cuts the node off as a crash would. Its data stays.
func (n *Node) Kill() error {
	n.mu.Lock()
	a, ended := n.agent, n.ended
	n.agent = nil
	n.mu.Unlock()
	if a == nil {
		return fmt.Errorf("%s does not run", n.Name)
	}
	err := a.Close()
	<-ended
	return err
}

// Stop ends the node gently, as SIGTERM does: it hands leadership on and lets
// calls finish. It does nothing to a node that does not run.
func (n *Node) Stop() {
	n.mu.Lock()
	a, end, ended := n.agent, n.end, n.ended
	n.mu.Unlock()
	if a == nil {
		return
	}
	end()
	<-ended
}

// Partition breaks what connects the node with the others and with proxies, but
// for gossip. Heal mends it.
func (n *Node) Partition() { n.link.cut() }

// Heal ends a Partition.
func (n *Node) Heal() { n.link.heal() }

// Lag makes everything the other nodes send to this one come d late, each message
// for itself, so that it follows at that distance. What it sends, and what proxies
// and clients send to it, is not delayed. 0 ends it.
func (n *Node) Lag(d time.Duration) {
	if addr := n.Addr(); d > 0 {
		n.cluster.lags.Store(addr, d)
	} else {
		n.cluster.lags.Delete(addr)
	}
}

// Partitioned tells whether the node is cut off.
func (n *Node) Partitioned() bool { return n.link.isDown() }
