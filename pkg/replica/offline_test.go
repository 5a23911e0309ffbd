package replica_test

import (
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// one node's directory with everything in it: several segments and checkpoints,
// a start that has moved, producers and keys. It is stopped. The directory is
// /data in the filesystem, home /.
func stopped(t testing.TB) (*memfs.FS, string) {
	c := newCluster(t, func(cfg *replica.Config) {
		cfg.SegmentBytes, cfg.CheckpointEntries, cfg.Dir = 4096, 16, "/data"
	})
	fs := memfs.New()
	id, err := replica.LoadNodeID(fs, "/", "n1")
	require.NoError(t, err)
	n := c.add(id)
	n.fs = fs
	n.start()
	require.NoError(t, n.r.Bootstrap(t.Context(), testCluster, []string{id}))
	seq := uint64(0)
	more := func(count int) {
		for range count {
			c.produce([16]byte{7}, seq, fmt.Sprintf("record %d", seq), strings.Repeat("x", int(seq%100)))
			seq += 2
		}
	}
	more(15)
	require.NoError(t, n.r.Checkpoint()) // one below what is given up; others come by themselves
	more(25)
	require.NoError(t, n.r.Checkpoint())
	more(40)
	require.NoError(t, n.r.SetLowest(t.Context(), 70))
	c.eventually(func() bool { return n.r.Stats().FirstIndex > 1 }, "the start moves")
	more(30)
	require.NoError(t, n.stop())
	return fs, id
}

func inspect(t testing.TB, fs vfs.FS) *replica.Offline {
	o, err := replica.OpenOffline(fs, "/", "data")
	require.NoError(t, err)
	return o
}

// I21: what a stopped node has is shown, and nothing of it changes.
func TestOfflineListsWhatThereIs(t *testing.T) {
	t.Parallel()
	fs, id := stopped(t)
	ops := fs.Ops()
	o := inspect(t, fs)
	require.Equal(t, testCluster, o.Cluster)
	require.NoError(t, o.Close())
	o = inspect(t, fs)
	v, err := o.Verify(nil)
	require.NoError(t, err)
	require.Empty(t, v.Findings)
	require.NoError(t, v.Next.Refused)
	require.Equal(t, id, o.NodeID)
	require.Equal(t, uint64(220), v.Next.Next)
	require.Positive(t, v.Next.Lowest)
	require.Equal(t, v.Next.Last, v.Next.Commit, "all were acknowledged, and the index tells")
	require.Equal(t, v.Next.Last-v.Next.First+1, v.Entries)
	require.GreaterOrEqual(t, len(o.Store.Checkpoints), 4)
	require.Greater(t, len(o.Store.Log.Segments), 2)
	require.NoError(t, o.Close())
	require.Equal(t, ops, fs.Ops(), "looking changes nothing")
}

// Whatever bit of a directory flips, verify tells.
func TestVerifyFindsEveryFlippedBit(t *testing.T) {
	t.Parallel()
	fs, _ := stopped(t)
	rng := rand.New(rand.NewPCG(1, 2))
	gone := map[string]bool{} // the next start removes them
	o := inspect(t, fs)
	for _, s := range o.Store.Log.Segments {
		gone[s.File] = s.State == commitlog.SegmentBelow
	}
	require.NoError(t, o.Close())
	var flips, missed int
	for _, dir := range []string{"/", "/data", "/data/log", "/data/checkpoints"} {
		names, err := fs.List(dir)
		require.NoError(t, err)
		for _, name := range names {
			p := path.Join(dir, name)
			info, err := fs.Stat(p)
			require.NoError(t, err)
			if info.IsDir || gone[name] || strings.HasSuffix(name, ".free") {
				continue
			}
			for place := range info.Size {
				if info.Size > 200 && rng.Int64N(info.Size) > 200 {
					continue
				}
				mask := byte(1) << rng.IntN(8)
				require.NoError(t, fs.Corrupt(p, place, mask))
				o := inspect(t, fs)
				v, err := o.Verify(nil)
				require.NoError(t, err)
				if len(v.Findings) == 0 {
					missed++
					require.Less(t, missed, 10)
					t.Errorf("bit %#x of byte %d of %s was not found", mask, place, p)
				}
				require.NoError(t, o.Close())
				require.NoError(t, fs.Corrupt(p, place, mask))
				flips++
			}
		}
	}
	t.Logf("%d flipped bits, %d missed", flips, missed)
	require.Greater(t, flips, 1500)
}
