package replica_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
)

// I14: whatever operation hangs on the leader's disk, that node ends, the others
// elect one of theirs and go on, nothing that hung is acknowledged when the disk
// comes back to life, and the node can be opened again then. It takes real time:
// who waits for a lock of a goroutine that hangs keeps virtual time from passing.
func TestAnyHungOperationEndsTheNode(t *testing.T) {
	t.Parallel()
	is := func(kind faultfs.Kind, name string) faultfs.Predicate {
		return faultfs.All(faultfs.Is(kind), faultfs.Name(name))
	}
	for name, when := range map[string]faultfs.Predicate{
		"sync of a segment": is(faultfs.Sync, "*.free"), // what it was opened as
		"preallocation":     is(faultfs.Allocate, "*.free"),
		"durable end":       is(faultfs.Write, "durable-end"),
		"offset index":      is(faultfs.Write, "*.off"),
		"checkpoint":        is(faultfs.Sync, "*.ckp.tmp"),
		"directory":         faultfs.Is(faultfs.SyncDir),
		"free space":        faultfs.Is(faultfs.Free),
		"votes":             is(faultfs.Sync, "raft-state"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hang := faultfs.NewHang()
			c, n, on := sick(t, when, hang.Act)
			t.Cleanup(func() { on.Set(false); hang.Release(nil) }) // before the cluster's own
			on.Set(true)
			stuck, _ := n.r.Submit(one("stuck"))
			if name == "votes" { // another term begins, and it has to note that
				s := &sim{cluster: c}
				s.partition(n)
				n.await("deposed", func(v replica.View) bool { return v.State != replica.StateLeader })
				c.leader()
				s.heal()
			}
			var load sync.WaitGroup
			load.Go(func() {
				for i := 20; i < 150; i++ {
					c.produce([16]byte{1}, uint64(i), fmt.Sprintf("record %d", i))
				}
			})
			soon := time.After(testPatience)
			select {
			case <-hang.Entered():
			case <-soon:
				require.Fail(t, "nothing hung")
			}
			var fatal *replica.FatalError
			select {
			case err := <-n.ended:
				require.ErrorAs(t, err, &fatal)
				require.ErrorContains(t, fatal, "has not returned")
			case <-soon:
				require.Fail(t, "the node did not end")
			}
			load.Wait()
			c.mu.Lock()
			r := n.r
			n.r = nil
			c.mu.Unlock()
			require.ErrorAs(t, r.Close(), &fatal, "nothing can be released under it")
			if stuck != nil {
				<-stuck.Done()
			}
			before, crashed := r.Log().Last(), n.fs.Crash(7)
			on.Set(false)
			hang.Release(nil)
			n.fs = crashed
			n.start()
			c.equal()
			for _, x := range c.up() {
				x.visible(150)
				_, msgs := x.read()
				require.Subset(t, msgs, numbered(0, 150), x.id)
			}
			require.Equal(t, before, r.Log().Last(), "nothing comes of what hung")
		})
	}
}
