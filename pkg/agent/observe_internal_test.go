package agent

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/internal/events"
	"github.com/logd-io/logd/pkg/membership"
	"github.com/logd-io/logd/pkg/replica"
)

// world is all that an observer looks at.
type world struct {
	view    replica.View
	members []membership.Member
	stats   replica.Stats
	slow    uint64
}

// What people are told of a change in the cluster or in the node, and that nothing
// else is.
func TestWhatAChangeIsTold(t *testing.T) {
	peers := func(ps ...replica.Peer) []replica.Peer { return ps }
	a, b := replica.Peer{ID: "a.1", Voter: true}, replica.Peer{ID: "b.2", Voter: true}
	alive := membership.Member{ID: "b.2", Role: membership.RoleStorage, State: membership.Alive, GossipAddr: "127.0.0.2:8401"}
	failed, left, drains := alive, alive, alive
	failed.State, left.State, drains.Draining = membership.Failed, membership.Left, true
	view := func(edit ...func(*replica.View)) world {
		v := replica.View{ClusterID: "c", Term: 3, LeaderID: "a.1", Peers: peers(a, b), Ready: true, State: replica.StateFollower}
		for _, e := range edit {
			e(&v)
		}
		return world{view: v}
	}
	gossip := func(ms ...membership.Member) world { w := view(); w.members = ms; return w }
	stats := func(st replica.Stats) world { w := view(); w.stats = st; return w }

	for _, c := range []struct {
		name        string
		before, now world
		want        []string
	}{
		{"nothing", view(), view(), nil},
		{"no leader", view(), view(func(v *replica.View) { v.LeaderID = "" }), []string{"leaderless"}},
		{"another leader", view(), view(func(v *replica.View) { v.LeaderID, v.Term = "b.2", 4 }), []string{"leader b.2"}},
		{"the same one again", view(), view(func(v *replica.View) { v.Term = 4 }), []string{"leader a.1"}},
		{"a new server", view(func(v *replica.View) { v.Peers = peers(a) }), view(func(v *replica.View) { v.Peers = peers(a, replica.Peer{ID: "b.2"}) }), []string{"server b.2"}},
		{"gets its vote", view(func(v *replica.View) { v.Peers = peers(a, replica.Peer{ID: "b.2"}) }), view(), []string{"promoted b.2"}},
		{"loses it", view(), view(func(v *replica.View) { v.Peers = peers(a, replica.Peer{ID: "b.2"}) }), []string{"demoted b.2"}},
		{"goes", view(), view(func(v *replica.View) { v.Peers = peers(a) }), []string{"removed b.2"}},
		{"raft stops to repair", view(), view(func(v *replica.View) { v.Peers, v.State = nil, replica.StateIdle }), nil},
		{"and goes on", view(func(v *replica.View) { v.Peers = nil }), view(), nil},
		{"drains", view(), view(func(v *replica.View) { v.Draining, v.Ready = true, false }), []string{"drain a.1"}},
		{"is not ready", view(), view(func(v *replica.View) { v.Ready = false }), []string{"unready a.1"}},
		{"is", view(func(v *replica.View) { v.Ready = false }), view(), []string{"ready a.1"}},
		{"a cluster", view(func(v *replica.View) { v.ClusterID = "" }), view(), []string{"cluster"}},
		{"a member", gossip(), gossip(alive), []string{"joined b.2"}},
		{"fails", gossip(alive), gossip(failed), []string{"failed b.2"}},
		{"comes back", gossip(failed), gossip(alive), []string{"back b.2"}},
		{"leaves", gossip(alive), gossip(left), []string{"left b.2"}},
		{"will stop", gossip(alive), gossip(drains), []string{"draining b.2"}},
		{"damage", stats(replica.Stats{}), stats(replica.Stats{Damaged: 3}), []string{"damage a.1"}},
		{"more of it", stats(replica.Stats{Damaged: 3}), stats(replica.Stats{Damaged: 4}), nil},
		{"repaired", stats(replica.Stats{Damaged: 3}), stats(replica.Stats{}), []string{"repaired a.1"}},
		{"a full disk", stats(replica.Stats{}), stats(replica.Stats{DiskLow: true}), []string{"disk a.1"}},
		{"not any more", stats(replica.Stats{DiskLow: true}), stats(replica.Stats{}), []string{"disk a.1"}},
		{"retention", stats(replica.Stats{Lowest: 5}), stats(replica.Stats{Lowest: 9}), []string{"retention a.1"}},
		{"a slow disk", view(), func() world { w := view(); w.slow = 2; return w }(), []string{"slow_sync a.1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := &observer{Agent: &Agent{id: "a.1", events: events.New()}}
			o.look(c.before.view, c.before.members, c.before.stats, c.before.slow)
			o.events = events.New()
			o.look(c.now.view, c.now.members, c.now.stats, c.now.slow)
			var got []string
			for _, e := range o.events.Last(99) {
				require.NotEmpty(t, e.Text)
				text := e.Kind
				if e.Node != "" {
					text += " " + e.Node
				}
				got = append(got, text)
			}
			require.Equal(t, c.want, got)
		})
	}
}

// What a node that was there before its observer has is no news.
func TestWhatIsFoundAtTheStart(t *testing.T) {
	o := &observer{Agent: &Agent{id: "a.1", events: events.New()}}
	o.look(replica.View{
		ClusterID: "c", Term: 3, LeaderID: "a.1", Ready: true, State: replica.StateLeader, IsLeader: true,
		Peers: []replica.Peer{{ID: "a.1", Voter: true}, {ID: "b.2", Voter: true}},
	}, nil, replica.Stats{Lowest: 100}, 7)
	var kinds []string
	for _, e := range o.events.Last(99) {
		kinds = append(kinds, e.Kind)
	}
	require.Equal(t, []string{"cluster", "leader", "ready"}, kinds)
}

func TestBytesForPeople(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 64 << 20: "64.0 MiB", 3 << 40: "3.0 TiB", 1 << 62: "4096.0 PiB"} {
		require.Equal(t, want, bytesOf(n))
	}
}
