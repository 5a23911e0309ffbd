package replica

import (
	"fmt"
	"sync"
	"time"
)

// clockAge is how old a reading of another node's clock may be.
const clockAge = 10 * time.Second

// reading is what another node said its clock was, at a moment between two of
// ours; those carry a monotonic reading, so that our own clock may jump.
type reading struct {
	clock          time.Time
	sent, received time.Time
}

// between gives the least and the most that the other clock may be ahead of now.
func (g reading) between(now time.Time) (least, most time.Duration) {
	return g.clock.Add(time.Since(g.received)).Sub(now), g.clock.Add(time.Since(g.sent)).Sub(now)
}

// clocks are the newest readings of the other nodes' clocks.
type clocks struct {
	mu   sync.Mutex
	byID map[string]reading // guarded by mu
}

// NoteClock takes note of what node id said its clock was, when it was asked at
// sent and had answered at received. Both must be of time.Now.
func (r *Replica) NoteClock(id string, clock, sent, received time.Time) {
	c := &r.clocks
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byID == nil {
		c.byID = make(map[string]reading)
	}
	for id, g := range c.byID { // nodes come and go
		if time.Since(g.received) > clockAge {
			delete(c.byID, id)
		}
	}
	c.byID[id] = reading{clock, sent, received}
}

// agree says whether the clocks of a majority of voters, this node's own among
// them, are certainly within clockTolerance of now.
func (c *clocks) agree(self string, peers []Peer, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	voters, agreeing := 0, 0
	for _, p := range peers {
		if !p.Voter {
			continue
		}
		voters++
		g, ok := c.byID[p.ID]
		switch {
		case p.ID == self:
			agreeing++
		case ok && time.Since(g.received) <= clockAge:
			if least, most := g.between(now); least >= -clockTolerance && most <= clockTolerance {
				agreeing++
			}
		}
	}
	return voters > 0 && 2*agreeing > voters
}

// differences says how the voters' clocks differ from now, for the operator.
func (c *clocks) differences(self string, peers []Peer, now time.Time) (all []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range peers {
		if !p.Voter || p.ID == self {
			continue
		}
		g, ok := c.byID[p.ID]
		if !ok || time.Since(g.received) > clockAge {
			all = append(all, p.ID+": unknown")
			continue
		}
		least, most := g.between(now)
		all = append(all, fmt.Sprintf("%s: %v", p.ID, ((least+most)/2).Round(time.Millisecond)))
	}
	return all
}
