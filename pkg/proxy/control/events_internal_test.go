package control

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/internal/events"
)

// What people are told of a change, and that nothing else is.
func TestWhatAChangeIsTold(t *testing.T) {
	n := func(id string, edit ...func(*NodeStatus)) NodeStatus {
		s := NodeStatus{ID: id, Addr: id + ":8400", Connection: "READY", Watched: true, Ready: true}
		for _, e := range edit {
			e(&s)
		}
		return s
	}
	leads := func(s *NodeStatus) { s.Leader = true }
	down := func(s *NodeStatus) { s.Connection = "TRANSIENT_FAILURE" }
	connecting := func(s *NodeStatus) { s.Connection = "CONNECTING" }
	status := func(term uint64, ns ...NodeStatus) *Status { return &Status{ClusterID: "c", Term: term, Nodes: ns} }

	for _, c := range []struct {
		name        string
		before, now *Status
		want        []string
	}{
		{"nothing", status(1, n("a", leads)), status(1, n("a", leads)), nil},
		{"the beginning", &Status{}, status(1, n("a", leads), n("b")), []string{"cluster", "found a", "found b", "leader a"}},
		{"a node that is not there from the beginning", &Status{}, &Status{Nodes: []NodeStatus{n("a", down)}}, []string{"found a", "unreachable a"}},
		{"a leader is lost", status(1, n("a", leads)), status(1, n("a")), []string{"leaderless"}},
		{"one is found", status(1, n("a")), status(2, n("a", leads)), []string{"leader a"}},
		{"another one at once", status(1, n("a", leads), n("b")), status(2, n("a"), n("b", leads)), []string{"leader b"}},
		{"the same one again", status(1, n("a", leads)), status(2, n("a", leads)), []string{"leader a"}},
		{"a term without a leader", status(1, n("a")), status(2, n("a")), nil},
		{"a node goes", status(1, n("a"), n("b")), status(1, n("a")), []string{"gone b"}},
		{"a node moves", status(1, n("a")), status(1, n("a", func(s *NodeStatus) { s.Addr = "x:1" })), []string{"moved a"}},
		{"a connection breaks", status(1, n("a")), status(1, n("a", down)), []string{"unreachable a"}},
		{"and stays so", status(1, n("a", down)), status(1, n("a", down)), nil},
		{"and is made again", status(1, n("a", down)), status(1, n("a")), []string{"reachable a"}},
		{"one is made", status(1, n("a", connecting)), status(1, n("a")), nil},
		{"drains", status(1, n("a")), status(1, n("a", func(s *NodeStatus) { s.Draining = true })), []string{"draining a"}},
		{"rests", status(1, n("a")), status(1, n("a", func(s *NodeStatus) { s.Ejected, s.Failure = true, "broken" })), []string{"ejected a: broken"}},
		{"has rested", status(1, n("a", func(s *NodeStatus) { s.Ejected = true })), status(1, n("a")), []string{"ejected_over a"}},
		{"cut off", status(1, n("a")), status(1, n("a", func(s *NodeStatus) { s.CutOff = true })), []string{"cut_off a"}},
		{"too far behind", status(1, n("a", func(s *NodeStatus) { s.Lag = 100 })), status(1, n("a", func(s *NodeStatus) { s.Lag = 101 })), []string{"behind a"}},
		{"caught up", status(1, n("a", func(s *NodeStatus) { s.Lag = 101 })), status(1, n("a")), []string{"behind_over a"}},
		{"another's", status(1, n("a")), status(1, n("a", func(s *NodeStatus) { s.Problem = "alien" })), []string{"alien a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := events.New()
			l := &loop{c: &Control{cfg: Config{Events: log, MaxLag: 100}}}
			l.tell(c.before, c.now)
			var got []string
			for _, e := range log.Last(99) {
				text := e.Kind
				if e.Node != "" {
					text += " " + e.Node
				}
				if e.Kind == "ejected" {
					text += ": " + e.Text[len(e.Text)-len("broken"):]
				}
				require.NotEmpty(t, e.Text)
				got = append(got, text)
			}
			require.Equal(t, c.want, got, fmt.Sprint(log.Last(99)))
		})
	}
}
