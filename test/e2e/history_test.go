package e2e_test

import (
	"cmp"
	"compress/gzip"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/harness"
	"github.com/logd-io/logd/test/history"
	"github.com/logd-io/logd/test/history/linear"
)

// app is the principal that proxies speak for which are to know each other's
// request ids.
const app = "app"

// ofApp lets every proxy speak for it.
func ofApp(o *harness.Options) { o.ProxyConfig += "principal = \"" + app + "\"\n" }

// recorded is a client's connection to p that is in no session of its own: all such
// clients of a plaintext proxy are one.
func (w *world) recorded(r *history.Recorder, name string, p *harness.Proxy, principal string) *history.Conn {
	return r.Conn(w.naiveTo(p), history.Who{Name: name, Session: p.Name, Principal: principal})
}

// naiveTo is a connection that knows only the address of p.
func (w *world) naiveTo(p *harness.Proxy, opts ...grpc.DialOption) *grpc.ClientConn {
	conn, err := harness.Naive(p.Addr, opts...)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// verify reads [from, next) of every node's log, and requires that what r has
// recorded contradicts neither that nor itself, and that Porcupine thinks so, too. A
// history that does not pass is kept, and one that does when LOGD_HISTORY says where.
func (w *world) verify(r *history.Recorder, from, next uint64) (*history.History, *history.Report) {
	w.t.Helper()
	for _, n := range w.Nodes {
		l := history.Log{Node: n.Name}
		err := harness.Tail(w.ctx, w.dial("client", n), from, func(rec *logv1.Record) bool {
			require.NoError(w.t, l.Add(rec))
			return rec.GetOffset()+1 < next
		})
		require.NoError(w.t, err, n.Name)
		r.AddLog(l)
	}
	h := r.History()
	report := history.Check(h)
	w.t.Log(report)
	seed := rand.Uint64()
	samples, err := linear.Sample(h, rand.New(rand.NewPCG(seed, 0)), 20, 40, time.Second)
	w.t.Logf("Porcupine: %d samples, %d operations, %d given up for time", samples.Windows, samples.Ops, samples.Unknown)
	err = errors.Join(report.Err(), err)
	if err != nil || os.Getenv("LOGD_HISTORY") != "" {
		w.t.Logf("kept: %s", w.keep(h, historyFolder()))
	}
	require.NoError(w.t, err, "seed of the samples %d", seed)
	return h, report
}

// historyFolder is where histories are kept.
func historyFolder() string { return cmp.Or(os.Getenv("LOGD_HISTORY"), os.TempDir()) }

// keep writes h to a file for checkhistory.
func (w *world) keep(h *history.History, folder string) string {
	w.t.Helper()
	name := strings.ReplaceAll(w.t.Name(), "/", "-") + time.Now().Format("-20060102-150405") + ".jsonl.gz"
	f, err := os.Create(filepath.Join(folder, name))
	require.NoError(w.t, err)
	z := gzip.NewWriter(f)
	require.NoError(w.t, errors.Join(h.Write(z), z.Close(), f.Close()))
	return f.Name()
}
