package autopilot

import (
	"slices"
	"strings"
	"time"

	lib "github.com/hashicorp/raft-autopilot"

	"github.com/logd-io/logd/pkg/replica"
)

// State is what a leader thinks of the servers in the configuration.
type State struct {
	Healthy          bool // all of them are
	FailureTolerance int  // so many voters may fail, and the cluster goes on
	Servers          []Server
}

// Server is one server as the leader sees it.
type Server struct {
	ID          string
	Voter       bool
	Leader      bool
	Gossip      string // alive, failed or unknown
	Healthy     bool
	Stable      time.Duration // since Healthy changed
	LastContact time.Duration // since it heard of the leader, by its own word; negative: it gave none
	LastIndex   uint64
	LastTerm    uint64
	Dead        time.Duration // since it was found dead; 0: it is not
}

// State is what this node found when it looked last, or nil while it does not lead.
func (p *Pilot) State() *State { return p.state.Load() }

func stateOf(now time.Time, peers []replica.Peer, st *lib.State, stable *stability, dead *cleanup) *State {
	out := &State{Healthy: st.Healthy, FailureTolerance: st.FailureTolerance}
	health := healthOf(st)
	for _, p := range peers {
		s := Server{ID: p.ID, Voter: p.Voter, Gossip: string(lib.NodeUnknown), LastContact: -1}
		if h := health[p.ID]; h != nil {
			s.Leader = h.State == lib.RaftLeader
			s.Gossip = string(h.Server.NodeStatus)
			s.Healthy, s.Stable = h.Health.Healthy, stable.of(now, p.ID)
			if h.Stats != (lib.ServerStats{}) { // which the library has of one that never answered
				s.LastContact, s.LastIndex, s.LastTerm = h.Stats.LastContact, h.Stats.LastIndex, h.Stats.LastTerm
			}
		}
		if since, ok := dead.since[p.ID]; ok {
			s.Dead = max(now.Sub(since), 1)
		}
		out.Servers = append(out.Servers, s)
	}
	slices.SortFunc(out.Servers, func(a, b Server) int { return strings.Compare(a.ID, b.ID) })
	return out
}
