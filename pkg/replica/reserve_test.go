package replica_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
)

// Sizes of the disks here. Nobody is below the reserve while the log is small.
const (
	diskSegment = 64 << 10
	diskReserve = 8 * diskSegment
	diskBytes   = 4 << 20
)

// disks is a cluster of nodes with a disk of a limited size each, in virtual time.
type disks struct {
	*cluster
	quota map[string]*faultfs.Quota
}

func bootDisks(t *testing.T, off ...replica.Switch) *disks {
	d := &disks{quota: map[string]*faultfs.Quota{}}
	c := newCluster(t, nil, off...)
	c.conf = func(cfg *replica.Config) {
		q, err := faultfs.NewQuota(cfg.FS, cfg.Dir, diskBytes)
		require.NoError(t, err)
		c.mu.Lock()
		d.quota[cfg.ID] = q
		c.mu.Unlock()
		cfg.FS = q
		cfg.SegmentBytes, cfg.CacheBytes, cfg.CheckpointEntries = diskSegment, 1<<20, 16
		cfg.Reserve = diskReserve
		cfg.CheckpointBytes = diskSegment / 2
	}
	var ids []string
	for i := range 3 {
		ids = append(ids, nodeID(i+1))
		c.add(ids[i]).start()
	}
	require.NoError(t, c.node(ids[0]).r.Bootstrap(context.Background(), testCluster, ids))
	for _, id := range ids[1:] {
		require.NoError(t, c.node(id).r.Bind(testCluster))
	}
	d.cluster = c
	return d
}

// leave sets how many bytes a node's disk has left, outsiders having the rest.
func (d *disks) leave(n *node, bytes int64) {
	q := d.quota[n.id]
	q.Outside(diskBytes - q.Used() - bytes)
}

// settle waits until the nodes have looked at their disks and told their leader.
func (d *disks) settle() { time.Sleep(time.Second) }

func (d *disks) followers() (f []*node) {
	l := d.leader()
	for _, n := range d.up() {
		if n != l {
			f = append(f, n)
		}
	}
	return f
}

func record(i, size int) string {
	return fmt.Sprintf("record %d ", i) + string(bytes.Repeat([]byte{'x'}, size))
}

// refused asks the leader to take a record, which it must not.
func (d *disks) refused(low ...*node) {
	d.t.Helper()
	var e *replica.DiskLowError
	_, err := d.leader().r.Submit(one("not now"))
	require.ErrorAs(d.t, err, &e)
	var ids []string
	for _, n := range low {
		ids = append(ids, n.id)
		require.ErrorContains(d.t, err, n.id)
	}
	require.ElementsMatch(d.t, ids, e.Low)
	require.Positive(d.t, e.RetryAfter)
}

// Produces are refused unless a majority of disks, the leader's included, is
// above the reserve; everything else goes on.
func TestAMajorityOfDisksIsLow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bootDisks(t)
		p := [16]byte{1}
		next := 0
		put := func() {
			t.Helper()
			d.produce(p, uint64(next), fmt.Sprintf("record %d", next))
			next++
		}
		for range 20 {
			put()
		}
		l, f := d.leader(), d.followers()
		term := l.r.View().Term

		d.leave(f[0], diskReserve/2)
		d.settle()
		require.True(t, f[0].r.Stats().DiskLow)
		require.Less(t, f[0].r.Stats().DiskFree, uint64(diskReserve))
		put()

		d.leave(f[1], diskReserve/2)
		d.settle()
		d.refused(f...)
		require.NoError(t, l.r.SetLowest(t.Context(), 5), "retention goes on")
		for _, n := range d.up() {
			d.eventually(func() bool { return n.r.Log().Lowest() == 5 }, "%s follows", n.id)
			_, msgs := n.read()
			require.Equal(t, numbered(5, next), msgs, "reads go on")
		}

		d.leave(f[1], diskBytes/2)
		d.settle()
		put()

		// Whoever is down does not count as above.
		require.NoError(t, f[1].stop())
		time.Sleep(5 * time.Second)
		_, err := l.r.Submit(one("x"))
		var e *replica.DiskLowError
		require.ErrorAs(t, err, &e)
		require.Equal(t, []string{f[1].id}, e.Silent)
		d.leave(f[0], diskBytes/2)
		d.settle()
		put()
		f[1].start()
		f[1].visible(uint64(next))

		require.Equal(t, term, l.r.View().Term, "Raft did not suffer")

		// Nobody else could lead and take records.
		d.leave(f[0], diskReserve/2)
		d.settle() // known before the leader looks for an heir
		d.leave(l, diskReserve/2)
		d.settle()
		time.Sleep(5 * time.Second)
		require.Equal(t, l.id, d.leader().id)
		d.refused(l, f[0])
		d.leave(f[0], diskBytes/2)
		d.leave(l, diskBytes/2)
		d.settle()
		put()
		require.Equal(t, term, l.r.View().Term)
		d.close()
	})
}

// However fast records come, half of the reserve is left: they are refused before the
// disks are looked at by the clock, which hardly moves here.
func TestFastProducesLeaveTheReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bootDisks(t)
		l := d.leader()
		begun := time.Now()
		var low *replica.DiskLowError
		for i := 0; ; i++ {
			p, err := l.r.Submit(one(record(i, 8<<10)))
			if errors.As(err, &low) {
				break
			}
			require.NoError(t, err)
			<-p.Done()
			_, err = p.Result()
			require.NoError(t, err, "record %d", i)
		}
		t.Logf("full after %v", time.Since(begun))
		d.settle()
		for _, n := range d.up() {
			require.Greater(t, n.r.Stats().DiskFree, uint64(diskReserve/2), n.id)
		}
		d.close()
	})
}

// A leader that alone is below its reserve does not keep the others from taking
// records: it hands over, and comes to lead again only when somebody must.
func TestALowLeaderHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bootDisks(t)
		p := [16]byte{1}
		d.produce(p, 0, "record 0")
		l := d.leader()
		term := l.r.View().Term
		d.leave(l, diskReserve/2)
		d.settle()
		time.Sleep(2 * time.Second)
		next := d.leader()
		require.NotEqual(t, l, next)
		require.Equal(t, term+1, next.r.View().Term, "no election but that")
		for i := range 10 {
			d.produce(p, uint64(1+i), fmt.Sprintf("record %d", 1+i))
		}
		l.visible(11)
		time.Sleep(time.Minute)
		require.Equal(t, next.id, d.leader().id)
		require.Equal(t, term+1, next.r.View().Term)
		d.close()
	})
}

// A new leader knows at once how its voters stand, and takes records before it
// does.
func TestANewLeaderKnowsTheDisks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bootDisks(t)
		d.produce([16]byte{1}, 0, "record 0")
		f := d.followers()
		for _, n := range f {
			d.leave(n, diskReserve/2)
		}
		d.settle()
		d.refused(f...)
		require.NoError(t, d.leader().stop())
		l := d.leader()
		time.Sleep(300 * time.Millisecond)
		_, err := l.r.Submit(one("x"))
		var e *replica.DiskLowError
		require.ErrorAs(t, err, &e)
		require.Contains(t, e.Low, l.id)
		for _, n := range f {
			d.leave(n, diskBytes/2)
		}
		d.settle()
		d.produce([16]byte{1}, 1, "record 1")
		d.close()
	})
}

// I22: disks that only produces fill are never full: what was reserved is there for
// retention, which frees them. Without the reserve they are.
func TestProducesNeverFillADisk(t *testing.T) {
	for _, off := range [][]replica.Switch{nil, {replica.NoReserve}} {
		synctest.Test(t, func(t *testing.T) {
			d := bootDisks(t, off...)
			refusals, next := 0, 0
			full := func() (n uint64) {
				for _, x := range d.up() {
					n += x.r.Store().Full()
				}
				return n
			}
			// Twice what a disk holds; one who is refused lets retention work.
			for next*20_000 < 2*diskBytes && full() == 0 {
				l := d.leader()
				x, err := l.r.Submit(replica.Batch{Producer: [16]byte{1}, Owner: 1, FirstSeq: uint64(next), Count: 1,
					Records: framed(record(next, 20_000)), Timestamp: 1})
				var low *replica.DiskLowError
				if errors.As(err, &low) {
					refusals++
					require.NoError(t, l.r.SetLowest(t.Context(), uint64(next-10)))
					d.settle()
					continue
				}
				require.NoError(t, err)
				if _, err = x.Result(); err == nil {
					next++
				}
				time.Sleep(20 * time.Millisecond) // a megabyte a second, on disks of four
			}
			if off != nil {
				require.Positive(t, full(), "without a reserve the disk gets full")
				require.Zero(t, refusals)
				d.close()
				return
			}
			require.Zero(t, full())
			require.GreaterOrEqual(t, refusals, 2)
			for _, n := range d.up() {
				n.visible(uint64(next))
				require.LessOrEqual(t, d.quota[n.id].Used(), int64(diskBytes-diskReserve/2), n.id)
			}
			d.equal()
			d.close()
		})
	}
}

// The records that were on their way when the disks of a majority filled up are
// still taken, or the retention behind them could never be.
func TestRetentionGetsPastTheRecordsInFlight(t *testing.T) {
	for _, off := range [][]replica.Switch{nil, {replica.NoLast}} {
		synctest.Test(t, func(t *testing.T) {
			d := bootDisks(t, off...)
			for i := range 40 {
				d.produce([16]byte{1}, uint64(i), record(i, 10_000))
			}
			l, f := d.leader(), d.followers()
			for _, n := range f {
				n.visible(40)
				d.partition(n)
			}
			var pending []*replica.Pending
			for i := range 4 {
				x, err := l.r.Submit(one(record(100+i, 10_000)))
				require.NoError(t, err)
				pending = append(pending, x)
			}
			for _, n := range f {
				d.leave(n, 0)
			}
			time.Sleep(400 * time.Millisecond)
			d.heal()
			require.Equal(t, l.id, d.leader().id)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			err := l.r.SetLowest(ctx, 40)
			if off != nil {
				require.ErrorIs(t, err, context.DeadlineExceeded, "stuck behind records that nobody takes")
				d.close()
				return
			}
			require.NoError(t, err)
			for _, x := range pending {
				_, err := x.Result()
				require.NoError(t, err)
			}
			for _, n := range f {
				d.eventually(func() bool { return n.r.Log().Start().Index > 0 }, "%s: start of the log moves", n.id)
			}
			d.settle()
			d.close()
		})
	}
}

// A node that is almost full falls behind, and the others go on without it. It
// takes up again where it stopped within moments of having room, with nothing
// but its own space to thank for it; Raft never wavers.
func TestABareNodeFallsBehindAndCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bootDisks(t, replica.NoLast)
		p := [16]byte{1}
		d.produce(p, 0, "record 0")
		l, f := d.leader(), d.followers()
		n, term := f[0], l.r.View().Term
		n.visible(1)
		d.leave(n, diskReserve/4)
		d.settle()
		next := 1
		for begin := time.Now(); time.Since(begin) < time.Minute; next++ {
			d.produce(p, uint64(next), fmt.Sprintf("record %d", next))
			time.Sleep(500 * time.Millisecond)
		}
		require.Equal(t, uint64(1), n.r.Log().Visible(), "it takes no records")
		require.NoError(t, l.r.SetLowest(t.Context(), 1))

		d.leave(n, diskBytes/2)
		begin := time.Now()
		n.visible(uint64(next))
		took := time.Since(begin)
		t.Logf("caught up after %v", took)
		require.Less(t, took, 2*time.Second)
		d.eventually(func() bool { return n.r.Log().Lowest() == 1 }, "it applies the retention")
		_, msgs := n.read()
		require.Equal(t, numbered(1, next), msgs)
		require.Equal(t, term, l.r.View().Term)
		d.close()
	})
}

// A node that is low, not bare, keeps up: behind a segment of records there comes
// the retention that frees one.
func TestALowNodeLivesOnRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bootDisks(t)
		p := [16]byte{1}
		next := 0
		put := func(n int) {
			for range n {
				d.produce(p, uint64(next), record(next, 10_000))
				next++
			}
		}
		put(60)
		n := d.followers()[0]
		n.visible(uint64(next))
		d.leave(n, diskReserve*7/8)
		d.settle()
		for range 40 {
			put(7) // a segment
			require.NoError(t, d.leader().r.SetLowest(t.Context(), uint64(next-60)))
			d.settle()
			n.visible(uint64(next))
		}
		require.True(t, n.r.Stats().DiskLow)
		d.equal()
		d.close()
	})
}
