package agent

import (
	"context"

	"github.com/logd-io/logd/pkg/membership"
	"github.com/logd-io/logd/pkg/replica"
)

// Status is what /api/status of the admin server shows.
type Status struct {
	ID        string   `json:"id"`
	Version   string   `json:"version"`
	ClusterID string   `json:"cluster_id,omitempty"`
	State     string   `json:"state"` // idle, follower, candidate, leader, shutdown
	Term      uint64   `json:"term"`
	LeaderID  string   `json:"leader_id,omitempty"`
	Ready     bool     `json:"ready"`
	Reasons   []string `json:"reasons"`     // why not ready
	Visible   uint64   `json:"next_offset"` // the readable range is [lowest, next)
	Lowest    uint64   `json:"lowest_offset"`
	LogBytes  int64    `json:"log_bytes"`
	Damaged   uint64   `json:"damaged_entries"`   // not readable here; to be repaired from peers
	Repairs   string   `json:"repairs,omitempty"` // what a repair under way waits for
	Scrubbed  uint64   `json:"scrubbed_bytes"`    // since the node was started
	Scrubs    uint64   `json:"scrub_passes"`
	DiskFree  uint64   `json:"disk_free_bytes"` // that may still be written
	DiskLow   bool     `json:"disk_low"`        // below the reserve
	Addrs     Addrs    `json:"addresses"`
	Member    string   `json:"member,omitempty"` // where this node is registered, besides gossip
	Members   []Member `json:"members"`
}

// Member is one member of gossip.
type Member struct {
	ID       string `json:"id"`
	Role     string `json:"role"`
	State    string `json:"gossip"` // as that sees it: alive, failed, left
	Address  string `json:"address,omitempty"`
	Voter    bool   `json:"voter"` // in the Raft configuration, with a vote
	Draining bool   `json:"draining"`
	Version  string `json:"version,omitempty"`
}

func (a *Agent) status() Status {
	v, st := a.replica.View(), a.replica.Stats()
	voter := make(map[string]bool, len(v.Peers))
	for _, p := range v.Peers {
		voter[p.ID] = p.Voter
	}
	s := Status{
		ID: a.id, Version: a.deps.Version, ClusterID: v.ClusterID, State: string(v.State), Term: v.Term, LeaderID: v.LeaderID,
		Reasons: append([]string{}, a.NotReady()...), Visible: st.Visible, Lowest: st.Lowest, LogBytes: st.LogBytes,
		Damaged: st.Damaged, Repairs: a.replica.WaitsFor(), Scrubbed: st.Scrub.Bytes, Scrubs: st.Scrub.Passes,
		DiskFree: st.DiskFree, DiskLow: st.DiskLow, Addrs: a.addrs, Member: a.member(), Members: []Member{},
	}
	s.Ready = len(s.Reasons) == 0
	for _, m := range a.gossip.Members() {
		addr := m.RPCAddr
		if m.Role != membership.RoleStorage || addr == "" {
			addr = m.GossipAddr
		}
		s.Members = append(s.Members, Member{
			ID: m.ID, Role: string(m.Role), State: m.State.String(), Address: addr,
			Voter: voter[m.ID], Draining: m.Draining, Version: m.Version,
		})
	}
	return s
}

// NotReady is why this node cannot serve, a reason a line; empty when it can.
func (a *Agent) NotReady() []string {
	v := a.replica.View()
	switch {
	case v.ClusterID == "" || !a.replica.HasState() && v.State != replica.StateIdle:
		return []string{"in no cluster yet: " + a.waiting()}
	case v.Draining:
		return []string{"draining"}
	case v.State == replica.StateIdle && a.replica.WaitsFor() != "":
		return []string{"repairing: " + a.replica.WaitsFor()}
	}
	if why := a.refused.Load(); why != nil {
		return []string{"not part of the cluster any more: " + *why}
	}
	if !v.Ready {
		return []string{"has not caught up with a leader since it started" + a.alone()}
	}
	return nil
}

// Follow calls f at once and whenever NotReady may answer otherwise, until ctx ends;
// what a repair waits for alone is no occasion. It has one caller at a time.
func (a *Agent) Follow(ctx context.Context, f func()) {
	for {
		changed := a.replica.Changes()
		f()
		select {
		case <-changed:
		case <-a.said:
		case <-ctx.Done():
			return
		}
	}
}

// alone says so, when gossip knows no other node that is alive.
func (a *Agent) alone() string {
	for _, m := range a.gossip.Members() {
		if m.ID != a.id && m.Role == membership.RoleStorage && m.State == membership.Alive {
			return ""
		}
	}
	why := "; no other node is alive in gossip (retry_join)"
	if err := a.gossip.Refused(); err != nil {
		why += ": " + err.Error()
	}
	return why
}

// Addr is host:port of the RPC listener as bound.
func (a *Agent) Addr() string { return a.addrs.RPC }

// GossipAddr is host:port of gossip as bound.
func (a *Agent) GossipAddr() string { return a.addrs.Gossip }

// AdminAddr is host:port of the admin server as bound.
func (a *Agent) AdminAddr() string { return a.addrs.Admin }

// View is the cluster as this node sees it.
func (a *Agent) View() replica.View { return a.replica.View() }
