package replica_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

const otherCluster = "11111111-0000-4000-8000-000000000001"

// survivor is one node of three after all were stopped, and what it shows.
func survivor(t testing.TB) (fs *memfs.FS, id string, want []string) {
	c := newCluster(t, func(cfg *replica.Config) {
		cfg.SegmentBytes, cfg.CheckpointEntries, cfg.Dir = 4096, 16, "/data"
	})
	var ids []string
	for i := range 3 {
		fs := memfs.New()
		id, err := replica.LoadNodeID(fs, "/", fmt.Sprintf("n%d", i+1))
		require.NoError(t, err)
		ids = append(ids, id)
		n := c.add(id)
		n.fs = fs
		n.start()
	}
	require.NoError(t, c.node(ids[0]).r.Bootstrap(t.Context(), testCluster, ids))
	for _, id := range ids[1:] {
		require.NoError(t, c.node(id).r.Bind(testCluster))
	}
	for i := range 40 {
		c.produce([16]byte{1}, uint64(i*3), numbered(i*3, i*3+3)...)
	}
	for _, n := range c.up() {
		n.visible(120)
	}
	for _, id := range ids {
		require.NoError(t, c.node(id).stop())
	}
	return c.node(ids[2]).fs, ids[2], numbered(0, 120)
}

// alone starts one node over fs and waits until it leads.
func alone(t testing.TB, fs *memfs.FS, id string) (*cluster, *node) {
	c := newCluster(t, func(cfg *replica.Config) { cfg.Dir = "/data" })
	n := c.add(id)
	n.fs = fs
	n.start()
	require.Equal(t, n.id, c.leader().id)
	return c, n
}

func recoverNode(t testing.TB, fs *memfs.FS) {
	o := inspect(t, fs)
	task, err := o.PlanRecovery(otherCluster)
	require.NoError(t, err)
	require.NoError(t, o.Recover(task))
	require.NoError(t, o.Close())
}

// I19: what is recovered goes on with everything, under a uuid of its own.
func TestRecoverMakesASurvivorAClusterOfItsOwn(t *testing.T) {
	t.Parallel()
	fs, id, want := survivor(t)
	ops := fs.Ops()
	o := inspect(t, fs)
	plan, err := o.PlanRecovery(otherCluster)
	require.NoError(t, err)
	require.Equal(t, ops, fs.Ops(), "planning changes nothing")
	require.Equal(t, testCluster, plan.Former)
	require.Equal(t, id, plan.NodeID)
	require.Greater(t, plan.Term, o.Store.Term)
	_, err = o.PlanRecovery(testCluster)
	require.Error(t, err, "the old uuid again")
	require.NoError(t, o.Close())

	recoverNode(t, fs)
	c, n := alone(t, fs, id)
	n.visible(120)
	_, got := n.read()
	require.Equal(t, want, got)
	require.Equal(t, otherCluster, n.r.View().ClusterID)
	require.Equal(t, []replica.Peer{{ID: id, Voter: true}}, n.r.View().Peers)
	require.True(t, c.produce([16]byte{1}, 117, numbered(117, 120)...).Duplicate, "what producers did is remembered")
	require.Equal(t, uint64(120), c.produce([16]byte{1}, 120, "after").FirstOffset)

	// New nodes join it, with the history of the former cluster and all.
	for i := range 2 {
		j := c.add(nodeID(10 + i))
		j.start()
		require.NoError(t, j.r.Bind(otherCluster))
		require.NoError(t, n.r.AddNonvoter(t.Context(), j.id))
		j.visible(121)
		require.NoError(t, n.r.AddVoter(t.Context(), j.id))
		j.await("ready", func(v replica.View) bool { return v.Ready })
	}
	c.equal()
	require.NoError(t, n.stop())
	c.produce([16]byte{1}, 121, "and on")

	// And after all of that it is a log like any other.
	o = inspect(t, n.fs)
	v, err := o.Verify(nil)
	require.NoError(t, err)
	require.Empty(t, v.Findings)
	require.NoError(t, o.Close())
}

// I20: a recovery that a crash interrupts anywhere is refused by a start, and done
// again it ends as if nothing had happened.
func TestRecoverSurvivesACrashAnywhere(t *testing.T) {
	t.Parallel()
	fs, id, want := survivor(t)
	fs.Record()
	recoverNode(t, fs)
	old, half, through := 0, 0, 0
	for n := range fs.Ops() + 1 {
		for seed := range uint64(3) {
			crashed := fs.CrashAt(n, seed)
			o := inspect(t, crashed)
			task, done := o.Task, o.Cluster == otherCluster && o.Task == nil
			require.NoError(t, o.Close())
			_, err := replica.Open(replica.Config{ID: id, FS: crashed.Kill(), Dir: "/data"})
			var unfinished *replica.UnfinishedError
			switch {
			case done:
				through++
			case task != nil:
				half++
				require.ErrorAs(t, err, &unfinished)
				recoverNode(t, crashed)
			default:
				old++
				recoverNode(t, crashed)
			}
			o = inspect(t, crashed)
			require.Nil(t, o.Task)
			require.Equal(t, otherCluster, o.Cluster)
			v, err := o.Verify(nil)
			require.NoError(t, err)
			for _, f := range v.Findings {
				// It is not synced before a checkpoint, and made again.
				require.Equal(t, commitlog.FindOffsets, f.Kind, "operation %d, seed %d: %v", n, seed, f)
			}
			require.Equal(t, uint64(120), v.Records)
			require.NoError(t, o.Close())
			if n%8 == 0 && seed == 0 {
				_, node := alone(t, crashed, id)
				node.visible(120)
				_, got := node.read()
				require.Equal(t, want, got)
				require.NoError(t, node.stop())
			}
		}
	}
	require.NotZero(t, old)
	require.NotZero(t, half)
	require.NotZero(t, through)
}

// What a recovery takes over has to be whole.
func TestRecoverRefusesADamagedLog(t *testing.T) {
	t.Parallel()
	fs, _, _ := survivor(t)
	require.NoError(t, fs.Corrupt("/data/raft-state", 10, 1))
	o := inspect(t, fs)
	_, err := o.PlanRecovery(otherCluster)
	require.ErrorContains(t, err, "would not start")
	require.NoError(t, o.Close())
}

func exported(t testing.TB, fs *memfs.FS, from, to uint64) ([]byte, replica.Exported) {
	o := inspect(t, fs)
	var b bytes.Buffer
	x, err := o.Export(&b, from, to, nil)
	require.NoError(t, err)
	require.NoError(t, o.Close())
	return b.Bytes(), x
}

func imported(t testing.TB, export []byte) (*memfs.FS, replica.Imported) {
	fs := memfs.New()
	im, err := replica.Import{FS: fs, Home: "/", Dir: "data", Name: "m1", Cluster: otherCluster, SegmentBytes: 4096}.Run(bytes.NewReader(export))
	require.NoError(t, err)
	return fs, im
}

func TestExportAndImportKeepEveryRecordAtItsOffset(t *testing.T) {
	t.Parallel()
	fs, _, want := survivor(t)
	for _, tc := range []struct{ from, to, first, next uint64 }{
		{0, math.MaxUint64, 0, 120}, {0, 40, 0, 40}, {50, 71, 50, 71}, {119, math.MaxUint64, 119, 120}, {120, math.MaxUint64, 120, 120},
	} {
		t.Run(fmt.Sprintf("%d to %d", tc.from, tc.to), func(t *testing.T) {
			b, x := exported(t, fs, tc.from, tc.to)
			require.Equal(t, []uint64{tc.first, tc.next}, []uint64{x.First, x.Next})
			h, next, err := replica.CheckExport(bytes.NewReader(b))
			require.NoError(t, err)
			require.Equal(t, testCluster, h.Cluster)
			require.Equal(t, tc.next, next)

			made, im := imported(t, b)
			require.Equal(t, []uint64{tc.first, tc.next}, []uint64{im.First, im.Next})
			o := inspect(t, made)
			v, err := o.Verify(nil)
			require.NoError(t, err)
			require.Empty(t, v.Findings)
			require.NoError(t, o.Close())
			c, n := alone(t, made, im.NodeID)
			n.visible(tc.next)
			lowest, got := n.read()
			require.Equal(t, tc.first, lowest)
			require.Equal(t, len(want[tc.first:tc.next]), len(got))
			for i := range got {
				require.Equal(t, want[tc.first+uint64(i)], got[i])
			}
			require.Equal(t, tc.first, n.r.Log().OffsetAt(1), "times are kept")
			require.Equal(t, tc.next, c.produce([16]byte{9}, 0, "next").FirstOffset)
			// It is a seed that others join.
			j := c.add(nodeID(20))
			j.start()
			require.NoError(t, j.r.Bind(otherCluster))
			require.NoError(t, n.r.AddNonvoter(t.Context(), j.id))
			j.visible(tc.next + 1)
			jl, jgot := j.read()
			require.Equal(t, tc.first, jl)
			require.Equal(t, append(got[:len(got):len(got)], "next"), jgot)
		})
	}
}

func TestExportSaysWhatItCannotGive(t *testing.T) {
	t.Parallel()
	fs, _, _ := survivor(t)
	o := inspect(t, fs)
	_, err := o.Export(io.Discard, 0, 121, nil)
	require.ErrorContains(t, err, "up to 120 only")
	require.NoError(t, o.Close())

	moved, _ := stopped(t)
	o = inspect(t, moved)
	_, err = o.Export(io.Discard, 1, math.MaxUint64, nil)
	var out *commitlog.OutOfRangeError
	require.ErrorAs(t, err, &out)
	x, err := o.Export(io.Discard, 0, math.MaxUint64, nil)
	require.NoError(t, err)
	require.Equal(t, out.Lowest, x.First, "from where the log starts")
	require.Equal(t, uint64(220), x.Next)
	require.NoError(t, o.Close())
}

// No export that lost its end or a bit is taken for one.
func TestImportRefusesADamagedExport(t *testing.T) {
	t.Parallel()
	fs, id, _ := survivor(t)
	whole, _ := exported(t, fs, 30, 60)
	refused := func(b []byte, what string, args ...any) {
		t.Helper()
		var bad *replica.ExportError
		_, _, err := replica.CheckExport(bytes.NewReader(b))
		require.ErrorAs(t, err, &bad, what, args)
	}
	for n := range whole {
		refused(whole[:n], "cut to %d bytes", n)
		for bit := range 8 {
			whole[n] ^= 1 << bit
			refused(whole, "bit %d of byte %d", bit, n)
			whole[n] ^= 1 << bit
		}
	}
	refused(append(bytes.Clone(whole), 0), "a byte behind the end")

	made := memfs.New()
	im := replica.Import{FS: made, Home: "/", Dir: "data", Name: "m1", Cluster: otherCluster}
	var bad *replica.ExportError
	_, err := im.Run(bytes.NewReader(whole[:len(whole)-9]))
	require.ErrorAs(t, err, &bad)
	var unfinished *replica.UnfinishedError
	_, err = replica.Open(replica.Config{ID: id, FS: made, Dir: "/data"})
	require.ErrorAs(t, err, &unfinished)
	_, err = im.Run(bytes.NewReader(whole))
	require.ErrorContains(t, err, "not empty")
	o := inspect(t, made)
	_, err = o.PlanRecovery(testCluster)
	require.ErrorAs(t, err, &unfinished)
	require.NoError(t, o.Close())
}

// I20: a crash inside an import leaves nothing, or what says that it is unfinished,
// or all of it.
func TestImportSurvivesACrashAnywhere(t *testing.T) {
	t.Parallel()
	fs, _, _ := survivor(t)
	whole, _ := exported(t, fs, 10, math.MaxUint64)
	made := memfs.NewRecording()
	im := replica.Import{FS: made, Home: "/home", Dir: "data", Name: "m1", Cluster: otherCluster, SegmentBytes: 4096}
	_, err := im.Run(bytes.NewReader(whole))
	require.NoError(t, err)
	none, half, through := 0, 0, 0
	for n := range made.Ops() + 1 {
		for seed := range uint64(2) {
			crashed := made.CrashAt(n, seed)
			var unfinished *replica.UnfinishedError
			r, err := replica.Open(replica.Config{ID: nodeID(1), FS: crashed.Kill(), Dir: "/home/data"})
			switch {
			case errors.As(err, &unfinished):
				half++
			case err == nil && !r.HasState() && r.View().ClusterID == "":
				none++ // as before: a directory with nothing in it
				require.NoError(t, r.Close())
			default:
				require.NoError(t, err, "operation %d, seed %d", n, seed)
				require.NoError(t, r.Close())
				through++
				o, err := replica.OpenOffline(crashed, "/home", "data")
				require.NoError(t, err)
				v, err := o.Verify(nil)
				require.NoError(t, err)
				require.Empty(t, v.Findings)
				require.Equal(t, uint64(110), v.Records)
				require.NoError(t, o.Close())
			}
		}
	}
	require.NotZero(t, none)
	require.NotZero(t, half)
	require.NotZero(t, through)
}

// I19: a node whose log is of another cluster than it is bound to ends, once it
// has caught up and would begin to serve. Only what recovery writes makes one
// cluster follow another.
func TestALogOfAnotherClusterEndsTheNode(t *testing.T) {
	t.Parallel()
	fs, id := stopped(t)
	require.NoError(t, vfs.WriteFileAtomic(fs, "/data/cluster-id", []byte(otherCluster+"\n")))
	c := newCluster(t, func(cfg *replica.Config) { cfg.Dir = "/data" })
	n := c.add(id)
	n.fs = fs
	n.start()
	err := <-n.ended
	n.ended <- err // for stop
	var fatal *replica.FatalError
	var mismatch *replica.ClusterMismatchError
	require.ErrorAs(t, err, &fatal)
	require.ErrorAs(t, err, &mismatch)
	require.False(t, n.r.View().Ready)
}
