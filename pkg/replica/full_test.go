package replica_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
)

// grows matches what a full disk refuses: new names, and bytes where none were
// preallocated. Segments are preallocated, the small files are written in place,
// and a segment that gets its name gives one back.
var grows = faultfs.Any(
	faultfs.Is(faultfs.Create, faultfs.Allocate),
	faultfs.All(faultfs.Is(faultfs.Write, faultfs.Rename), faultfs.Any(faultfs.Name("*.tmp"), faultfs.Name("*.off"))),
)

// fullFrom is a disk that is full from the nth growing operation on, until freed.
type fullFrom struct {
	n     int64
	seen  atomic.Int64
	full  atomic.Bool
	freed atomic.Bool
	when  chan struct{} // closed when it gets full
	once  sync.Once
}

func (f *fullFrom) matches(op faultfs.Op) bool {
	if f.freed.Load() || !grows(op) || f.seen.Add(1) < f.n {
		return false
	}
	f.once.Do(func() { close(f.when) })
	f.full.Store(true)
	return true
}

// fullAt runs a workload of produces, checkpoints and retention on a cluster of
// whose nodes the first few have a disk that is full from its nth growing
// operation on, for some seconds. It answers how many there were without.
func fullAt(t *testing.T, n int64, nodes int, leads bool) (ops int64) {
	synctest.Test(t, func(t *testing.T) {
		faults := map[string]*fullFrom{}
		var mu sync.Mutex
		var armed atomic.Bool
		c := boot(t, 3, func(cfg *replica.Config) {
			cfg.Heartbeat = 300 * time.Millisecond
			cfg.SegmentBytes, cfg.CacheBytes, cfg.CheckpointEntries = 4096, 2048, 16
			f := &fullFrom{n: n, when: make(chan struct{})}
			mu.Lock()
			faults[cfg.ID] = f
			mu.Unlock()
			id := cfg.ID
			cfg.FS = faultfs.Wrap(cfg.FS, faultfs.When(func(op faultfs.Op) bool {
				if !armed.Load() {
					return false
				}
				mu.Lock()
				f := faults[id]
				mu.Unlock()
				return f != nil && f.matches(op)
			}, faultfs.Fail(syscall.ENOSPC)))
		})
		p := [16]byte{1}
		for i := range 20 {
			c.produce(p, uint64(i), fmt.Sprintf("record %d", i))
		}
		// The leader is among the full ones, or not.
		l := c.leader()
		sick := 0
		for _, x := range c.up() {
			if (x == l) != leads && nodes < 3 || sick == nodes {
				mu.Lock()
				faults[x.id] = nil
				mu.Unlock()
				continue
			}
			sick++
		}
		armed.Store(true)
		var freed sync.WaitGroup
		for _, f := range faults {
			if f == nil {
				continue
			}
			freed.Go(func() {
				select {
				case <-f.when:
				case <-t.Context().Done():
					return
				}
				time.Sleep(3 * time.Second)
				f.freed.Store(true)
			})
		}
		for i := 20; i < 150; i++ {
			c.produce(p, uint64(i), fmt.Sprintf("record %d", i))
			if i%40 == 0 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				_ = c.leader().r.SetLowest(ctx, uint64(i-30)) // it may meet a change of leader
				cancel()
			}
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		for _, f := range faults {
			if f == nil {
				continue
			}
			if !f.full.Load() { // there were not as many operations
				f.once.Do(func() { close(f.when) })
			}
			ops = max(ops, f.seen.Load())
		}
		freed.Wait()
		for i := 150; i < 170; i++ {
			c.produce(p, uint64(i), fmt.Sprintf("record %d", i))
		}
		c.equal() // before a look: a node that installs a checkpoint shows less for a moment
		for _, x := range c.up() {
			x.visible(170)
			lowest, msgs := x.read()
			require.Equal(t, numbered(int(lowest), 170), msgs, x.id)
			select {
			case err := <-x.ended:
				require.Fail(t, "a full disk stopped the node", "%s: %v", x.id, err)
			default:
			}
		}
		// And it is all on the disks: they restart from what they hold.
		for _, x := range c.up() {
			require.False(t, errors.Is(x.stop(), syscall.ENOSPC))
			x.fs = x.fs.Crash(uint64(n))
			x.start()
		}
		c.equal()
		for _, x := range c.up() {
			x.visible(170)
			lowest, msgs := x.read()
			require.Equal(t, numbered(int(lowest), 170), msgs, x.id)
		}
		c.close()
	})
	return ops
}

// A disk that gets full at any write, and has room again some seconds later, on
// the leader, on a follower, on all nodes: nothing acknowledged is lost, no node
// stops, and everything goes on by itself. LOGD_FULL=1 tries every operation, else
// it is some, by seed.
func TestAFullDiskAtEveryWrite(t *testing.T) {
	rng := rand.New(rand.NewPCG(uint64(simSeed(t)), 3))
	for name, tc := range map[string]struct {
		nodes int
		leads bool
	}{
		"leader": {1, true}, "follower": {1, false}, "all": {3, true},
	} {
		t.Run(name, func(t *testing.T) {
			last := fullAt(t, 1<<40, tc.nodes, tc.leads)
			require.Greater(t, last, int64(20))
			step := last/10 + 1
			if os.Getenv("LOGD_FULL") != "" {
				step = 1
			}
			runs, n := 0, 1+int64(rng.IntN(int(step)))
			for ; n <= last && !t.Failed(); n += step {
				fullAt(t, n, tc.nodes, tc.leads)
				runs++
			}
			if t.Failed() {
				t.Logf("full from operation %d on", n-step)
			}
			t.Logf("%d of %d operations", runs, last)
		})
	}
}
