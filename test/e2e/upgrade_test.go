package e2e_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/test/harness"
)

// A loaded cluster goes from the programs in LOGD_OLD_BIN to these, a node at a time,
// through a proxy of before and through one of now: no client sees an error, and all
// nodes have the same. And back again, since an upgrade may have to be undone.
func TestUpgrade(t *testing.T) {
	old := os.Getenv("LOGD_OLD_BIN")
	if old == "" {
		t.Skip("LOGD_OLD_BIN names no programs of before: make upgrade does")
	}
	for name, proxies := range map[string]string{"through a proxy of before": old, "through a proxy of now": bin} {
		t.Run(name, func(t *testing.T) {
			w := prepare(t, nil, func(o *harness.Options) { o.Bin = old })
			w.proxy.Path = filepath.Join(proxies, "logproxy")
			require.NoError(t, w.Start())
			require.NoError(t, w.Ready(w.ctx))
			tr := w.load()
			tr.more(200)
			for _, to := range []string{bin, old, bin} {
				for _, n := range w.Nodes {
					ctx, cancel := context.WithTimeout(w.ctx, patience)
					require.NoError(t, n.Stop(ctx))
					cancel()
					n.Path = filepath.Join(to, "logd")
					require.NoError(t, n.Process.Start())
					require.NoError(t, w.NodeReady(w.ctx, n))
					tr.more(100)
				}
			}
			t.Logf("longest wait %v", tr.LongestWait())
			tr.finish()
		})
	}
}
