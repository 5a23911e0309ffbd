package proxy

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/logd-io/logd/pkg/internal/events"
	"github.com/logd-io/logd/pkg/proxy/upstream"
)

// Event is something that happened, as /api/events tells it.
type Event = events.Event

// Status is what /api/status answers.
type Status struct {
	ID        string   `json:"id"`
	Version   string   `json:"version"`
	Ready     bool     `json:"ready"`
	Reasons   []string `json:"reasons"` // why it is not ready
	ClusterID string   `json:"cluster_id,omitempty"`
	// FormerID is the cluster it served before it was restarted, where that was another.
	FormerID string `json:"former_cluster_id,omitempty"`
	// OtherID is a cluster that nodes belong to which should be of ours, if there is one.
	OtherID  string       `json:"other_cluster_id,omitempty"`
	Term     uint64       `json:"term"`
	LeaderID string       `json:"leader_id,omitempty"` // reachable or not; empty: nobody known
	Write    Can          `json:"write"`
	Read     Can          `json:"read"`
	Held     uint64       `json:"held_produces"`      // produces of the hold that lasts
	HeldFor  float64      `json:"held_for_seconds"`   // 0: none lasts
	Records  float64      `json:"records_per_second"` // that the log grows by
	Addrs    Addrs        `json:"addresses"`
	Nodes    []NodeStatus `json:"nodes"`
}

// NodeStatus is a node in a Status, as the proxy sees it.
type NodeStatus struct {
	ID         string `json:"id"`
	Address    string `json:"address,omitempty"`
	Connection string `json:"connection"` // grpc's name of the state
	Leader     bool   `json:"leader"`     // produces go there
	Readable   bool   `json:"readable"`   // reads go there, as to a follower
	Watched    bool   `json:"watched"`    // it tells of the cluster now
	Ready      bool   `json:"ready"`
	Draining   bool   `json:"draining"`
	Ejected    bool   `json:"ejected"` // it rests after failed requests
	CutOff     bool   `json:"cut_off"` // there is a leader, and it has known none for a while
	// Visible and Lag are as it said last; null: it never has.
	Visible  *uint64 `json:"next_offset"`
	Lag      *uint64 `json:"lag_records"`
	InFlight int64   `json:"in_flight"`
	Problem  string  `json:"problem,omitempty"` // why it gets nothing at all
	Failure  string  `json:"failure,omitempty"` // why it is ejected

	// Of clients' unary calls that it had a part in, over the last ten seconds.
	Calls  float64  `json:"calls_per_second"`
	Errors float64  `json:"errors_per_second"`
	P50    *float64 `json:"p50_seconds"` // null: there were none
	P99    *float64 `json:"p99_seconds"`
	// CertificateEnds is when the certificate ends that it showed last.
	CertificateEnds *time.Time `json:"certificate_ends,omitempty"`
}

// Can says whether something can be done now, and with whom or why not.
type Can struct {
	OK  bool   `json:"ok"`
	Why string `json:"why"`
}

// Status answers how the proxy stands. It does not block.
func (p *Proxy) Status() Status {
	known, seen := p.control.Status(), p.observer.seen()
	since, held := p.forward.Holding()
	st := Status{
		ID: p.id, Version: p.version, Reasons: p.NotReady(),
		ClusterID: known.ClusterID, FormerID: p.formerCluster(), OtherID: known.OtherID, Term: known.Term, LeaderID: known.LeaderID,
		Write: p.canWrite(), Read: p.canRead(), Held: held, HeldFor: since.Seconds(), Records: seen.records,
		Addrs: p.addrs, Nodes: make([]NodeStatus, 0, len(known.Nodes)),
	}
	st.Ready = len(st.Reasons) == 0
	for _, n := range known.Nodes {
		r := seen.nodes[n.ID]
		node := NodeStatus{
			ID: n.ID, Address: n.Addr, Connection: n.Connection, Leader: n.Leader, Readable: n.Readable,
			Watched: n.Watched, Ready: n.Ready, Draining: n.Draining, Ejected: n.Ejected, CutOff: n.CutOff,
			InFlight: n.InFlight(), Problem: n.Problem, Failure: n.Failure,
			Calls: r.calls, Errors: r.errors, P50: measured(r.p50), P99: measured(r.p99),
			CertificateEnds: p.peers.ends(upstream.Name(n.ID)),
		}
		if n.Heard {
			node.Visible, node.Lag = &n.Visible, &n.Lag
		}
		st.Nodes = append(st.Nodes, node)
	}
	return st
}

// measured is a duration in seconds, or nil when there was nothing to measure.
func measured(d time.Duration) *float64 {
	if d == 0 {
		return nil
	}
	s := d.Seconds()
	return &s
}

// canWrite tells whether a produce would go somewhere now.
func (p *Proxy) canWrite() Can {
	leader := p.holder.Load().Leader
	since, held := p.forward.Holding()
	switch {
	case p.draining.Load():
		return Can{Why: "the proxy is draining"}
	case leader == nil && held > 0:
		return Can{Why: fmt.Sprintf("no leader can be reached%s; %d produces are held", p.strayed(), held)}
	case leader == nil:
		return Can{Why: fmt.Sprintf("no leader can be reached%s; produces wait for one for %v", p.strayed(), p.cfg.Produce.HoldTimeout)}
	case since >= holdShown:
		return Can{Why: fmt.Sprintf("%s makes no progress; %d produces are held", upstream.Name(leader.ID()), held)}
	}
	return Can{OK: true, Why: "produces go to " + upstream.Name(leader.ID())}
}

// canRead tells whether a read would be answered now.
func (p *Proxy) canRead() Can {
	t := p.holder.Load()
	switch {
	case p.draining.Load():
		return Can{Why: "the proxy is draining"}
	case len(t.Followers) > 0:
		names := make([]string, 0, len(t.Followers))
		for _, f := range t.Followers {
			names = append(names, upstream.Name(f.ID()))
		}
		return Can{OK: true, Why: "reads go to " + strings.Join(names, ", ")}
	case t.Leader != nil:
		return Can{OK: true, Why: "reads go to the leader " + upstream.Name(t.Leader.ID()) + ", as no follower can be read"}
	case len(t.Nodes) == 0:
		return Can{Why: "no node has been found"}
	}
	return Can{Why: "no node can be read from" + p.strayed()}
}

// strayed says that nodes belong to another cluster than the one that is served, and
// what to do about it; empty when none does.
func (p *Proxy) strayed() string {
	st := p.control.Status()
	if st.OtherID == "" {
		return ""
	}
	return fmt.Sprintf(" (nodes that answer are of cluster %s, and this proxy serves %s, and no other until it is restarted)", st.OtherID, st.ClusterID)
}

// NotReady answers why nothing can be served now; empty: something can. It does not
// block.
func (p *Proxy) NotReady() []string {
	reasons := []string{}
	if p.draining.Load() {
		reasons = append(reasons, "draining")
	}
	if t := p.holder.Load(); !ready(t) {
		switch {
		case len(t.Nodes) == 0:
			reasons = append(reasons, "no node has been found")
		default:
			reasons = append(reasons, "no node can be written to or read from"+p.strayed())
		}
	}
	return reasons
}

// Follow calls f at once and whenever NotReady may answer otherwise, until ctx ends;
// a drain, which Run's caller began, is no occasion.
func (p *Proxy) Follow(ctx context.Context, f func()) {
	for {
		t := p.holder.Load()
		f()
		select {
		case <-t.Superseded():
		case <-ctx.Done():
			return
		}
	}
}
