//go:build system

package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/test/harness"
)

// A copy of a node's data directory is started beside it, and no UDP comes through. The
// copy is told by the others, over RPC, that they know the node elsewhere, and exits;
// the node goes on.
func TestSystemTwoProcessesWithoutUDP(t *testing.T) {
	needNft(t)
	if !inOwnNetwork(t) {
		return
	}
	h := newHosts(t)
	w := prepare(t, h)
	const copyHost = 210
	for _, i := range []int{1, 2, 3, 101} {
		h.drop(i, "meta l4proto udp")
	}
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))
	tr := w.load()
	tr.more(200)
	f := w.follower()
	ctx, cancel := w.within(patience)
	defer cancel()
	require.NoError(t, f.Stop(ctx))
	dir := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.CopyFS(dir, os.DirFS(f.DataDir)))
	require.NoError(t, f.Process.Start())
	require.NoError(t, w.NodeReady(w.ctx, f))
	id := w.stats(f).GetNodeId()
	w.failures(f, 0)

	text := strings.NewReplacer(
		fmt.Sprintf("%q", f.DataDir), fmt.Sprintf("%q", dir),
		fmt.Sprintf("bind_addr        = %q", hostOf(t, f.RPC)), fmt.Sprintf("bind_addr        = %q", h.Address(copyHost)),
	).Replace(fileText(t, f.Config))
	require.Contains(t, text, h.Address(copyHost))
	conf := filepath.Join(t.TempDir(), "copy.hcl")
	require.NoError(t, os.WriteFile(conf, []byte(text), 0o600))
	argv, err := h.Command(copyHost, []string{filepath.Join(bin, "logd"), "agent", "-config", conf})
	require.NoError(t, err)
	h.drop(copyHost, "meta l4proto udp")
	second := &harness.Process{Name: "copy", Path: argv[0], Args: argv[1:], Log: filepath.Join(t.TempDir(), "copy.log")}
	w.steady(func() {
		require.NoError(t, second.Start())
		t.Cleanup(func() {
			if second.Running() {
				require.NoError(t, second.Kill())
			}
			requireNoRace(t, second)
		})
		code, err := second.Wait(ctx)
		require.NoError(t, err, "%s", second.Tail(40))
		require.Equal(t, 1, code)
		require.Contains(t, second.Tail(20), "name conflict")
		require.Contains(t, second.Tail(20), id)
		tr.more(100)
	})
	w.failures(f, 0)
	require.True(t, f.Running())
	require.NoError(t, w.NodeReady(w.ctx, f))
	tr.finish()
}
