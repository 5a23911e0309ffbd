//go:build system

package e2e_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/test/harness"
)

func startOnHosts(t *testing.T) (*world, *hosts) {
	t.Helper()
	h := newHosts(t)
	w := prepare(t, h)
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))
	return w, h
}

// number is the host of a node.
func (w *world) number(n *harness.Node) int { return slices.Index(w.Nodes, n) + 1 }

// leaderOtherThan waits until another node than old leads.
func (w *world) leaderOtherThan(old *harness.Node) (leader *harness.Node) {
	w.t.Helper()
	w.until("another leader", func() error {
		for _, n := range w.Nodes {
			if n == old {
				continue
			}
			if st, err := w.Stats(w.ctx, n); err == nil && st.GetState() == "leader" && st.GetReady() {
				leader = n
				return nil
			}
		}
		return errors.New("nobody else leads")
	})
	return leader
}

func (w *world) follows(n *harness.Node) {
	w.t.Helper()
	w.until(n.Name+" follows", func() error {
		st, err := w.Stats(w.ctx, n)
		if err != nil {
			return err
		}
		if st.GetState() != "follower" || !st.GetReady() {
			return fmt.Errorf("it is %s, ready %t", st.GetState(), st.GetReady())
		}
		return nil
	})
}

// A leader cut off from everybody: the others go on, and it comes back as a
// follower with the same log.
func TestSystemLeaderIsolated(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	w, h := startOnHosts(t)
	tr := w.load()
	tr.more(200)
	for range 3 {
		old := w.leader()
		h.cut(w.number(old))
		w.leaderOtherThan(old)
		tr.more(200)
		h.heal(w.number(old))
		w.follows(old)
		tr.more(100)
	}
	tr.finish()
}

// The leader cannot reach one follower, which can reach it: nobody is lost, and
// there is one leader at the end.
func TestSystemOneWayCut(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	w, h := startOnHosts(t)
	tr := w.load()
	tr.more(200)
	leader, follower := w.leader(), w.follower()
	h.deafen(w.number(leader), w.number(follower))
	w.until(follower.Name+" misses its leader", func() error {
		st, err := w.Stats(w.ctx, follower)
		if err != nil {
			return err
		}
		if st.GetState() == "follower" {
			return errors.New("it still follows")
		}
		return nil
	})
	tr.more(300)
	require.Equal(t, leader, w.leader(), "who cannot hear the leader does not depose it")
	h.undeafen(w.number(leader), w.number(follower))
	tr.more(200)
	for _, n := range w.Nodes {
		require.NoError(t, w.NodeReady(w.ctx, n))
	}
	tr.finish()
}

// Both followers cut off: nothing can be acknowledged, the proxy holds, and when
// they are back every held produce is answered.
func TestSystemMajorityLost(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	w, h := startOnHosts(t)
	tr := w.load()
	tr.more(200)
	leader := w.leader()
	var cut []int
	for _, n := range w.Nodes {
		if n != leader {
			cut = append(cut, w.number(n))
			h.cut(w.number(n))
		}
	}
	w.until("the leader steps down", func() error {
		st, err := w.Stats(w.ctx, leader)
		if err != nil {
			return err
		}
		if st.GetState() == "leader" {
			return errors.New("it still leads")
		}
		return nil
	})
	acked := tr.Acked()
	for _, i := range cut {
		h.heal(i)
	}
	tr.more(300)
	require.Greater(t, tr.Acked(), acked)
	tr.finish()
}
