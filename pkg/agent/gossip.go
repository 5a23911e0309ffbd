package agent

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"time"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
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
		out.Servers = append(out.Servers, &nodev1.ServerHealth{
			Id: h.ID, Voter: h.Voter, Leader: h.Leader, Gossip: h.Gossip, Healthy: h.Healthy,
			StableMs: h.Stable.Milliseconds(), LastContactMs: h.LastContact.Milliseconds(),
			LastIndex: h.LastIndex, LastTerm: h.LastTerm, DeadMs: h.Dead.Milliseconds(),
		})
	}
	return out
}

// health asks another node what autopilot wants to know of it, and what its
// clock is, which retention by age wants to know.
func (a *Agent) health(ctx context.Context, id string) (autopilot.Stats, error) {
	sent := time.Now()
	st, err := a.stats(ctx, id)
	if err != nil {
		return autopilot.Stats{}, fmt.Errorf("stats of %s: %w", id, err)
	}
	if ns := st.GetClockUnixNano(); ns != 0 {
		a.replica.NoteClock(id, time.Unix(0, ns), sent, time.Now())
	}
	contact := time.Duration(st.GetLastContactMs()) * time.Millisecond
	return autopilot.Stats{LastContact: contact, LastIndex: st.GetLastIndex(), LastTerm: st.GetLastTerm()}, nil
}
