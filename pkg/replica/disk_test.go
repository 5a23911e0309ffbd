package replica_test

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
)

// sick is a cluster whose leader has a disk that fails by rule once on is set.
func sick(t *testing.T, when faultfs.Predicate, then faultfs.Action) (c *cluster, n *node, on *faultfs.Switch) {
	switches := map[string]*faultfs.Switch{}
	for i := 1; i <= 3; i++ {
		switches[nodeID(i)] = new(faultfs.Switch)
	}
	c = boot(t, 3, func(cfg *replica.Config) {
		cfg.Heartbeat = 300 * time.Millisecond
		cfg.SegmentBytes, cfg.CacheBytes, cfg.CheckpointEntries = 4096, 2048, 16
		cfg.FS = faultfs.Wrap(cfg.FS, faultfs.When(faultfs.All(switches[cfg.ID].On, when), then))
	})
	for i := range 20 {
		c.produce([16]byte{1}, uint64(i), fmt.Sprintf("record %d", i))
	}
	n = c.leader()
	return c, n, switches[n.id]
}

// I14: whatever part of a write fails on the leader, it stops, the others go on,
// and on a sound disk it comes back with everything.
func TestALeadersDiskFails(t *testing.T) {
	segment := faultfs.Name("*.free") // what a segment's file was opened as
	for name, tc := range map[string]struct {
		when faultfs.Predicate
		then faultfs.Action
	}{
		"write":                  {faultfs.All(faultfs.Is(faultfs.Write), segment), faultfs.Fail(syscall.EIO)},
		"short write":            {faultfs.All(faultfs.Is(faultfs.Write), segment), faultfs.Short(30, io.ErrShortWrite)},
		"silent short write":     {faultfs.All(faultfs.Is(faultfs.Write), segment), faultfs.Short(30, nil)},
		"full during a write":    {faultfs.All(faultfs.Is(faultfs.Write), segment), faultfs.Fail(syscall.ENOSPC)},
		"sync":                   {faultfs.All(faultfs.Is(faultfs.Sync), segment), faultfs.Fail(syscall.EIO)},
		"roll":                   {faultfs.All(faultfs.Is(faultfs.Rename), segment), faultfs.Fail(syscall.EIO)},
		"directory":              {faultfs.Is(faultfs.SyncDir), faultfs.Fail(syscall.EIO)},
		"offset index":           {faultfs.All(faultfs.Is(faultfs.Write), faultfs.Name("*.off")), faultfs.Fail(syscall.EIO)},
		"checkpoint":             {faultfs.All(faultfs.Is(faultfs.Sync), faultfs.Name("*.ckp.tmp")), faultfs.Fail(syscall.EIO)},
		"sync of the offsets":    {faultfs.All(faultfs.Is(faultfs.Sync), faultfs.Name("*.off")), faultfs.Fail(syscall.EIO)},
		"everything but reading": {faultfs.Is(faultfs.Write, faultfs.Sync, faultfs.Create, faultfs.Rename, faultfs.Remove, faultfs.SyncDir, faultfs.Truncate, faultfs.Allocate), faultfs.Fail(syscall.EIO)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, n, on := sick(t, tc.when, tc.then)
				on.Set(true)
				for i := 20; i < 150; i++ {
					c.produce([16]byte{1}, uint64(i), fmt.Sprintf("record %d", i))
				}
				var fatal *replica.FatalError
				require.ErrorAs(t, <-n.ended, &fatal)
				c.mu.Lock()
				r := n.r
				n.r = nil
				c.mu.Unlock()
				_ = r.Close() // on a broken disk
				on.Set(false)
				n.fs = n.fs.Crash(7)
				n.start()
				for _, x := range c.up() {
					x.visible(150)
					_, msgs := x.read()
					require.Equal(t, numbered(0, 150), msgs, x.id)
				}
				c.close()
			})
		})
	}
}

// A leader whose disk is full leaves leading to others; there is nothing to stop
// for, and with room again it follows on.
func TestALeadersDiskIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n, on := sick(t, faultfs.Is(faultfs.Create, faultfs.Allocate), faultfs.Fail(syscall.ENOSPC))
		on.Set(true)
		begin := time.Now()
		for i := 20; i < 250; i++ {
			c.produce([16]byte{1}, uint64(i), fmt.Sprintf("record %d", i))
		}
		t.Logf("230 records in %v", time.Since(begin))
		require.Less(t, time.Since(begin), 30*time.Second)
		select {
		case err := <-n.ended:
			require.Fail(t, "a full disk stopped the node", "%v", err)
		default:
		}
		on.Set(false)
		for _, x := range c.up() {
			x.visible(250)
			_, msgs := x.read()
			require.Equal(t, numbered(0, 250), msgs, x.id)
		}
		require.False(t, errors.Is(n.stop(), syscall.ENOSPC))
		c.close()
	})
}
