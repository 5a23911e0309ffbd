//go:build system

package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/test/harness"
)

// diskMiB is the size of each node's disk, and the reserve is a quarter of it.
const diskMiB = 96

// disks are nodes with a small filesystem each.
type disks struct {
	*world
	acked map[uint64][]byte // offset → value
	sent  int
}

// fill lets somebody else take what a node's disk has left, but for so many bytes.
func (d *disks) fill(n *harness.Node, leave int64) {
	d.t.Helper()
	var st syscall.Statfs_t
	require.NoError(d.t, syscall.Statfs(n.DataDir, &st))
	f, err := os.OpenFile(d.other(n), os.O_CREATE|os.O_RDWR, 0o600)
	require.NoError(d.t, err)
	info, err := f.Stat()
	require.NoError(d.t, err)
	size := info.Size() + int64(st.Bavail)*st.Bsize - leave
	require.NoError(d.t, syscall.Fallocate(int(f.Fd()), 0, 0, size))
	require.NoError(d.t, f.Close())
}

func (d *disks) other(n *harness.Node) string { return filepath.Join(n.DataDir, "somebody-elses") }

func (d *disks) free(n *harness.Node) { require.NoError(d.t, os.Remove(d.other(n))) }

// low waits until a node says that its disk is low, or not any more.
func (d *disks) low(n *harness.Node, want bool) {
	d.t.Helper()
	d.until(fmt.Sprintf("%s says disk_low is %v", n.Name, want), func() error {
		st, err := d.Stats(d.ctx, n)
		if err == nil && st.GetDiskLow() != want {
			err = fmt.Errorf("%d bytes free", st.GetDiskFreeBytes())
		}
		return err
	})
}

// produce sends one record, and notes what was acknowledged.
func (d *disks) produce(conn grpc.ClientConnInterface, size int, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(d.ctx, 20*time.Second)
	defer cancel()
	value := fmt.Appendf(nil, "record %d ", d.sent)
	d.sent++
	value = append(value, bytes.Repeat([]byte{'x'}, size)...)
	resp, err := logv1.NewLogClient(conn).Produce(ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: value}}, opts...)
	if err == nil {
		d.acked[resp.GetOffset()] = value
	}
	return err
}

// goes waits until produces through conn go.
func (d *disks) goes(conn grpc.ClientConnInterface) {
	d.t.Helper()
	d.until("produces go", func() error { return d.produce(conn, 100) })
	for range 20 {
		require.NoError(d.t, d.produce(conn, 100))
	}
}

// refused requires what a client is told while disks are low.
func (d *disks) refused(err error, low ...*harness.Node) {
	d.t.Helper()
	require.Equal(d.t, codes.ResourceExhausted, status.Code(err), "%v", err)
	info, _ := apierr.From(err)
	require.Equal(d.t, apierr.ReasonOverloaded, info.Reason)
	require.Positive(d.t, info.RetryAfter())
	for _, n := range low {
		require.Contains(d.t, info.Message, n.Name)
	}
}

// check reads every node's log: all that was acknowledged, where it was said to
// be, and all nodes equal.
func (d *disks) check() {
	d.t.Helper()
	next := d.stats(d.leader()).GetVisible()
	var first []*logv1.Record
	for _, n := range d.Nodes {
		recs, err := d.ReadNode(d.ctx, n, next)
		require.NoError(d.t, err, n.Name)
		require.Len(d.t, recs, int(next), n.Name)
		for off, value := range d.acked {
			require.Less(d.t, off, next)
			require.Equal(d.t, value, recs[off].GetValue(), "%s at %d", n.Name, off)
		}
		if first == nil {
			first = recs
		}
		require.NoError(d.t, harness.Same(first, recs), n.Name)
	}
	d.t.Logf("%d records, %d acknowledged, on every node", next, len(d.acked))
}

// Real processes on real, small disks: filled by somebody else and by produces,
// on one node, on two, on all; the leader's, a follower's; killed and started
// again on a disk without a byte left. Produces are refused in time, reads and
// Raft go on, and all of it goes on by itself once there is room.
func TestSystemFullDisk(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	require.NoError(t, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	require.NoError(t, ip("link set lo up"))
	ctx, cancel := context.WithTimeoutCause(t.Context(), 6*time.Minute, errors.New("the test took too long"))
	t.Cleanup(cancel)
	c, err := harness.New(harness.Options{
		Bin: bin, Dir: t.TempDir(), Heartbeat: time.Second,
		NodeConfig:  fmt.Sprintf("log {\n  segment_size = \"4MiB\"\n  reserve = \"%dMiB\"\n}\n", diskMiB/4),
		ProxyConfig: "produce {\n  hold_timeout = \"2s\"\n}\n",
	})
	require.NoError(t, err)
	proxy, err := c.AddProxy("")
	require.NoError(t, err)
	d := &disks{world: &world{Cluster: c, t: t, ctx: ctx, proxy: proxy}, acked: map[uint64][]byte{}}
	for _, n := range c.Nodes {
		require.NoError(t, os.MkdirAll(n.DataDir, 0o700))
		require.NoError(t, syscall.Mount("tmpfs", n.DataDir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0700", diskMiB)))
		t.Cleanup(func() { require.NoError(t, syscall.Unmount(n.DataDir, syscall.MNT_DETACH)) })
	}
	t.Cleanup(func() {
		require.NoError(t, c.Close())
		for _, n := range c.Nodes {
			if t.Failed() {
				t.Logf("the end of %s's log:\n%s", n.Name, n.Tail(40))
			}
			requireNoRace(t, n.Process)
		}
	})
	require.NoError(t, c.Start())
	require.NoError(t, c.Ready(ctx))
	naive := d.naive()
	d.goes(naive)
	term := d.stats(d.leader()).GetTerm()
	leader := d.leader()
	var followers []*harness.Node
	for _, n := range c.Nodes {
		if n != leader {
			followers = append(followers, n)
		}
	}
	direct := d.dial("client", leader)

	t.Log("one follower is full")
	d.fill(followers[0], 0)
	d.low(followers[0], true)
	d.goes(naive)

	t.Log("two of three are")
	d.fill(followers[1], 1<<20)
	d.low(followers[1], true)
	d.until("the leader refuses", func() error {
		if err := d.produce(direct, 100); err == nil {
			return errors.New("it took a record")
		}
		return nil
	})
	d.refused(d.produce(direct, 100), followers...)
	var trailer metadata.MD
	begin := time.Now()
	err = d.produce(naive, 100, grpc.Trailer(&trailer))
	d.refused(err, followers...)
	require.Equal(t, []string{"250"}, trailer["grpc-retry-pushback-ms"])
	t.Logf("the proxy gave up after %v", time.Since(begin))
	_, err = d.ReadNode(ctx, followers[0], 20)
	require.NoError(t, err, "reads go on")

	t.Log("one has room again")
	d.free(followers[1])
	d.goes(naive)
	d.free(followers[0])
	d.low(followers[0], false)
	d.goes(naive)

	require.Equal(t, term, d.stats(d.leader()).GetTerm(), "Raft did not suffer")

	t.Log("the leader alone is low, and hands on")
	d.fill(leader, 8<<20)
	d.until("another one leads", func() error {
		if d.leader() == leader {
			return errors.New("it still leads")
		}
		return nil
	})
	d.goes(naive)
	d.free(leader)
	d.low(leader, false)
	d.goes(naive)
	term = d.stats(d.leader()).GetTerm()

	t.Log("produces fill all of them")
	full := 0
	for full < 3 {
		switch err := d.produce(naive, 500_000); {
		case err == nil:
		default:
			d.refused(err)
			full++
		}
		require.Less(t, d.sent, 2000)
	}
	require.Equal(t, term, d.stats(d.leader()).GetTerm())
	for _, n := range c.Nodes {
		st := d.stats(n)
		t.Logf("%s: %d MiB free, low: %v, log of %d MiB", n.Name, st.GetDiskFreeBytes()>>20, st.GetDiskLow(), st.GetLogBytes()>>20)
		require.Greater(t, st.GetDiskFreeBytes(), uint64(diskMiB/8<<20), "half of the reserve is left")
	}
	d.check()

	t.Log("not a byte is left anywhere, and all are killed")
	for _, n := range c.Nodes {
		d.fill(n, 0)
		require.NoError(t, n.Kill())
	}
	for _, n := range c.Nodes {
		// Its spare segment was given back by the start: somebody takes that as well.
		require.NoError(t, n.Start())
	}
	for _, n := range c.Nodes {
		require.NoError(t, c.NodeReady(ctx, n))
	}
	d.refused(d.produce(naive, 100))
	d.check()

	t.Log("all have room again")
	for _, n := range c.Nodes {
		d.free(n)
		require.NoError(t, syscall.Mount("tmpfs", n.DataDir, "tmpfs", syscall.MS_REMOUNT, fmt.Sprintf("size=%dm", 2*diskMiB)))
	}
	d.goes(naive)
	for _, n := range c.Nodes {
		d.low(n, false)
		require.True(t, n.Running())
	}
	d.check()
}
