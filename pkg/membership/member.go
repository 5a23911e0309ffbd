package membership

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/serf/serf"
)

// Role is what a member claims to be.
type Role string

// The roles in gossip. Clients and admins are never members.
const (
	RoleStorage Role = "storage"
	RoleProxy   Role = "proxy"
)

// State is how a member stands.
type State int

// The states of a member.
const (
	Alive  State = iota + 1
	Failed       // does not answer, and did not say it would leave
	Left         // said it leaves, or was made to
)

func (s State) String() string {
	switch s {
	case Alive:
		return "alive"
	case Failed:
		return "failed"
	case Left:
		return "left"
	}
	return "state " + strconv.Itoa(int(s))
}

// Member is one member as gossip tells of it. It is comparable.
type Member struct {
	ID         string
	Role       Role
	State      State
	RPCAddr    string // host:port as the member announces it; the host may be a DNS name
	GossipAddr string // ip:port
	HasState   bool   // it is, or was, part of a Raft group
	Expect     int    // its bootstrap_expect; 0: it does not bootstrap
	Draining   bool   // it is about to stop
	Version    string
	Cluster    string // uuid; empty while it is in no cluster
}

// member translates from Serf. It fails for tags that are not ours.
func member(m serf.Member) (Member, error) {
	var state State
	switch m.Status {
	case serf.StatusAlive:
		state = Alive
	case serf.StatusLeaving, serf.StatusLeft:
		// Serf itself takes a leaving member that dies for one that left.
		state = Left
	case serf.StatusFailed:
		state = Failed
	default:
		return Member{}, fmt.Errorf("member %s: state %q", m.Name, m.Status)
	}
	role, tags, err := decodeTags(m.Tags)
	if err != nil {
		return Member{}, fmt.Errorf("member %s: %w", m.Name, err)
	}
	return Member{
		ID: m.Name, Role: role, State: state,
		RPCAddr:    tags.RPCAddr,
		GossipAddr: net.JoinHostPort(m.Addr.String(), strconv.Itoa(int(m.Port))),
		HasState:   tags.HasState, Expect: tags.Expect, Draining: tags.Draining,
		Version: tags.Version, Cluster: tags.Cluster,
	}, nil
}

func sortMembers(ms []Member) {
	slices.SortFunc(ms, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
}
