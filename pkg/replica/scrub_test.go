package replica_test

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// scrubbed runs a node alone that has about 120 KiB to scrub, 1 KiB a second.
func scrubbed(t *testing.T, use func(n *node, refuseNotes *faultfs.Switch), more ...faultfs.Rule) {
	synctest.Test(t, func(t *testing.T) {
		refuse := &faultfs.Switch{}
		c := newCluster(t, func(cfg *replica.Config) {
			cfg.SegmentBytes, cfg.Dir, cfg.ScrubRate = 4096, "/data", 1024
			cfg.FS = faultfs.Wrap(faultfs.Wrap(cfg.FS, more...), faultfs.When(
				faultfs.All(refuse.On, faultfs.Is(faultfs.Write), faultfs.Name("*scrubbed*")), faultfs.Fail(errors.New("it does not write"))))
		})
		mem := memfs.New()
		id, err := replica.LoadNodeID(mem, "/", "n1")
		require.NoError(t, err)
		n := c.add(id)
		n.fs = mem
		began := time.Now()
		n.start()
		require.NoError(t, n.r.Bootstrap(t.Context(), testCluster, []string{id}))
		for seq := range uint64(100) {
			c.produce([16]byte{7}, 2*seq, fmt.Sprint("record ", seq), strings.Repeat("x", 1000))
		}
		// The first pass had nothing to read, and the second one begins now.
		time.Sleep(time.Minute - time.Since(began))
		use(n, refuse)
	})
}

// looked is the note that a stopped node left.
func looked(t *testing.T, fs vfs.FS) (*replica.ScrubNote, *replica.Offline) {
	o := inspect(t, fs)
	require.NoError(t, o.Close())
	return o.Scrub, o
}

// A node that is stopped before a pass is through goes on with it, so that one
// that is often restarted reads all of a long log some day.
func TestAScrubGoesOnAfterARestart(t *testing.T) {
	scrubbed(t, func(n *node, _ *faultfs.Switch) {
		first := time.Now()
		time.Sleep(70 * time.Second)
		require.NoError(t, n.stop())
		note, _ := looked(t, n.fs)
		require.Equal(t, uint64(1), note.Passes)
		require.WithinRange(t, note.Began, first.Add(-time.Second), first.Add(time.Second))
		require.Greater(t, note.Position, uint64(30))
		require.InDelta(t, 70<<10, note.Bytes, 20<<10)
		was := *note

		n.start()
		require.Eventually(t, func() bool { return n.r.Stats().Scrub.Passes == 1 }, 2*time.Minute, time.Second)
		require.InDelta(t, 50<<10, n.r.Stats().Scrub.Bytes, 25<<10, "not all of it")
		time.Sleep(time.Second)
		require.NoError(t, n.stop())
		note, _ = looked(t, n.fs)
		require.Equal(t, uint64(2), note.Passes)
		require.True(t, note.Finished.After(was.Began))
		require.Zero(t, note.Began)

		// And the next one begins at the start.
		n.start()
		require.Eventually(t, func() bool { return n.r.Stats().Scrub.Passes == 1 }, 4*time.Minute, time.Second)
		require.InDelta(t, 120<<10, n.r.Stats().Scrub.Bytes, 25<<10)
		require.NoError(t, n.stop())
		note, _ = looked(t, n.fs)
		require.Equal(t, uint64(3), note.Passes)
	})
}

// A crash loses a minute of a pass at most.
func TestAScrubGoesOnAfterACrash(t *testing.T) {
	scrubbed(t, func(n *node, _ *faultfs.Switch) {
		time.Sleep(63 * time.Second)
		n.lose(1)
		note, _ := looked(t, n.fs)
		require.NotNil(t, note)
		require.Greater(t, note.Position, uint64(30))
		n.start()
		require.Eventually(t, func() bool { return n.r.Stats().Scrub.Passes == 1 }, 2*time.Minute, time.Second)
	})
}

// The note is worth nothing but time: damaged, it is found and the pass begins
// anew; and one that cannot be written harms nobody.
func TestAScrubWithoutItsNote(t *testing.T) {
	scrubbed(t, func(n *node, refuseNotes *faultfs.Switch) {
		time.Sleep(70 * time.Second)
		require.NoError(t, n.stop())
		require.NoError(t, n.fs.Corrupt("/data/scrubbed", 12, 4))
		note, o := looked(t, n.fs)
		require.Nil(t, note)
		require.Equal(t, replica.FindScrub, o.Findings()[0].Kind)

		refuseNotes.Set(true)
		n.start()
		require.Eventually(t, func() bool { return n.r.Stats().Scrub.Passes == 1 }, 4*time.Minute, time.Second)
		require.InDelta(t, 120<<10, n.r.Stats().Scrub.Bytes, 25<<10)
		require.NoError(t, n.stop())
	})
}

// A segment that does not read ends each pass, and what is before it is read in each.
func TestAScrubThatCannotReadOnBeginsAnew(t *testing.T) {
	var sick faultfs.Switch
	var bad atomic.Pointer[string]
	scrubbed(t, func(n *node, _ *faultfs.Switch) {
		require.NoError(t, n.stop()) // so that segments are known by their names
		n.start()
		n.await("to lead", func(v replica.View) bool { return v.IsLeader })
		names, err := n.fs.List("/data/log")
		require.NoError(t, err)
		names = slices.DeleteFunc(names, func(s string) bool { return path.Ext(s) != ".seg" })
		slices.Sort(names)
		bad.Store(&names[len(names)/2])
		sick.Set(true)
		time.Sleep(3 * time.Minute)
		require.Zero(t, n.r.Stats().Scrub.Passes, "none gets through")
		require.NoError(t, n.fs.Corrupt("/data/log/"+names[1], 200, 1))
		require.Eventually(t, func() bool { return n.r.Stats().Damaged > 0 }, 5*time.Minute, time.Second)
		sick.Set(false)
		require.NoError(t, n.stop())
	}, faultfs.When(faultfs.All(sick.On, faultfs.Is(faultfs.Read), func(op faultfs.Op) bool {
		return path.Base(op.Path) == *bad.Load() && op.Place > 0
	}), faultfs.Fail(errors.New("it does not read"))))
}
