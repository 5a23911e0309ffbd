package control

import (
	"slices"
	"time"

	"github.com/logd-io/logd/pkg/proxy/route"
	"github.com/logd-io/logd/pkg/proxy/upstream"
)

// Status is what control knows, for people and metrics. Nothing in it changes.
type Status struct {
	ClusterID string
	OtherID   string // of a cluster that nodes belong to which should be of ours; empty: none
	Term      uint64
	LeaderID  string // who leads, reachable or not; empty: nobody known
	Nodes     []NodeStatus
}

// NodeStatus is one node in a Status.
type NodeStatus struct {
	ID, Addr   string
	Connection string // grpc's name of the state
	Watched    bool   // views are coming in
	Heard      bool   // one has come in: Ready, Draining, Visible and Lag are of the last
	Ready      bool
	Draining   bool
	Ejected    bool // resting after requests failed on it
	CutOff     bool // there is a leader, and it has known none for a while
	Readable   bool // among the followers of the table
	Leader     bool // the leader of the table
	Visible    uint64
	Lag        uint64 // records behind the newest known
	Problem    string // why it gets no request at all; empty: nothing
	Failure    string // why it rests; empty: it does not

	node *upstream.Node
}

// InFlight is the number of calls open to the node now.
func (n NodeStatus) InFlight() int64 { return n.node.InFlight() }

// Status answers what control knew when it last looked.
func (c *Control) Status() *Status { return c.status.Load() }

// otherCluster is the cluster that a node belongs to which should be of ours.
func (l *loop) otherCluster(ms []*member) string {
	for _, m := range ms {
		if m.other != "" {
			return m.other
		}
	}
	others := make([]string, 0, len(l.seeds))
	for _, s := range l.seeds {
		if s.link != nil && s.other != "" {
			others = append(others, s.other)
		}
	}
	if len(others) == 0 {
		return ""
	}
	return slices.Min(others)
}

// describe is what the loop knows now, for Status.
func (l *loop) describe(ms []*member, spec *route.Spec, now time.Time) *Status {
	st := &Status{ClusterID: l.cluster, OtherID: l.otherCluster(ms), Term: l.lead.term, LeaderID: l.lead.current()}
	top := newest(ms)
	for _, m := range ms {
		n := NodeStatus{
			ID: m.id, Addr: m.node.Addr(), Connection: m.state.String(), Watched: m.live,
			Ejected: m.resting(now), CutOff: spec.Leader != nil && m.cutOff(now, l.c.cfg.StallAfter), Problem: m.alien, Lag: m.lag(top), node: m.node,
			Leader: spec.Leader == route.Upstream(m.node), Readable: slices.Contains(spec.Followers, route.Upstream(m.node)),
		}
		if n.Ejected {
			n.Failure = m.failure
		}
		if m.view != nil {
			n.Heard, n.Ready, n.Draining, n.Visible = true, m.view.Ready, m.view.Draining, m.view.Visible
		}
		st.Nodes = append(st.Nodes, n)
	}
	return st
}
