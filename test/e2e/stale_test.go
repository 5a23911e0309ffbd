//go:build system

package e2e_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// A leader that its followers have lost, and the proxy has not: what it is sent
// until it knows is not acknowledged by it, its word on the end of the log is not
// taken, and clients see a pause and nothing else.
func TestSystemLeaderLostByFollowersOnly(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	w, h := startOnHosts(t)
	c := newCrowd(w)
	c.start()
	for range 5 {
		old := w.leader()
		for i := range w.Nodes {
			if w.Nodes[i] != old {
				h.deafen(w.number(old), i+1)
				h.deafen(i+1, w.number(old))
			}
		}
		w.leaderOtherThan(old)
		w.until("the old leader steps down", func() error {
			st, err := w.Stats(w.ctx, old)
			if err == nil && st.GetState() == "leader" {
				err = errors.New("it still leads")
			}
			return err
		})
		for i := range w.Nodes {
			if w.Nodes[i] != old {
				h.undeafen(w.number(old), i+1)
				h.undeafen(i+1, w.number(old))
			}
		}
		w.follows(old)
	}
	for _, n := range w.Nodes {
		require.NoError(t, w.NodeReady(w.ctx, n))
	}
	c.finish()
}
