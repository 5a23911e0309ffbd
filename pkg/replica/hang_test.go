package replica_test

import (
	"context"
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
)

// I14: a write that hangs ends the node as well, and the others go on; a leader
// whose disk hangs would otherwise keep its cluster for ever, since its
// heartbeats do not wait for the disk.
func TestAHungWriteEndsTheNode(t *testing.T) {
	t.Parallel()
	var on faultfs.Switch
	hang := faultfs.NewHang()
	rule := faultfs.When(faultfs.All(faultfs.Is(faultfs.Sync), func(op faultfs.Op) bool {
		return strings.HasSuffix(path.Base(op.Path), ".seg")
	}, on.On), hang.Act)
	c := boot(t, 3, nil)
	id := c.leader().id
	require.NoError(t, c.node(id).stop())
	c.conf = func(cfg *replica.Config) {
		if cfg.ID == id {
			cfg.FS = faultfs.Wrap(cfg.FS, rule)
		}
	}
	n := c.node(id)
	n.start()
	c.produce([16]byte{1}, 0, "before")
	n.visible(1)
	l := c.leader()
	if l != n {
		n.await("ready", func(v replica.View) bool { return v.Ready })
		require.NoError(t, l.r.Transfer(context.Background(), id))
		n.await("leads", func(v replica.View) bool { return v.IsLeader })
	}
	on.Set(true)
	p, err := n.r.Submit(one("stuck"))
	require.NoError(t, err)
	var fatal *replica.FatalError
	require.ErrorAs(t, <-n.ended, &fatal)
	require.ErrorContains(t, fatal, "has not returned")
	_, err = p.Result()
	require.ErrorIs(t, err, replica.ErrOutcomeUnknown)
	c.mu.Lock()
	r := n.r
	n.r = nil
	c.mu.Unlock()
	require.ErrorAs(t, r.Close(), &fatal, "nothing can be released under the write")
	c.produce([16]byte{1}, 1, "after")
	on.Set(false)
	hang.Release(nil)
}
