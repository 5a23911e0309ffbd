package control

import (
	"github.com/logd-io/logd/pkg/proxy/upstream"
)

// Status is what control knows, for people and metrics. Nothing in it changes.
type Status struct {
	ClusterID string
	Term      uint64
	LeaderID  string // who leads, reachable or not; empty: nobody known
	Nodes     []NodeStatus
}

// NodeStatus is one node in a Status.
type NodeStatus struct {
	ID, Addr   string
	Connection string // grpc's name of the state
	Watched    bool   // views are coming in
	Ready      bool
	Draining   bool
	Ejected    bool // resting after requests failed on it
	CutOff     bool // there is a leader, and it has known none for a while
	Readable   bool // among the followers of the table
	Leader     bool // the leader of the table
	Visible    uint64
	Lag        uint64 // records behind the newest known
	Problem    string // why it gets no request at all; empty: nothing

	node *upstream.Node
}

// InFlight is the number of calls open to the node now.
func (n NodeStatus) InFlight() int64 { return n.node.InFlight() }

// Status answers what control knew when it last looked.
func (c *Control) Status() *Status { return c.status.Load() }
