package control_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/discovery"
	"github.com/logd-io/logd/pkg/proxy/control"
	"github.com/logd-io/logd/pkg/proxy/route"
)

func TestNotLeader(t *testing.T) {
	t.Run("corrects the table in one hop, with no watch that works", func(t *testing.T) {
		r := newRig(t, 3, func(c *control.Config) { c.StallAfter = 200 * time.Millisecond })
		r.known()
		r.sees(id(0), id(1), id(2))
		for _, f := range r.nodes {
			f.falls(true)
		}
		r.c.NotLeader(id(0), id(2), r.nodes[2].addr, 2)
		r.eventually(func() error {
			if lead, _ := routes(r.holder.Load()); lead != id(2) {
				return fmt.Errorf("leader is %q", lead)
			}
			return nil
		})
	})
	t.Run("brings the address of a leader that nobody knew", func(t *testing.T) {
		r := newRig(t, 3, nil)
		only := func(v *nodev1.ClusterView) { v.Peers = v.Peers[:2] }
		r.all(only)
		r.send([]discovery.Node{{ID: id(0), RPCAddr: r.nodes[0].addr}, {ID: id(1), RPCAddr: r.nodes[1].addr}})
		r.sees(id(0), id(1))
		r.c.NotLeader(id(0), id(2), r.nodes[2].addr, 2)
		r.sees(id(2), id(0), id(1))
	})
	t.Run("of the leader without a successor means hold", func(t *testing.T) {
		r := newRig(t, 3, func(c *control.Config) { c.StallAfter = 200 * time.Millisecond })
		r.known()
		r.sees(id(0), id(1), id(2))
		r.nodes[0].falls(true) // else it takes the word back at once
		r.eventually(func() error {
			r.c.NotLeader(id(0), "", "", 1) // a view it sent before may still come and take it back
			if lead, _ := routes(r.holder.Load()); lead != "" {
				return fmt.Errorf("leader is %q", lead)
			}
			return nil
		})
		r.nodes[0].falls(false)
		r.sees(id(0), id(1), id(2))
	})
	t.Run("of an older term, of a stranger, and of a node of another cluster change nothing", func(t *testing.T) {
		r := newRig(t, 3, nil)
		r.all(func(v *nodev1.ClusterView) { v.Term = 5 })
		r.known()
		r.sees(id(0), id(1), id(2))
		r.nodes[2].says(func(v *nodev1.ClusterView) { v.ClusterId = other })
		r.sees(id(0), id(1))
		r.eventually(func() error {
			if n := r.c.Status().Nodes[2]; n.Problem == "" {
				return fmt.Errorf("not seen yet: %+v", n)
			}
			return nil
		})
		r.c.NotLeader(id(1), id(1), r.nodes[1].addr, 4)
		r.c.NotLeader("n7.00000007", id(1), r.nodes[1].addr, 9)
		r.c.NotLeader(id(2), id(2), r.nodes[2].addr, 9)
		r.nodes[1].says(func(v *nodev1.ClusterView) { v.Draining = true })
		tab := r.sees(id(0))
		require.EqualValues(t, 5, tab.Term)
	})
}

// fails tells as often as it takes that requests fail on node i.
func (r *rig) fails(i int) {
	for range 3 {
		r.c.Failed(id(i), errUnavailable)
	}
}

func TestFailed(t *testing.T) {
	forLong := func(c *control.Config) { c.EjectBase = time.Hour }
	t.Run("rests a follower", func(t *testing.T) {
		r := newRig(t, 3, forLong)
		r.known()
		r.sees(id(0), id(1), id(2))
		r.fails(1)
		r.sees(id(0), id(2))
	})
	t.Run("for a time", func(t *testing.T) {
		r := newRig(t, 3, func(c *control.Config) { c.EjectBase = time.Millisecond })
		r.known()
		tab := r.sees(id(0), id(1), id(2))
		r.fails(1)
		select {
		case <-tab.Superseded():
		case <-time.After(bound):
			t.Fatal("it is not rested")
		}
		r.sees(id(0), id(1), id(2))
	})
	t.Run("never the last one", func(t *testing.T) {
		r := newRig(t, 3, forLong)
		r.known()
		r.sees(id(0), id(1), id(2))
		r.fails(1)
		r.sees(id(0), id(2))
		r.fails(2)
		r.sees(id(0), id(1)) // it has rested longer
	})
	t.Run("does not move the leader", func(t *testing.T) {
		r := newRig(t, 3, forLong)
		r.known()
		r.sees(id(0), id(1), id(2))
		r.fails(0)
		r.fails(1)
		r.sees(id(0), id(2))
	})
	t.Run("is weighed against the calls that were answered", func(t *testing.T) {
		r := newRig(t, 3, forLong)
		r.known()
		tab := r.sees(id(0), id(1), id(2))
		for range 20 { // a follower that fails one call of two
			r.c.Failed(id(1), errUnavailable)
			tab.Nodes[id(1)].Answered()
			r.heard()
		}
		for range 3 { // and one that fails all whose callers wait for it
			tab.Nodes[id(2)].Acquire()()
			r.c.Failed(id(2), errUnavailable)
			tab.Nodes[id(2)].Acquire()()
			r.heard()
		}
		r.sees(id(0), id(1))
	})
	t.Run("says nothing when the connection was let go", func(t *testing.T) {
		r := newRig(t, 4, forLong)
		r.known()
		r.sees(id(0), id(1), id(2), id(3))
		for range 10 {
			r.c.Failed(id(1), status.Error(codes.Canceled, "grpc: the client connection is closing"))
		}
		r.fails(2)
		r.sees(id(0), id(1), id(3))
	})
}

func TestHintsNeverBlock(t *testing.T) {
	c, err := control.New(control.Config{Holder: new(route.Holder)})
	require.NoError(t, err)
	for range 10_000 { // nobody reads them
		c.NotLeader(id(0), id(1), "", 2)
		c.Failed(id(0), errUnavailable)
	}
}
