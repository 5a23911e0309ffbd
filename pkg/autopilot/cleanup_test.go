package autopilot

import (
	"fmt"
	"strings"
	"testing"
	"time"

	lib "github.com/hashicorp/raft-autopilot"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
)

// look is a moment of a cluster: a letter a server, V a healthy voter, v one that is not,
// d a dead one, n and x a non-voter that lives or is dead. Dots are servers that are not
// there (yet, or any more).
func look(s string) []server {
	var servers []server
	for i, r := range s {
		if r == '.' {
			continue
		}
		servers = append(servers, server{
			id:    fmt.Sprintf("n%d", i+1),
			voter: strings.ContainsRune("Vvd", r), healthy: strings.ContainsRune("Vn", r), dead: strings.ContainsRune("dx", r),
		})
	}
	return servers
}

func TestWhoIsRemoved(t *testing.T) {
	const grace = 10 * time.Minute
	type moment struct {
		after   time.Duration
		servers string
		remove  string
	}
	for name, moments := range map[string][]moment{
		"nobody does its part": {{0, "VVV", ""}, {0, "VVd", ""}, {time.Hour, "VVd", ""}},
		"another does":         {{0, "VVV", ""}, {0, "VVd", ""}, {time.Minute, "VVdn", ""}, {time.Minute, "VVdV", ""}, {8 * time.Minute, "VVdV", "n3"}},
		"it comes back in time": {
			{0, "VVV", ""}, {0, "VVdV", ""}, {grace - 1, "VVdV", ""}, {0, "VVvV", ""}, {1, "VVdV", ""}, {grace - 1, "VVdV", ""}, {1, "VVdV", "n3"},
		},
		"ill is not dead":                {{0, "VVV", ""}, {0, "VVvV", ""}, {time.Hour, "VVvV", ""}},
		"the replacement is ill":         {{0, "VVV", ""}, {0, "VVdv", ""}, {time.Hour, "VVdv", ""}},
		"four of five do not suffice":    {{0, "VVVVV", ""}, {0, "VVVVd", ""}, {time.Hour, "VVVVd", ""}},
		"two of five, one replaced":      {{0, "VVVVV", ""}, {0, "VVVdd", ""}, {time.Hour, "VVVddV", ""}},
		"two of five, both replaced":     {{0, "VVVVV", ""}, {0, "VVVdd", ""}, {time.Hour, "VVVddVV", "n4 n5"}},
		"a new leader, three of four":    {{0, "VVdV", ""}, {grace, "VVdV", "n3"}},
		"a new leader, four of five":     {{0, "VVVVd", ""}, {grace, "VVVVd", ""}},
		"a new leader, two of three":     {{0, "VVd", ""}, {grace, "VVd", ""}},
		"a new leader, five of six":      {{0, "VVVVdV", ""}, {grace, "VVVVdV", "n5"}},
		"never below the quorum":         {{0, "VV", ""}, {0, "Vd", ""}, {time.Hour, "VdV", ""}},
		"two of five go at once":         {{0, "VVV", ""}, {0, "VddV", ""}, {0, "VddVV", ""}, {grace, "VddVV", "n2 n3"}},
		"at most (n-1)/2":                {{0, "VVV", ""}, {0, "dddVVV", ""}, {grace, "dddVVV", "n1 n2"}, {0, "..dVVV", "n3"}},
		"non-voters do nobody's part":    {{0, "VVVn", ""}, {0, "VVVx", ""}, {grace, "VVVx", "n4"}},
		"non-voters go where few remain": {{0, "Vx", ""}, {grace, "Vx", "n2"}},
		"a removed one counts no more":   {{0, "VVV", ""}, {0, "ddVVVVV", ""}, {grace, "ddVVVVV", "n1 n2"}, {0, "..VVVVV", ""}},
		"the longest dead first":         {{0, "VVVV", ""}, {0, "VVVd", ""}, {1, "VVdd", ""}, {0, "VVddVV", ""}, {grace, "VVddVV", "n4 n3"}},
	} {
		t.Run(name, func(t *testing.T) {
			c, now := newCleanup(grace, 3), time.Unix(1, 0)
			for i, m := range moments {
				now = now.Add(m.after)
				require.Equal(t, m.remove, strings.Join(c.look(now, look(m.servers)), " "), "moment %d: %s", i+1, m.servers)
			}
		})
	}
}

// Dead is who is silent, of those that are not healthy and that gossip does not see alive;
// nobody else is asked.
func TestWhoIsDead(t *testing.T) {
	const id = "n1.00000001"
	for name, tt := range map[string]struct {
		gossip                lib.NodeStatus
		healthy, asked, quiet bool
		dead                  bool
	}{
		"failed, and silent":           {gossip: lib.NodeFailed, asked: true, quiet: true, dead: true},
		"failed, and answers":          {gossip: lib.NodeFailed, asked: true},
		"gossip does not know it":      {gossip: lib.NodeUnknown, asked: true, quiet: true, dead: true},
		"gossip has not seen it yet":   {gossip: lib.NodeUnknown, asked: true},
		"alive in gossip, but silent":  {gossip: lib.NodeAlive, quiet: true},
		"healthy when it was last met": {gossip: lib.NodeUnknown, healthy: true, quiet: true},
	} {
		t.Run(name, func(t *testing.T) {
			health := map[string]*lib.ServerState{id: {Server: lib.Server{NodeStatus: tt.gossip}, Health: lib.ServerHealth{Healthy: tt.healthy}}}
			servers := serversOf([]replica.Peer{{ID: id, Voter: true}}, health, func(of string, missed bool) bool {
				require.Equal(t, id, of)
				require.Equal(t, tt.asked, missed)
				return missed && tt.quiet
			})
			require.Equal(t, []server{{id: id, voter: true, healthy: tt.healthy, dead: tt.dead}}, servers)
		})
	}
}

// What was remembered of a server that is not there any more is forgotten.
func TestCleanupForgets(t *testing.T) {
	c := newCleanup(time.Minute, 3)
	c.look(time.Unix(1, 0), look("VVVdd"))
	c.look(time.Unix(2, 0), look("VVV"))
	require.Empty(t, c.since)
	require.Len(t, c.voters, 3)
	c.look(time.Unix(3, 0), look(".VV"))
	require.Len(t, c.voters, 2)
}

// A leader that stood still does not know what happened in between: the grace of those
// that were dead begins again.
func TestWhoSleptCountsAnew(t *testing.T) {
	const grace = time.Minute
	c, now := newCleanup(grace, 3), time.Unix(1, 0)
	step := func(d time.Duration) []string {
		now = now.Add(d)
		c.wake(now)
		return c.look(now, look("VVVd"))
	}
	for range 50 {
		require.Empty(t, step(time.Second))
	}
	require.Empty(t, step(time.Hour))
	for range 59 {
		require.Empty(t, step(time.Second))
	}
	require.Equal(t, []string{"n4"}, step(time.Second))
}
