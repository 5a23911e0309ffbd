package control_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/proxy/control"
)

// A view that was long on its way tells of a leader that is no more.
func TestAStaleViewMovesNothing(t *testing.T) {
	r := newRig(t, 3, nil)
	r.all(func(v *nodev1.ClusterView) { v.Term, v.LeaderId = 5, id(1) })
	r.known()
	r.sees(id(1), id(0), id(2))
	r.nodes[2].says(func(v *nodev1.ClusterView) { v.Term, v.LeaderId, v.Draining = 4, id(0), true })
	tab := r.sees(id(1), id(0)) // that it drains is news, so the view has been read
	require.EqualValues(t, 5, tab.Term)
}

func TestATermNeverFalls(t *testing.T) {
	r := newRig(t, 3, nil)
	r.known()
	tab := r.sees(id(0), id(1), id(2))
	last := tab.Term
	for term := uint64(2); term < 8; term++ {
		i := int(term % 3)
		r.nodes[i].says(func(v *nodev1.ClusterView) { v.Term, v.LeaderId = term, id(i) })
		var others []string
		for j := range 3 {
			if j != i {
				others = append(others, id(j))
			}
		}
		tab = r.sees(id(i), others...)
		require.Greater(t, tab.Term, last)
		last = tab.Term
	}
}

func TestAViewThatSaysNothingNewPublishesNothing(t *testing.T) {
	r := newRig(t, 3, nil)
	r.known()
	tab := r.sees(id(0), id(1), id(2))
	r.all(func(v *nodev1.ClusterView) { v.Visible++ })
	r.eventually(func() error { // seen by control
		for _, n := range r.c.Status().Nodes {
			if n.Visible != 1001 {
				return fmt.Errorf("%s is at %d", n.ID, n.Visible)
			}
		}
		return nil
	})
	require.Same(t, tab, r.holder.Load())
}

func TestADeadLeaderIsHeldForAndANewOneFound(t *testing.T) {
	r := newRig(t, 3, nil)
	r.known()
	r.sees(id(0), id(1), id(2))
	r.nodes[0].stop()
	r.sees("", id(1), id(2)) // although both still say that it leads
	r.nodes[2].says(func(v *nodev1.ClusterView) { v.Term, v.LeaderId = 2, id(2) })
	r.sees(id(2), id(1))

	r.nodes[0].says(func(v *nodev1.ClusterView) { v.Ready, v.LeaderId = false, "" })
	r.nodes[0].start()
	r.eventually(func() error {
		if n := r.c.Status().Nodes[0]; !n.Watched {
			return fmt.Errorf("not heard of yet: %+v", n)
		}
		return nil
	})
	r.sees(id(2), id(1))
	r.nodes[0].says(func(v *nodev1.ClusterView) { v.Ready, v.Term, v.LeaderId = true, 2, id(2) })
	r.sees(id(2), id(0), id(1))
}

func TestALeaderThatComesBackInItsTermLeadsOn(t *testing.T) {
	r := newRig(t, 3, nil)
	r.known()
	r.sees(id(0), id(1), id(2))
	r.nodes[0].stop()
	r.sees("", id(1), id(2))
	r.nodes[0].start()
	r.sees(id(0), id(1), id(2))
}

func TestAStalledWatchIsOpenedAgainAndCostsTheLeaderNothing(t *testing.T) {
	r := newRig(t, 3, func(c *control.Config) { c.StallAfter = 300 * time.Millisecond })
	r.known()
	r.sees(id(0), id(1), id(2))

	r.nodes[0].falls(true)
	r.nodes[1].falls(true)
	r.sees(id(0), id(2))
	r.eventually(func() error {
		if n := r.c.Status().Nodes[0]; n.Watched {
			return fmt.Errorf("the leader's watch does not count as stalled: %+v", n)
		}
		return nil
	})
	r.nodes[2].falls(true) // the last follower is kept, whatever is thought of it
	r.eventually(func() error {
		if n := r.c.Status().Nodes[2]; n.Watched {
			return fmt.Errorf("still watched: %+v", n)
		}
		return nil
	})
	lead, reads := routes(r.holder.Load())
	require.Equal(t, id(0), lead)
	require.Len(t, reads, 1)

	for _, f := range r.nodes {
		f.falls(false)
	}
	r.sees(id(0), id(1), id(2))
}

func TestAStoppedLeaderIsLeftByItsFollowersWord(t *testing.T) {
	r := newRig(t, 3, nil)
	r.known()
	r.sees(id(0), id(1), id(2))
	r.nodes[0].falls(true)
	r.nodes[1].says(func(v *nodev1.ClusterView) { v.Term, v.LeaderId = 2, id(1) })
	require.Equal(t, id(1), r.sees(id(1), id(2)).Leader.ID())
}
