package agent

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"time"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/autopilot"
	"github.com/logd-io/logd/pkg/membership"
)

func (a *Agent) openGossip() error {
	bind, err := a.reuse(a.cfg.GossipAddr(), func(old Addrs) string { return old.Gossip })
	if err != nil {
		return err
	}
	// The port may be the system's choice: gossip puts in the one it got.
	host, err := a.cfg.AdvertiseHost()
	if err != nil {
		return err
	}
	keys, err := a.cfg.GossipKeys()
	if err != nil {
		return err
	}
	rpc, err := a.advertised(a.addrs.RPC)
	if err != nil {
		return err
	}
	a.gossip, err = membership.Open(membership.Config{
		ID:            a.id,
		Role:          membership.RoleStorage,
		BindAddr:      bind,
		AdvertiseAddr: net.JoinHostPort(host, "0"),
		Label:         a.tls.Identity().Cluster,
		Key:           keys[0],
		OtherKeys:     keys[1:],
		KeyringPath:   filepath.Join(a.cfg.DataDir, "gossip.keyring"),
		RetryJoin:     a.cfg.RetryJoin,
		SnapshotPath:  filepath.Join(a.cfg.DataDir, "gossip.snapshot"),
		Tags: membership.Tags{
			RPCAddr:  rpc,
			HasState: a.replica.HasState(),
			Expect:   a.cfg.BootstrapExpect,
			Version:  a.deps.Version,
			Cluster:  a.replica.View().ClusterID,
		},
		Ask:        a.askRival,
		Outvoted:   a.outvoted,
		Gone:       a.gone,
		Logger:     a.logger.Named("gossip"),
		Registerer: a.deps.Registry,
	})
	if err != nil {
		return err
	}
	a.open.push(a.gossip)
	a.addrs.Gossip = a.gossip.Addr()
	return nil
}

// forgetEvery is the time between two tries to have gossip forget a node.
const forgetEvery = 5 * time.Second

// forget has gossip forget, while this node leads, the storage nodes that have failed and
// are not in Raft's configuration: they were removed, by an operator, by themselves or by
// autopilot, and their ids never come back. Otherwise every proxy would hold them for
// nodes that are down, for days.
func (a *Agent) forget(ctx context.Context) error {
	retry := time.NewTicker(forgetEvery)
	defer retry.Stop()
	for {
		gossip, raft := a.gossip.Changes(), a.replica.Changes()
		if v := a.replica.View(); v.IsLeader && v.Ready {
			for _, m := range a.gossip.Members() {
				if m.State != membership.Failed || m.Role != membership.RoleStorage || m.Cluster != v.ClusterID || !a.gone(m.ID) {
					continue
				}
				if ctx.Err() != nil {
					return nil // each takes seconds
				}
				a.logger.Info("gossip forgets a node that was removed", "node", m.ID)
				if err := a.gossip.Forget(m.ID); err != nil && ctx.Err() == nil {
					a.logger.Warn("gossip still knows a node that was removed; trying again", "node", m.ID, "err", err)
				}
			}
		}
		select {
		case <-gossip:
		case <-raft:
		case <-retry.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (a *Agent) openAutopilot() error {
	a.pilot = autopilot.New(autopilot.Config{
		ID:      a.id,
		Replica: a.replica,
		Members: a.gossip.Members,
		Stats:   a.health,

		KeepDead:  !a.cfg.Autopilot.CleanupDeadServers,
		Grace:     a.cfg.Autopilot.DeadServerGrace,
		MinQuorum: a.cfg.Autopilot.MinQuorum,

		Logger: a.logger,
	})
	return nil
}

// autopilotState is what this node thinks of the servers while it leads.
func (a *Agent) autopilotState() *nodev1.Autopilot {
	st := a.pilot.State()
	if st == nil {
		return nil
	}
	out := &nodev1.Autopilot{Healthy: st.Healthy, FailureTolerance: uint32(max(st.FailureTolerance, 0))}
	for _, h := range st.Servers {
		out.Servers = append(out.Servers, serverHealth(h))
	}
	return out
}

func serverHealth(h autopilot.Server) *nodev1.ServerHealth {
	contact := int64(-1) // less than a millisecond below 0 would be 0
	if h.LastContact >= 0 {
		contact = h.LastContact.Milliseconds()
	}
	return &nodev1.ServerHealth{
		Id: h.ID, Voter: h.Voter, Leader: h.Leader, Gossip: h.Gossip, Healthy: h.Healthy,
		StableMs: h.Stable.Milliseconds(), LastContactMs: contact,
		LastIndex: h.LastIndex, LastTerm: h.LastTerm, DeadMs: h.Dead.Milliseconds(),
	}
}

// answers asks another node whether it is there, under that id.
func (a *Agent) answers(ctx context.Context, id string) error {
	_, err := a.health(ctx, id)
	return err
}

// health asks another node what autopilot wants to know of it, and what its
// clock is, which retention by age wants to know.
func (a *Agent) health(ctx context.Context, id string) (autopilot.Stats, error) {
	sent := time.Now()
	st, err := a.stats(ctx, id)
	switch {
	case apierr.Answered(err):
		return autopilot.Stats{}, fmt.Errorf("stats of %s: %w: %w", id, autopilot.ErrRefused, err)
	case err != nil:
		return autopilot.Stats{}, fmt.Errorf("stats of %s: %w", id, err)
	}
	if got := st.GetNodeId(); got != id { // a new node under the old name and address
		return autopilot.Stats{}, fmt.Errorf("stats of %s: %s answered", id, got)
	}
	if ns := st.GetClockUnixNano(); ns != 0 {
		a.replica.NoteClock(id, time.Unix(0, ns), sent, time.Now())
	}
	contact := time.Duration(st.GetLastContactMs()) * time.Millisecond
	return autopilot.Stats{LastContact: contact, LastIndex: st.GetLastIndex(), LastTerm: st.GetLastTerm()}, nil
}
