package replica_test

import (
	"fmt"
	"io"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
)

// slowly produces for a minute on a cluster some of whose disks take that long to
// sync, and says how it went.
func slowly(t *testing.T, heartbeat, sync time.Duration, leader bool, followers int) (records int, terms uint64, longest time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		switches := map[string]*faultfs.Switch{}
		for i := range 3 {
			switches[nodeID(i+1)] = new(faultfs.Switch)
		}
		c := boot(t, 3, func(cfg *replica.Config) {
			cfg.Heartbeat = heartbeat
			cfg.FS = faultfs.Wrap(cfg.FS, faultfs.When(
				faultfs.All(switches[cfg.ID].On, faultfs.Is(faultfs.Sync, faultfs.SyncDir)),
				func(faultfs.Op) (int, error) { time.Sleep(sync); return -1, nil }))
		})
		l := c.leader()
		for i := range 3 {
			switch n := c.node(nodeID(i + 1)); {
			case n == l:
				switches[n.id].Set(leader)
			case followers > 0:
				followers--
				switches[n.id].Set(true)
			}
		}
		term := l.r.View().Term
		begin := time.Now()
		for ; time.Since(begin) < time.Minute; records++ {
			at := time.Now()
			c.produce([16]byte{1}, uint64(records), fmt.Sprintf("record %d", records))
			longest = max(longest, time.Since(at))
			time.Sleep(100 * time.Millisecond)
		}
		terms = c.leader().r.View().Term - term
		for _, x := range c.up() {
			x.visible(uint64(records))
			_, msgs := x.read()
			require.Equal(t, numbered(0, records), msgs, x.id)
		}
		c.close()
	})
	return records, terms, longest
}

// Slow disks cost time, and nothing else: a leader is not deposed for its own, nor
// for one follower's. With two of three slower than the lease the others cannot
// tell it from a leader that is gone; that is what a longer heartbeat is for.
func TestSlowSyncs(t *testing.T) {
	for name, tc := range map[string]struct {
		heartbeat, sync time.Duration
		leader          bool
		followers       int
		quiet           bool // no election
	}{
		"one follower, 200 ms":            {300 * time.Millisecond, 200 * time.Millisecond, false, 1, true},
		"one follower, 500 ms":            {300 * time.Millisecond, 500 * time.Millisecond, false, 1, true},
		"leader, 200 ms":                  {300 * time.Millisecond, 200 * time.Millisecond, true, 0, true},
		"leader, 500 ms":                  {300 * time.Millisecond, 500 * time.Millisecond, true, 0, true},
		"all, 50 ms":                      {300 * time.Millisecond, 50 * time.Millisecond, true, 2, true},
		"all, 200 ms, a heartbeat of 1 s": {time.Second, 200 * time.Millisecond, true, 2, true},
		"both followers, 200 ms":          {300 * time.Millisecond, 200 * time.Millisecond, false, 2, true},
		"all, 500 ms, a heartbeat of 2 s": {2 * time.Second, 500 * time.Millisecond, true, 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			records, terms, longest := slowly(t, tc.heartbeat, tc.sync, tc.leader, tc.followers)
			t.Logf("%d records in a minute, the slowest in %v, %d new terms", records, longest, terms)
			require.Positive(t, records)
			if tc.quiet {
				require.Zero(t, terms)
			}
		})
	}
}

// I14: a follower whose disk fails stops, and on a sound disk comes back with
// everything. Its leader notices nothing but its absence.
func TestAFollowersDiskFails(t *testing.T) {
	segment := faultfs.Name("*.free")
	for name, tc := range map[string]struct {
		when faultfs.Predicate
		then faultfs.Action
	}{
		"write":              {faultfs.All(faultfs.Is(faultfs.Write), segment), faultfs.Fail(syscall.EIO)},
		"short write":        {faultfs.All(faultfs.Is(faultfs.Write), segment), faultfs.Short(30, io.ErrShortWrite)},
		"silent short write": {faultfs.All(faultfs.Is(faultfs.Write), segment), faultfs.Short(30, nil)},
		"sync":               {faultfs.All(faultfs.Is(faultfs.Sync), segment), faultfs.Fail(syscall.EIO)},
		"roll":               {faultfs.All(faultfs.Is(faultfs.Rename), segment), faultfs.Fail(syscall.EIO)},
		"preallocation":      {faultfs.All(faultfs.Is(faultfs.Allocate), segment), faultfs.Fail(syscall.EIO)},
		"directory":          {faultfs.Is(faultfs.SyncDir), faultfs.Fail(syscall.EIO)},
		"durable end":        {faultfs.All(faultfs.Is(faultfs.Write), faultfs.Name("durable-end")), faultfs.Fail(syscall.EIO)},
		"offset index":       {faultfs.All(faultfs.Is(faultfs.Write), faultfs.Name("*.off")), faultfs.Fail(syscall.EIO)},
		"checkpoint":         {faultfs.All(faultfs.Is(faultfs.Rename), faultfs.Name("*.ckp.tmp")), faultfs.Fail(syscall.EIO)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				switches := map[string]*faultfs.Switch{}
				for i := range 3 {
					switches[nodeID(i+1)] = new(faultfs.Switch)
				}
				c := boot(t, 3, func(cfg *replica.Config) {
					cfg.Heartbeat = 300 * time.Millisecond
					cfg.SegmentBytes, cfg.CacheBytes, cfg.CheckpointEntries = 4096, 2048, 16
					cfg.FS = faultfs.Wrap(cfg.FS, faultfs.When(faultfs.All(switches[cfg.ID].On, tc.when), tc.then))
				})
				c.produce([16]byte{1}, 0, "record 0")
				l := c.leader()
				n := c.up()[slices.IndexFunc(c.up(), func(x *node) bool { return x != l })]
				for n == l { // the order of up is any
					n = c.up()[0]
				}
				term := l.r.View().Term
				switches[n.id].Set(true)
				for i := 1; i < 150; i++ {
					c.produce([16]byte{1}, uint64(i), fmt.Sprintf("record %d", i))
				}
				var fatal *replica.FatalError
				require.ErrorAs(t, <-n.ended, &fatal)
				require.Equal(t, term, l.r.View().Term)
				c.mu.Lock()
				r := n.r
				n.r = nil
				c.mu.Unlock()
				_ = r.Close() // on a broken disk
				switches[n.id].Set(false)
				n.fs = n.fs.Crash(7)
				n.start()
				c.equal()
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
