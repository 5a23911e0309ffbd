package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/internal/events"
	"github.com/logd-io/logd/pkg/membership"
	"github.com/logd-io/logd/pkg/replica"
)

const observeEvery = time.Second

// observer makes events of what changes in what this node knows anyway. It is run's
// goroutine alone.
type observer struct {
	*Agent
	view    replica.View
	members map[string]membership.Member
	stats   replica.Stats
	slow    uint64 // syncs of the log that took long
	begun   bool   // there is something to compare with
}

func (o *observer) run(ctx context.Context) error {
	tick := time.NewTicker(observeEvery)
	defer tick.Stop()
	for {
		raft, gossip := o.replica.Changes(), o.gossip.Changes()
		o.look(o.replica.View(), o.gossip.Members(), o.replica.Stats(), o.replica.Log().Stats().SlowSyncs)
		select {
		case <-raft:
		case <-gossip:
		case <-tick.C:
			o.events.Flush()
		case <-ctx.Done():
			return nil
		}
	}
}

// look compares with what was there before.
func (o *observer) look(v replica.View, members []membership.Member, st replica.Stats, slow uint64) {
	o.lookAtRaft(v)
	o.lookAtMembers(members)
	if o.begun {
		o.lookAtStats(st, slow)
	}
	o.view, o.stats, o.slow, o.begun = v, st, slow, true
}

func (o *observer) lookAtRaft(v replica.View) {
	was := o.view
	if was.ClusterID == "" && v.ClusterID != "" {
		o.events.Addf("cluster", events.Info, "", "this node is part of cluster %s", v.ClusterID)
	}
	switch {
	case v.LeaderID != was.LeaderID && v.LeaderID == "":
		o.events.Addf("leaderless", events.Warning, "", "no leader is known (term %d)", v.Term)
	case v.LeaderID != "" && (v.LeaderID != was.LeaderID || v.Term != was.Term):
		o.events.Addf("leader", events.Info, v.LeaderID, "leads (term %d)", v.Term)
	}
	if v.Draining && !was.Draining {
		o.events.Addf("drain", events.Warning, o.id, "this node drains")
	}
	switch {
	case v.Ready && !was.Ready:
		o.events.Addf("ready", events.Info, o.id, "this node has caught up, and serves")
	case was.Ready && !v.Ready && !v.Draining:
		o.events.Addf("unready", events.Warning, o.id, "this node does not serve: its state is %s", v.State)
	}
	if len(v.Peers) == 0 || !o.begun {
		return // Raft does not run, or has only been started: nothing has changed
	}
	old := make(map[string]replica.Peer, len(was.Peers))
	for _, p := range was.Peers {
		old[p.ID] = p
	}
	for _, p := range v.Peers {
		before, there := old[p.ID]
		delete(old, p.ID)
		switch {
		case len(was.Peers) == 0:
		case !there && p.Voter:
			o.events.Addf("server", events.Info, p.ID, "was added to Raft's configuration, with a vote")
		case !there:
			o.events.Addf("server", events.Info, p.ID, "was added to Raft's configuration, without a vote yet")
		case p.Voter && !before.Voter:
			o.events.Addf("promoted", events.Info, p.ID, "was promoted to voter")
		case !p.Voter && before.Voter:
			o.events.Addf("demoted", events.Warning, p.ID, "lost its vote")
		}
	}
	for id := range old {
		o.events.Addf("removed", events.Warning, id, "was removed from Raft's configuration")
	}
}

func (o *observer) lookAtMembers(members []membership.Member) {
	now := make(map[string]membership.Member, len(members))
	for _, m := range members {
		now[m.ID] = m
		was, there := o.members[m.ID]
		switch {
		case m.ID == o.id:
		case !there && m.State == membership.Alive:
			o.events.Addf("joined", events.Info, m.ID, "%s joined gossip at %s", m.Role, m.GossipAddr)
		case there && m.State != was.State && m.State == membership.Alive:
			o.events.Addf("back", events.Info, m.ID, "is alive again, by gossip")
		case there && m.State != was.State && m.State == membership.Failed:
			o.events.Addf("failed", events.Warning, m.ID, "does not answer gossip")
		case there && m.State != was.State:
			o.events.Addf("left", events.Info, m.ID, "left gossip")
		case there && m.Draining && !was.Draining:
			o.events.Addf("draining", events.Info, m.ID, "drains")
		}
	}
	o.members = now
}

func (o *observer) lookAtStats(st replica.Stats, slow uint64) {
	was := o.stats
	switch {
	case st.Damaged > 0 && was.Damaged == 0:
		o.events.Add(events.Event{Kind: "damage", Severity: events.Error, Node: o.id, Count: st.Damaged,
			Text: fmt.Sprintf("%d entries of the log are damaged here; they are repaired from other nodes", st.Damaged)})
	case st.Damaged == 0 && was.Damaged > 0:
		o.events.Addf("repaired", events.Info, o.id, "what was damaged is repaired")
	}
	switch {
	case st.DiskLow && !was.DiskLow:
		o.events.Addf("disk", events.Error, o.id, "the disk is below its reserve: %s are free, and %s are to stay so", bytesOf(st.DiskFree), bytesOf(st.DiskReserve))
	case was.DiskLow && !st.DiskLow:
		o.events.Addf("disk", events.Info, o.id, "the disk is above its reserve again: %s are free", bytesOf(st.DiskFree))
	}
	if st.Lowest > was.Lowest {
		o.events.Add(events.Event{Kind: "retention", Node: o.id, Count: st.Lowest - was.Lowest,
			Text: fmt.Sprintf("retention removed %d records; the log begins at offset %d", st.Lowest-was.Lowest, st.Lowest)})
	}
	if slow > o.slow {
		o.events.Add(events.Event{Kind: "slow_sync", Severity: events.Warning, Node: o.id, Count: slow - o.slow,
			Text: fmt.Sprintf("the disk took %v or longer to sync, %d times", commitlog.SlowSync, slow-o.slow)})
	}
}

// bytesOf is a size for people.
func bytesOf(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/unit, 0
	for ; f >= unit && i < 4; i++ {
		f /= unit
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGTP"[i])
}
