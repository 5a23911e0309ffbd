package autopilot

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	lib "github.com/hashicorp/raft-autopilot"

	"github.com/logd-io/logd/pkg/membership"
	"github.com/logd-io/logd/pkg/replica"
)

// delegate is how the library sees this cluster.
type delegate struct {
	cfg    Config
	stable *stability
	states chan *lib.State // room for one: the newest that nobody has looked at
}

// AutopilotConfig leaves the library's removal of dead servers off, since it also takes
// for dead what gossip has merely not seen: cleanup has our own rule.
func (d *delegate) AutopilotConfig() *lib.Config {
	return &lib.Config{
		CleanupDeadServers:      false,
		LastContactThreshold:    maxContact,
		MaxTrailingLogs:         maxTrailing,
		ServerStabilizationTime: d.cfg.Stabilization,
	}
}

// NotifyState passes on what the library found. It is called by one goroutine.
func (d *delegate) NotifyState(st *lib.State) {
	d.stable.note(time.Now(), st)
	select {
	case <-d.states:
	default:
	}
	d.states <- st
}

// RemoveFailedServer is never asked for, as CleanupDeadServers is off. Should it
// be all the same, a failed node stays.
func (d *delegate) RemoveFailedServer(*lib.Server) {}

// KnownServers is Raft's configuration and the storage members of gossip. A
// server gossip has not seen is of unknown health, not gone.
func (d *delegate) KnownServers() map[raft.ServerID]*lib.Server {
	v := d.cfg.Replica.View()
	known := make(map[raft.ServerID]*lib.Server)
	add := func(id string) *lib.Server {
		s := known[raft.ServerID(id)]
		if s == nil {
			s = &lib.Server{
				ID: raft.ServerID(id), Name: replica.NameOf(id), Address: raft.ServerAddress(id),
				NodeStatus: lib.NodeUnknown, NodeType: lib.NodeVoter, RaftVersion: 3, IsLeader: id == v.LeaderID,
			}
			known[s.ID] = s
		}
		return s
	}
	for _, p := range v.Peers {
		add(p.ID)
	}
	for _, m := range d.cfg.Members() {
		if m.Role != membership.RoleStorage {
			continue
		}
		s := add(m.ID)
		s.Version = m.Version
		if m.State == membership.Alive {
			s.NodeStatus = lib.NodeAlive
		} else {
			s.NodeStatus = lib.NodeFailed
		}
	}
	add(d.cfg.ID).NodeStatus = lib.NodeAlive // gossip may be late with ourselves
	return known
}

// FetchServerStats asks all live servers at once. One that does not answer in
// time is left out, and so is not healthy.
func (d *delegate) FetchServerStats(ctx context.Context, servers map[raft.ServerID]*lib.Server) map[raft.ServerID]*lib.ServerStats {
	var mu sync.Mutex
	stats := make(map[raft.ServerID]*lib.ServerStats) // guarded by mu
	put := func(id raft.ServerID, s Stats) {
		mu.Lock()
		defer mu.Unlock()
		stats[id] = &lib.ServerStats{LastContact: s.LastContact, LastIndex: s.LastIndex, LastTerm: s.LastTerm}
	}
	inRaft := make(map[raft.ServerID]bool)
	for _, p := range d.cfg.Replica.View().Peers {
		inRaft[raft.ServerID(p.ID)] = true
	}
	var wg sync.WaitGroup
	for id, s := range servers {
		switch {
		case string(id) == d.cfg.ID:
			own := d.cfg.Replica.Stats()
			put(id, Stats{LastIndex: own.LastIndex, LastTerm: own.LastTerm})
		case s.NodeStatus == lib.NodeAlive && inRaft[id]:
			wg.Go(func() {
				got, err := d.cfg.Stats(ctx, string(id))
				if err != nil {
					got = Stats{LastContact: -1} // the library would go by what it knew before
				}
				put(id, got)
			})
		}
	}
	wg.Wait()
	return stats
}
