package proxy

// Status is what /api/status answers.
type Status struct {
	ID        string       `json:"id"`
	Version   string       `json:"version"`
	Ready     bool         `json:"ready"`
	Reasons   []string     `json:"reasons"` // why it is not ready
	ClusterID string       `json:"cluster_id"`
	Term      uint64       `json:"term"`
	LeaderID  string       `json:"leader_id"` // reachable or not; empty: nobody known
	Listener  string       `json:"listener"`
	Gossip    string       `json:"gossip,omitempty"`
	Admin     string       `json:"admin"`
	Nodes     []NodeStatus `json:"nodes"`
}

// NodeStatus is a node in a Status, as the proxy sees it.
type NodeStatus struct {
	ID         string `json:"id"`
	Address    string `json:"address"`
	Connection string `json:"connection"` // grpc's name of the state
	Leader     bool   `json:"leader"`     // produces go there
	Readable   bool   `json:"readable"`   // reads go there, as to a follower
	Watched    bool   `json:"watched"`    // it tells of the cluster now
	Ready      bool   `json:"ready"`
	Draining   bool   `json:"draining"`
	Ejected    bool   `json:"ejected"` // it rests after failed requests
	CutOff     bool   `json:"cut_off"` // there is a leader, and it has known none for a while
	Visible    uint64 `json:"visible"`
	Lag        uint64 `json:"lag"` // records
	InFlight   int64  `json:"in_flight"`
	Problem    string `json:"problem,omitempty"` // why it gets nothing at all
}

// Status answers how the proxy stands. It does not block.
func (p *Proxy) Status() Status {
	known := p.control.Status()
	st := Status{
		ID: p.id, Version: p.version, Reasons: p.notReady(),
		ClusterID: known.ClusterID, Term: known.Term, LeaderID: known.LeaderID,
		Listener: p.addrs.Listener, Gossip: p.addrs.Gossip, Admin: p.addrs.Admin,
		Nodes: make([]NodeStatus, 0, len(known.Nodes)),
	}
	st.Ready = len(st.Reasons) == 0
	for _, n := range known.Nodes {
		st.Nodes = append(st.Nodes, NodeStatus{
			ID: n.ID, Address: n.Addr, Connection: n.Connection, Leader: n.Leader, Readable: n.Readable,
			Watched: n.Watched, Ready: n.Ready, Draining: n.Draining, Ejected: n.Ejected, CutOff: n.CutOff,
			Visible: n.Visible, Lag: n.Lag, InFlight: n.InFlight(), Problem: n.Problem,
		})
	}
	return st
}

// notReady answers why nothing can be served now; empty: something can.
func (p *Proxy) notReady() []string {
	reasons := []string{}
	if p.draining.Load() {
		reasons = append(reasons, "draining")
	}
	if t := p.holder.Load(); !ready(t) {
		switch {
		case len(t.Nodes) == 0:
			reasons = append(reasons, "no node has been found")
		default:
			reasons = append(reasons, "no node can be written to or read from")
		}
	}
	return reasons
}
