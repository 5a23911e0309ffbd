package devcluster_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/devcluster"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
)

// A sync that fails ends the leader, in the middle of a goroutine of Raft's, and
// nothing else in the process: clients notice a pause, and the node can be opened
// again where it was.
func TestANodeWhoseDiskFailsEndsAlone(t *testing.T) {
	broken := map[string]*faultfs.Switch{}
	disks := map[string]vfs.FS{}
	for _, name := range []string{"node1", "node2", "node3"} {
		broken[name] = new(faultfs.Switch)
		disks[name] = faultfs.Wrap(vfs.OS{}, faultfs.When(
			faultfs.All(broken[name].On, faultfs.Is(faultfs.Sync)), faultfs.Fail(syscall.EIO)))
	}
	c := start(t, devcluster.Options{Disks: disks})
	log := client(t, c)
	put := func() uint64 {
		resp, err := log.Produce(t.Context(), &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte("x")}})
		require.NoError(t, err)
		return resp.GetOffset()
	}
	put()
	n := c.Leader()
	broken[n.Name].Set(true)
	put()
	err := <-c.Failed()
	var fatal *replica.FatalError
	require.ErrorAs(t, err, &fatal)
	require.ErrorIs(t, err, syscall.EIO)
	require.True(t, strings.HasPrefix(err.Error(), n.Name+": "), err)
	put()
	testutil.Eventually(t, patience, func() error {
		if n.Running() {
			return errors.New("it is being closed")
		}
		return nil
	})
	broken[n.Name].Set(false)
	require.NoError(t, n.Revive())
	last := put()
	testutil.Eventually(t, patience, func() error {
		a := n.Agent()
		if v := a.View(); !v.Ready {
			return errors.New("not ready")
		}
		return nil
	})
	require.GreaterOrEqual(t, last, uint64(3))
}
