package autopilot

import (
	"maps"
	"sync"
	"time"

	lib "github.com/hashicorp/raft-autopilot"

	"github.com/hashicorp/raft"
)

// stability knows since when each server has been as healthy, or not, as it is. The
// library's own StableSince (v0.3.0) is when it first saw a server: it compares what it
// found with itself, and so a server that comes and goes is, to it, a stable one.
//
// It is also the library's promoter: a non-voter gets a vote when this leader has seen
// it healthy for long enough without a break, right after an election too.
type stability struct {
	lib.Promoter
	need time.Duration

	mu    sync.Mutex
	seen  map[raft.ServerID]bool      // healthy; guarded by mu
	since map[raft.ServerID]time.Time // guarded by mu
}

func newStability(need time.Duration) *stability {
	return &stability{
		Promoter: lib.DefaultPromoter(), need: need,
		seen: make(map[raft.ServerID]bool), since: make(map[raft.ServerID]time.Time),
	}
}

// note takes what the library found.
func (s *stability) note(now time.Time, st *lib.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := func(id raft.ServerID) bool { return st.Servers[id] == nil }
	maps.DeleteFunc(s.seen, func(id raft.ServerID, _ bool) bool { return gone(id) })
	maps.DeleteFunc(s.since, func(id raft.ServerID, _ time.Time) bool { return gone(id) })
	for id, server := range st.Servers {
		was, known := s.seen[id]
		if known && was == server.Health.Healthy {
			continue
		}
		s.seen[id], s.since[id] = server.Health.Healthy, now
	}
}

// of is for how long a server has been as it is.
func (s *stability) of(now time.Time, id string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	since, known := s.since[raft.ServerID(id)]
	if !known {
		return 0
	}
	return now.Sub(since)
}

// CalculatePromotionsAndDemotions promotes who has been healthy for long enough.
func (s *stability) CalculatePromotionsAndDemotions(_ *lib.Config, st *lib.State) lib.RaftChanges {
	now := time.Now()
	s.note(now, st)
	var changes lib.RaftChanges
	for id, server := range st.Servers {
		if server.State == lib.RaftNonVoter && server.Health.Healthy && s.of(now, string(id)) >= s.need {
			changes.Promotions = append(changes.Promotions, id)
		}
	}
	return changes
}
