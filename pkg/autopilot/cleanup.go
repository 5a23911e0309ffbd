package autopilot

import (
	"maps"
	"slices"
	"time"

	lib "github.com/hashicorp/raft-autopilot"

	"github.com/logd-io/logd/pkg/replica"
)

// cleanup decides which dead servers leave the configuration, while one node leads in
// one term. A server is dead while it does not answer this leader (see silence) and gossip
// does not see it alive: it has failed or left, or gossip does not know it. Who restarted
// after a server had died never hears of it, so that gossip alone cannot tell it from one
// that it has merely not seen yet: that one answers. Nobody is dead for longer than this
// node leads.
//
// A dead voter goes after the grace, and only when others do its part: as many voters
// are healthy as there were voters when it last was. Where this leader never saw it
// healthy that is the largest odd number of those there are. Never fewer than minQuorum
// healthy ones stay, and never more than (n-1)/2 of n voters go at a time. A dead
// non-voter does nobody's part and goes after the grace.
type cleanup struct {
	grace     time.Duration
	minQuorum int

	looked time.Time            // the last time; zero: never
	since  map[string]time.Time // a dead server was first seen dead
	voters map[string]int       // there were, when the server was last seen healthy
}

func newCleanup(grace time.Duration, minQuorum int) *cleanup {
	return &cleanup{grace: grace, minQuorum: minQuorum, since: make(map[string]time.Time), voters: make(map[string]int)}
}

// server is one of the configuration, as it was found.
type server struct {
	id                   string
	voter, healthy, dead bool
}

// maxUnseen is how long may pass between two looks. When more does, this process
// stood still: what was dead before may have been alive in between, so that its grace
// begins again.
const maxUnseen = 10 * time.Second

// wake is called before a look, and forgets how long servers have been dead when the
// last look was too long ago.
func (c *cleanup) wake(now time.Time) {
	if !c.looked.IsZero() && now.Sub(c.looked) > maxUnseen {
		clear(c.since)
	}
	c.looked = now
}

// serversOf is the configuration with what the library found. silent is asked for those
// that gossip has seen fail, or does not know.
func serversOf(peers []replica.Peer, health map[string]*lib.ServerState, silent func(id string, missed bool) bool) []server {
	servers := make([]server, 0, len(peers))
	for _, p := range peers {
		s := server{id: p.ID, voter: p.Voter}
		if h := health[p.ID]; h != nil {
			s.healthy = h.Health.Healthy
			s.dead = silent(p.ID, !s.healthy && h.Server.NodeStatus != lib.NodeAlive)
		}
		servers = append(servers, s)
	}
	return servers
}

// look answers who is to be removed now, the one that has been dead for longest first.
func (c *cleanup) look(now time.Time, servers []server) (remove []string) {
	voters, healthy, there := 0, 0, make(map[string]bool, len(servers))
	for _, s := range servers {
		there[s.id] = true
		if s.voter {
			voters++
			if s.healthy {
				healthy++
			}
		}
	}
	maps.DeleteFunc(c.since, func(id string, _ time.Time) bool { return !there[id] })
	maps.DeleteFunc(c.voters, func(id string, _ int) bool { return !there[id] })
	var dead []server
	for _, s := range servers {
		if s.healthy {
			c.voters[s.id] = voters
		}
		if !s.dead {
			delete(c.since, s.id)
			continue
		}
		if _, known := c.since[s.id]; !known {
			c.since[s.id] = now
		}
		if now.Sub(c.since[s.id]) >= c.grace {
			dead = append(dead, s)
		}
	}
	slices.SortStableFunc(dead, func(a, b server) int { return c.since[a.id].Compare(c.since[b.id]) })
	most := (voters - 1) / 2
	for _, s := range dead {
		if !s.voter {
			remove = append(remove, s.id)
			continue
		}
		want, seen := c.voters[s.id]
		if !seen {
			want = voters - (voters+1)%2
		}
		if most > 0 && healthy >= max(want, c.minQuorum) {
			remove = append(remove, s.id)
			most--
			voters--
		}
	}
	return remove
}
