package route

import (
	"google.golang.org/grpc"

	"github.com/logd-io/logd/pkg/balance"
)

// Upstream is a node as the data path sees it.
type Upstream interface {
	balance.Candidate
	// Addr is host:port of its RPC listener.
	Addr() string
	// Conn is its one connection, shared by everybody. A connection that has been
	// closed because the node went or moved fails calls with code Canceled.
	Conn() grpc.ClientConnInterface
	// Acquire counts a call in; release counts it out, and may be called twice.
	Acquire() (release func())
	// Answered takes note that it has answered a read, be it with an error of its own.
	Answered()
}

// Spec is what a Table is made of.
type Spec struct {
	// ClusterID is the uuid all of this belongs to; empty while none is known.
	ClusterID string
	// Term is the highest Raft term heard of.
	Term uint64
	// Leader leads at Term. Nil: nobody does as far as anyone knows, and produces
	// are held.
	Leader Upstream
	// Followers may be read from now: ready, not draining, not too far behind, not
	// failed. The leader is not among them.
	Followers []Upstream
	// Nodes are all storage nodes by id, those that cannot be read from too.
	Nodes map[string]Upstream
	// Policy spreads reads over Followers; nil is policy "leader".
	Policy balance.Policy
}

// Table is one immutable answer to "where does this request go".
type Table struct {
	Spec
	picker     balance.Picker // over Followers
	superseded chan struct{}  // closed by Holder when a newer Table is in place
}

// New makes a Table. It keeps s's slice and map, which must not be changed
// afterwards.
func New(s Spec) *Table {
	if s.Policy == nil {
		s.Policy = balance.Leader{}
	}
	cs := make([]balance.Candidate, len(s.Followers))
	for i, f := range s.Followers {
		cs[i] = f
	}
	return &Table{Spec: s, picker: s.Policy.Build(cs), superseded: make(chan struct{})}
}

// PickReader answers whom to read from: a follower by policy, else the leader,
// never one that skip refuses. ok is false when nobody is left. Key is what the
// policy may keep together; skip may be nil.
func (t *Table) PickReader(key string, skip func(id string) bool) (u Upstream, ok bool) {
	if i, ok := t.picker.Pick(key, skip); ok {
		return t.Followers[i], true
	}
	if t.Leader != nil && (skip == nil || !skip(t.Leader.ID())) {
		return t.Leader, true
	}
	return nil, false
}

// Superseded is closed once a newer table has been published; Load then answers
// that one, or one newer still.
func (t *Table) Superseded() <-chan struct{} { return t.superseded }
