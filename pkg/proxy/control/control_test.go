package control_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/require"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/discovery"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/proxy/control"
)

func TestMain(m *testing.M) { testutil.VerifyMain(m) }

func TestOneAddressIsEnoughToFindTheCluster(t *testing.T) {
	r := newRig(t, 3, nil)
	r.seeds(1)
	tab := r.sees(id(0), id(1), id(2))
	require.Equal(t, uuid, tab.ClusterID)
	require.EqualValues(t, 1, tab.Term)
	require.Len(t, tab.Nodes, 3)
	require.Equal(t, r.nodes[0].addr, tab.Leader.Addr())
}

func TestAllOfAFewNodesAreWatched(t *testing.T) {
	r := newRig(t, 3, nil)
	r.seeds(0, 1, 2)
	r.sees(id(0), id(1), id(2))
	r.eventually(func() error {
		for _, f := range r.nodes {
			if n := f.watched(); n != 1 {
				return fmt.Errorf("%s has %d watches", f.id, n)
			}
		}
		return nil
	})
}

// Each situation is told by nodes 0, 1 and 2 of one cluster with ids.
func TestSituations(t *testing.T) {
	type view = *nodev1.ClusterView
	for _, c := range []struct {
		name      string
		tell      func(r *rig)
		leader    string
		followers []string
	}{
		{"all is well", func(*rig) {}, id(0), []string{id(1), id(2)}},
		{"a follower that is not ready is not read from", func(r *rig) {
			r.nodes[1].says(func(v view) { v.Ready = false })
		}, id(0), []string{id(2)}},
		{"a follower that drains is not read from", func(r *rig) {
			r.nodes[1].says(func(v view) { v.Draining = true })
		}, id(0), []string{id(2)}},
		{"a follower too far behind is not read from", func(r *rig) {
			r.nodes[2].says(func(v view) { v.Visible = 899 })
		}, id(0), []string{id(1)}},
		{"one just near enough is", func(r *rig) {
			r.nodes[2].says(func(v view) { v.Visible = 900 })
			r.nodes[1].says(func(v view) { v.Ready = false })
		}, id(0), []string{id(2)}},
		{"with a leader, all too far behind means the leader is read from", func(r *rig) {
			r.nodes[1].says(func(v view) { v.Visible = 0 })
			r.nodes[2].says(func(v view) { v.Visible = 0 })
		}, id(0), nil},
		{"without one, the least behind is kept", func(r *rig) {
			r.nodes[1].says(func(v view) { v.Visible, v.Term, v.LeaderId = 10, 2, "" })
			r.nodes[2].says(func(v view) { v.Visible = 20 })
			r.nodes[0].says(func(v view) { v.Draining = true })
		}, "", []string{id(2)}},
		{"a leader that drains is not produced to", func(r *rig) {
			r.nodes[0].says(func(v view) { v.Draining = true })
		}, "", []string{id(1), id(2)}},
		{"one node has heard of a new leader", func(r *rig) {
			r.nodes[2].says(func(v view) { v.Term, v.LeaderId = 2, id(1) })
		}, id(1), []string{id(0), id(2)}},
		{"one node has heard of a new term only", func(r *rig) {
			r.nodes[2].says(func(v view) { v.Term, v.LeaderId = 2, "" })
		}, "", []string{id(0), id(1), id(2)}},
		{"the leader has lost its followers", func(r *rig) {
			r.nodes[0].says(func(v view) { v.LeaderId = "" })
		}, "", []string{id(0), id(1), id(2)}},
		{"the followers have lost the leader, which holds on", func(r *rig) {
			r.nodes[1].says(func(v view) { v.LeaderId = "" })
			r.nodes[2].says(func(v view) { v.LeaderId, v.Draining = "", true })
		}, id(0), []string{id(1)}},
		{"a follower has lost the leader, and another has not", func(r *rig) {
			r.nodes[1].says(func(v view) { v.LeaderId = "" })
		}, id(0), []string{id(2)}},
		{"as long as nobody leads, who knows of no leader is as good as any", func(r *rig) {
			r.nodes[0].says(func(v view) { v.LeaderId = "" })
			r.nodes[1].says(func(v view) { v.LeaderId = "" })
		}, "", []string{id(0), id(1), id(2)}},
		{"of followers that have all lost the leader, the least behind is kept", func(r *rig) {
			r.nodes[1].says(func(v view) { v.LeaderId, v.Visible = "", 980 })
			r.nodes[2].says(func(v view) { v.LeaderId, v.Visible = "", 990 })
		}, id(0), []string{id(2)}},
		{"a leader that nobody knows the address of", func(r *rig) {
			r.all(func(v view) { v.Term, v.LeaderId = 2, "n9.00000009" })
		}, "", []string{id(0), id(1), id(2)}},
		{"a node of another cluster", func(r *rig) {
			r.nodes[2].says(func(v view) { v.ClusterId, v.Term, v.LeaderId, v.Visible = other, 9, id(2), 1<<40 })
		}, id(0), []string{id(1)}},
		{"a node of no cluster", func(r *rig) {
			r.nodes[2].says(func(v view) { v.ClusterId, v.Ready, v.Term, v.LeaderId = "", false, 9, "" })
		}, id(0), []string{id(1)}},
		{"another node at a node's address", func(r *rig) {
			r.nodes[2].says(func(v view) { v.NodeId = "n2.ffffffff" })
		}, id(0), []string{id(1)}},
		{"a leader that turns out to be another node", func(r *rig) {
			r.nodes[0].says(func(v view) { v.NodeId = "n0.ffffffff" })
		}, "", []string{id(1), id(2)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, 3, nil)
			r.known()
			r.sees(id(0), id(1), id(2))
			c.tell(r)
			r.sees(c.leader, c.followers...)
		})
	}
}

func TestNoLagIsTooMuchWithoutALimit(t *testing.T) {
	r := newRig(t, 2, func(c *control.Config) { c.MaxLag = 0 })
	r.nodes[1].says(func(v *nodev1.ClusterView) { v.Visible = 0 })
	r.known()
	r.sees(id(0), id(1))
}

func TestAFollowerThatFoundTheLeaderAgainIsReadFrom(t *testing.T) {
	r := newRig(t, 3, func(c *control.Config) { c.StallAfter = 300 * time.Millisecond })
	r.known()
	r.sees(id(0), id(1), id(2))
	r.nodes[2].says(func(v *nodev1.ClusterView) { v.LeaderId = "" })
	r.sees(id(0), id(1))
	r.eventually(func() error {
		if n := r.c.Status().Nodes[2]; !n.CutOff || n.Readable {
			return fmt.Errorf("not told: %+v", n)
		}
		return nil
	})
	r.nodes[2].says(func(v *nodev1.ClusterView) { v.LeaderId = id(0) })
	r.sees(id(0), id(1), id(2))
}

// Gossip tells addresses. It cannot make a leader, and losing a node in it
// does not unmake one.
func TestDiscoveryMovesAddressesOnly(t *testing.T) {
	r := newRig(t, 3, nil)
	r.known()
	r.sees(id(0), id(1), id(2))

	// The configuration still has node 0, so it stays.
	r.send([]discovery.Node{{ID: id(1), RPCAddr: r.nodes[1].addr}})
	r.send([]discovery.Node{{ID: id(1), RPCAddr: r.nodes[1].addr}}) // the first has been taken in
	lead, reads := routes(r.holder.Load())
	require.Equal(t, id(0), lead)
	require.Equal(t, []string{id(1), id(2)}, reads)

	// It moves: the same node elsewhere is another connection.
	r.nodes[0].stop()
	r.sees("", id(1), id(2))
	r.nodes[0].addr = ""
	r.nodes[0].start()
	r.known()
	tab := r.sees(id(0), id(1), id(2))
	require.Equal(t, r.nodes[0].addr, tab.Leader.Addr())
}

func TestANodeThatLeftIsForgotten(t *testing.T) {
	r := newRig(t, 3, nil)
	r.known()
	r.sees(id(0), id(1), id(2))
	r.all(func(v *nodev1.ClusterView) { v.Peers = v.Peers[:2] })
	r.nodes = r.nodes[:2]
	r.known()
	tab := r.sees(id(0), id(1))
	require.Len(t, tab.Nodes, 2)
}

func TestOnlySomeOfManyNodesAreWatched(t *testing.T) {
	const n, limit = 7, 3
	r := newRig(t, n, func(c *control.Config) { c.WatchLimit = limit })
	r.known()
	// The others are read from on the strength of their connection.
	r.sees(id(0), id(1), id(2), id(3), id(4), id(5), id(6))
	watched := func() (open, leader int) {
		for _, f := range r.nodes {
			open += f.watched()
		}
		return open, r.nodes[0].watched()
	}
	settled := func() error {
		if open, leader := watched(); open != limit || leader != 1 {
			return fmt.Errorf("%d watches, %d of the leader", open, leader)
		}
		return nil
	}
	r.eventually(settled)

	// A watched node that goes is replaced by one that was not.
	for i := n - 1; i > 0; i-- {
		if r.nodes[i].watched() == 1 {
			r.nodes[i].stop()
			break
		}
	}
	r.eventually(settled)
}

// What comes back at the address of a node that is not watched may be of another
// cluster, and is read from when it has been seen not to be.
func TestANodeOfAnotherClusterAmongManyIsNotReadFrom(t *testing.T) {
	r := newRig(t, 7, func(c *control.Config) { c.WatchLimit = 2 })
	r.known()
	r.sees(id(0), id(1), id(2), id(3), id(4), id(5), id(6))
	require.Empty(t, r.c.Status().OtherID)
	strays := r.nodes[4:]
	for _, f := range strays {
		f.stop()
	}
	r.sees(id(0), id(1), id(2), id(3))
	for _, f := range strays {
		f.says(func(v *nodev1.ClusterView) { v.ClusterId = other })
		f.start()
	}
	r.eventually(func() error {
		st := r.c.Status()
		for _, s := range st.Nodes {
			stray := s.ID >= id(4)
			require.False(t, stray && s.Readable, "%+v", s)
			if stray && s.Problem == "" {
				return fmt.Errorf("%+v", s)
			}
		}
		return nil
	})
	require.Equal(t, other, r.c.Status().OtherID)
	r.sees(id(0), id(1), id(2), id(3))
}

func TestASeedThatIsReplacedByAnotherNode(t *testing.T) {
	r := newRig(t, 2, nil)
	// Alone in the configuration and the source, each is known by its seed only.
	r.all(func(v *nodev1.ClusterView) { v.Peers = nil })
	r.nodes[1].says(func(v *nodev1.ClusterView) { v.LeaderId = "" })
	r.seeds(1)
	r.sees("", id(1))
	r.nodes[1].stop()
	r.nodes[1].says(func(v *nodev1.ClusterView) { v.NodeId, v.Term, v.LeaderId = id(3), 2, id(3) })
	r.nodes[1].start()
	r.sees(id(3))
}

func TestNothingIsThere(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, lis.Close())
	r := newRig(t, 1, nil)
	r.send([]discovery.Node{{ID: "x.00000001", RPCAddr: lis.Addr().String()}, {RPCAddr: lis.Addr().String()}})
	r.eventually(func() error {
		if st := r.c.Status(); len(st.Nodes) != 1 || st.Nodes[0].Connection != "TRANSIENT_FAILURE" {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	r.sees("")
}

func TestTheLastTableOutlivesControl(t *testing.T) {
	r := newRig(t, 3, nil)
	r.known()
	tab := r.sees(id(0), id(1), id(2))
	require.ErrorIs(t, r.stop(), context.Canceled)
	require.Same(t, tab, r.holder.Load())
	u, ok := tab.PickReader("", nil)
	require.True(t, ok)
	_, err := nodev1.NewNodeClient(u.Conn()).Stats(testutil.Context(t, bound), &nodev1.StatsRequest{})
	require.ErrorContains(t, err, "Stats not implemented") // it was reached
}

func TestMetricsTellTheTable(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	r := newRig(t, 3, func(c *control.Config) { c.Registerer = reg })
	r.known()
	r.sees(id(0), id(1), id(2))
	r.nodes[1].says(func(v *nodev1.ClusterView) { v.Visible = 500 })
	r.sees(id(0), id(2))

	got, err := reg.Gather()
	require.NoError(t, err)
	values := map[string]float64{}
	for _, f := range got {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += " " + l.GetValue()
			}
			values[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	require.EqualValues(t, 1, values["logproxy_upstream_is_leader "+id(0)])
	require.EqualValues(t, 0, values["logproxy_upstream_is_leader "+id(1)])
	require.EqualValues(t, 0, values["logproxy_upstream_healthy "+id(1)])
	require.EqualValues(t, 1, values["logproxy_upstream_healthy "+id(2)])
	require.EqualValues(t, 500, values["logproxy_upstream_lag_records "+id(1)])
	require.EqualValues(t, 1, values["logproxy_leader_changes_total"])
	problems, err := promlint.NewWithMetricFamilies(got).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)
}
