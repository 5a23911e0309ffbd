package control

import (
	"google.golang.org/grpc/connectivity"

	"github.com/logd-io/logd/pkg/internal/events"
)

// tell makes events of what is different in now from before. Both are whole: whatever
// led there, people are told what came of it.
func (l *loop) tell(before, now *Status) {
	log := l.c.cfg.Events
	if log == nil {
		return
	}
	if before.ClusterID == "" && now.ClusterID != "" {
		log.Addf("cluster", events.Info, "", "the cluster is %s", now.ClusterID)
	}
	old := make(map[string]*NodeStatus, len(before.Nodes))
	var led string
	for i := range before.Nodes {
		n := &before.Nodes[i]
		old[n.ID] = n
		if n.Leader {
			led = n.ID
		}
	}
	leads := ""
	for i := range now.Nodes {
		n := &now.Nodes[i]
		was := old[n.ID]
		delete(old, n.ID)
		if was == nil {
			log.Addf("found", events.Info, n.ID, "found at %s", n.Addr)
			was = &NodeStatus{Connection: connectivity.Idle.String(), Addr: n.Addr}
		}
		l.tellOf(was, n)
		if n.Leader {
			leads = n.ID
		}
	}
	for id, n := range old {
		log.Addf("gone", events.Warning, id, "gone from the cluster, or from where nodes are found; it was at %s", n.Addr)
	}
	switch {
	case leads == led && before.Term == now.Term:
	case leads == "" && led != "":
		log.Addf("leaderless", events.Warning, "", "no leader can be reached (term %d): produces are held", now.Term)
	case leads != "":
		log.Addf("leader", events.Info, leads, "leads (term %d): produces go there", now.Term)
	}
}

func (l *loop) tellOf(was, n *NodeStatus) {
	log := l.c.cfg.Events
	down := func(n *NodeStatus) bool { return n.Connection == connectivity.TransientFailure.String() }
	// change tells of a state that begins or ends.
	change := func(was, is bool, kind string, s events.Severity, begins, ends string) {
		switch {
		case is && !was:
			log.Add(events.Event{Kind: kind, Severity: s, Node: n.ID, Text: begins})
		case was && !is:
			log.Add(events.Event{Kind: kind + "_over", Severity: events.Info, Node: n.ID, Text: ends})
		}
	}
	if was.Addr != n.Addr {
		log.Addf("moved", events.Info, n.ID, "moved from %s to %s", was.Addr, n.Addr)
	}
	switch {
	case down(n) && !down(was):
		log.Addf("unreachable", events.Warning, n.ID, "cannot be reached at %s", n.Addr)
	case down(was) && n.Connection == connectivity.Ready.String():
		log.Addf("reachable", events.Info, n.ID, "can be reached again")
	}
	change(was.Draining, n.Draining, "draining", events.Info, "drains: it gets no new requests", "drains no more")
	change(was.Ejected, n.Ejected, "ejected", events.Warning, "ejected: requests failed on it, and it rests: "+n.Failure, "has rested: it is on trial")
	change(was.CutOff, n.CutOff, "cut_off", events.Warning, "cut off: it knows no leader though there is one, and is not read from", "is not cut off any more")
	behind := func(n *NodeStatus) bool { return l.c.cfg.MaxLag > 0 && n.Watched && n.Lag > l.c.cfg.MaxLag }
	change(behind(was), behind(n), "behind", events.Warning, "is too far behind to be read from", "has caught up")
	if n.Problem != "" && n.Problem != was.Problem {
		log.Addf("alien", events.Error, n.ID, "gets no request: %s", n.Problem)
	}
}
