package replica_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
)

// away keeps a follower down for that long under a steady load and says how long
// it took, once back, to have what the leader has.
func away(t *testing.T, down time.Duration, cut bool, off ...replica.Switch) (took time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		c := boot(t, 3, func(cfg *replica.Config) { cfg.Heartbeat = 300 * time.Millisecond }, off...)
		p := [16]byte{1}
		c.produce(p, 0, "record 0")
		lead := c.leader()
		var n *node
		for _, x := range c.up() {
			if x != lead {
				n = x
			}
		}
		s := c
		if cut {
			s.partition(n)
		} else {
			_ = n.stop()
		}
		next := uint64(1)
		for begin := time.Now(); time.Since(begin) < down; next++ {
			c.produce(p, next, fmt.Sprintf("record %d", next))
			time.Sleep(time.Second)
		}
		back := time.Now()
		if cut {
			s.heal()
		} else {
			n.start()
		}
		n.visible(next)
		took = time.Since(back)
		// Neither stepping down nor closing waits for who is away.
		for _, x := range c.up() {
			if x != c.leader() {
				_ = x.stop()
			}
		}
		l := c.up()[0]
		begin := time.Now()
		l.await("stepped down", func(v replica.View) bool { return v.State != replica.StateLeader })
		require.Less(t, time.Since(begin), 2*time.Second)
		begin = time.Now()
		require.NoError(t, l.stop())
		require.Less(t, time.Since(begin), time.Second)
	})
	return took
}

// I15: whoever comes back after a minute is replicated to at once.
func TestReplicationToANodeThatWasAway(t *testing.T) {
	for name, cut := range map[string]bool{"down": false, "cut off": true} {
		t.Run(name, func(t *testing.T) {
			took := away(t, 60*time.Second, cut)
			t.Logf("caught up after %v", took)
			require.Less(t, took, time.Second)
		})
	}
	t.Run("without the rule", func(t *testing.T) {
		// It comes back at any moment of a pause of up to ten seconds.
		var took time.Duration
		for try := 0; try < 8 && took <= time.Second; try++ {
			took = away(t, 60*time.Second, false, replica.NoPersist)
		}
		t.Logf("caught up after %v", took)
		require.Greater(t, took, time.Second)
	})
}
