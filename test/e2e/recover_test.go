package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/test/harness"
)

// logd runs a command of the program under test.
func (w *world) logd(args ...string) string {
	w.t.Helper()
	out, err := exec.CommandContext(w.ctx, filepath.Join(bin, "logd"), args...).CombinedOutput()
	require.NoError(w.t, err, "logd %q\n%s", args, out)
	return string(out)
}

// Two of three nodes are gone for good. The third goes on with everything it has,
// as another cluster, which new nodes join and old ones cannot talk to.
func TestRecoverAfterTheMajorityIsLost(t *testing.T) {
	t.Parallel()
	w := start(t)
	tr := w.load()
	tr.more(500)
	tr.finish()
	survivor := w.follower()
	want, err := w.ReadNode(w.ctx, survivor, w.logEnd("client"))
	require.NoError(t, err)
	before := w.stats(survivor).GetNodeId()
	var lost []*harness.Node
	for _, n := range w.Nodes {
		require.NoError(t, n.Kill())
		if n != survivor {
			lost = append(lost, n)
			require.NoError(t, os.RemoveAll(n.DataDir))
		}
	}
	require.NoError(t, w.proxy.Kill())

	require.Contains(t, w.logd("inspect", "list", survivor.DataDir), before)
	require.Contains(t, w.logd("recover", "-yes", survivor.DataDir), "==> Recovered: "+before)
	require.NoError(t, survivor.Start())
	require.NoError(t, w.NodeReady(w.ctx, survivor))
	next := uint64(len(want))
	got, err := w.ReadNode(w.ctx, survivor, next)
	require.NoError(t, err)
	require.NoError(t, harness.Same(want, got))

	require.NoError(t, w.proxy.Start())
	require.NoError(t, w.ProxyReady(w.ctx, w.proxy))
	off, err := produce(w.ctx, w.naive(), "after the loss")
	require.NoError(t, err)
	require.GreaterOrEqual(t, off, next, "no offset is given twice")
	for _, n := range lost {
		require.NoError(t, n.Start())
		require.NoError(t, w.NodeReady(w.ctx, n))
		got, err := w.ReadNode(w.ctx, n, off+1)
		require.NoError(t, err)
		require.NoError(t, harness.Same(want, got[:next]))
		require.Equal(t, "after the loss", string(got[off].GetValue()))
	}
	require.Len(t, w.peers(), 3)

	// The recovered node is no longer needed either.
	w.until("all of them vote", func() error { return w.voters(3) })
	require.NoError(t, survivor.Kill())
	_, err = produce(w.ctx, w.naive(), "without the survivor")
	require.NoError(t, err)
}

// A backup that was taken under load has everything acknowledged before it, is to the bit
// what a node that was stopped has on its disk, and the beginning of a new cluster,
// offsets and all.
func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	w := start(t)
	tr := w.load()
	tr.more(300)
	n, dir, acked := w.follower(), t.TempDir(), tr.Acked()
	backup, export := filepath.Join(dir, "backup.logd"), filepath.Join(dir, "export.logd")
	f := w.Cert("admin")
	out := w.logd("backup", "-o", backup, "-address", n.RPC, "-timeout", "60s", "-ca-cert", f.CA, "-cert", f.Cert, "-key", f.Key)
	tr.more(300)
	tr.finish()
	want, err := w.ReadNode(w.ctx, n, w.logEnd("client"))
	require.NoError(t, err)
	for _, n := range w.Nodes {
		require.NoError(t, n.Stop(w.ctx))
	}
	require.NoError(t, w.proxy.Kill())
	w.logd("inspect", "verify", n.DataDir)
	has := exported(t, backup)
	next := has[len(has)-1].FirstOffset + uint64(has[len(has)-1].Count)
	require.Contains(t, out, fmt.Sprintf("[0, %d)", next))
	require.GreaterOrEqual(t, next, acked)
	require.Less(t, next, uint64(len(want)))
	w.logd("inspect", "export", "-to", fmt.Sprint(next), "-o", export, n.DataDir)
	require.Equal(t, exported(t, export), has)
	for _, n := range w.Nodes {
		require.NoError(t, os.RemoveAll(n.DataDir))
	}

	w.logd("inspect", "import", "-name", n.Name, "-i", backup, n.DataDir)
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))
	for _, n := range w.Nodes {
		got, err := w.ReadNode(w.ctx, n, next)
		require.NoError(t, err)
		require.NoError(t, harness.Same(want[:next], got), n.Name)
	}
	off, err := produce(w.ctx, w.naive(), "after the restore")
	require.NoError(t, err)
	require.Equal(t, next, off)
}

// exported are the batches of a whole export.
func exported(t *testing.T, file string) (all []replica.ExportBatch) {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	x, err := replica.NewExportReader(f)
	require.NoError(t, err)
	for {
		e, err := x.Next()
		if errors.Is(err, io.EOF) {
			require.NotEmpty(t, all)
			return all
		}
		require.NoError(t, err)
		e.Records = bytes.Clone(e.Records)
		all = append(all, *e)
	}
}

// voters says whether the leader's configuration has that many.
func (w *world) voters(want int) error {
	n := 0
	for _, p := range w.stats(w.leader()).GetPeers() {
		if p.GetVoter() {
			n++
		}
	}
	if n != want {
		return fmt.Errorf("%d voters, not %d", n, want)
	}
	return nil
}
