package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/harness"
)

// startSmall is start with a log in many small segments, of which little is in
// memory.
func startSmall(t *testing.T) *world {
	t.Helper()
	w := prepare(t, nil, func(o *harness.Options) {
		o.NodeConfig = "log {\n  segment_size = \"64KiB\"\n  cache_size = \"1MiB\"\n}\n"
	})
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))
	return w
}

// metric reads a counter of a node, 0 when it has none.
func (w *world) metric(n *harness.Node, name string) float64 {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.Admin+"/metrics", nil)
	require.NoError(w.t, err)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0 // it is not up yet
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(w.t, err)
	for _, line := range strings.Split(string(text), "\n") {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(rest, 64)
			require.NoError(w.t, err)
			return v
		}
	}
	return 0
}

// repaired waits until n was damaged and is not any more.
func (w *world) repaired(n *harness.Node) {
	w.t.Helper()
	w.until(n.Name+" is repaired", func() error {
		if w.metric(n, "logd_replica_repairs_total") < 1 {
			return errors.New("not yet")
		}
		if left := w.stats(n).GetDamagedEntries(); left > 0 {
			return fmt.Errorf("%d entries are damaged", left)
		}
		return nil
	})
	require.NoError(w.t, w.NodeReady(w.ctx, n))
}

func segmentsOf(t *testing.T, n *harness.Node) []string {
	names := segments(t, n)
	require.Greater(t, len(names), 3, "there are a few segments")
	return names
}

// fewSegments waits until every node's log has a few segments. How many records that
// takes depends on how they are batched.
func (tr *traffic) fewSegments() {
	tr.w.t.Helper()
	for _, n := range tr.w.Nodes {
		for len(segments(tr.w.t, n)) <= 3 {
			tr.more(1000)
		}
	}
}

func segments(t *testing.T, n *harness.Node) []string {
	names, err := filepath.Glob(filepath.Join(n.DataDir, "raft", "log", "*.seg"))
	require.NoError(t, err)
	slices.Sort(names)
	return names
}

// write changes a file's bytes at a place.
func write(t *testing.T, name string, at int64, b []byte) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt(b, at)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// Whatever happens to the files of one node while it is down, it comes back with
// what the others have, and nobody who produces or consumes notices. (P6)
func TestADamagedFollowerIsRepaired(t *testing.T) {
	t.Parallel()
	w := startSmall(t)
	tr := w.load()
	tr.fewSegments()
	for _, damage := range []struct {
		name string
		do   func(n *harness.Node)
	}{
		{"a bit in a sealed segment", func(n *harness.Node) {
			name := segmentsOf(t, n)[0]
			b, err := os.ReadFile(name)
			require.NoError(t, err)
			write(t, name, 1000, []byte{b[1000] ^ 16})
		}},
		{"zeroed pages", func(n *harness.Node) { write(t, segmentsOf(t, n)[1], 8192, make([]byte, 8192)) }},
		{"a truncated segment", func(n *harness.Node) { require.NoError(t, os.Truncate(segmentsOf(t, n)[1], 12345)) }},
		{"two swapped segments", func(n *harness.Node) {
			names := segmentsOf(t, n)
			require.NoError(t, os.Rename(names[0], names[0]+"x"))
			require.NoError(t, os.Rename(names[2], names[0]))
			require.NoError(t, os.Rename(names[0]+"x", names[2]))
		}},
		{"a truncated tail", func(n *harness.Node) {
			names := segmentsOf(t, n)
			require.NoError(t, os.Truncate(names[len(names)-1], 100))
		}},
		{"the term and vote", func(n *harness.Node) {
			write(t, filepath.Join(n.DataDir, "raft", "raft-state"), 0, make([]byte, 8192))
		}},
	} {
		n := w.follower()
		require.NoError(t, n.Kill())
		t.Logf("%s: %s", n.Name, damage.name)
		damage.do(n)
		tr.more(100)
		require.NoError(t, n.Process.Start())
		if damage.name == "two swapped segments" {
			// Each says whose it is; they get their names back without a peer.
			require.NoError(t, w.NodeReady(w.ctx, n))
		} else {
			w.repaired(n)
		}
		tr.more(100)
	}
	tr.finish()
}

// A leader whose disk changes a byte under it hands leadership on, repairs, and
// is never heard to say anything wrong.
func TestADamagedLeaderHandsOnAndIsRepaired(t *testing.T) {
	w := startSmall(t)
	const marker = "a record that nobody may change"
	off, err := produce(w.ctx, w.naive(), marker)
	require.NoError(t, err)
	filler := strings.Repeat("x", 200<<10)
	for range 12 { // more than the cache holds
		_, err := produce(w.ctx, w.naive(), filler)
		require.NoError(t, err)
	}
	l := w.leader()
	require.Zero(t, w.metric(l, "logd_replica_damages_total"))
	names, err := filepath.Glob(filepath.Join(l.DataDir, "raft", "log", "*.seg"))
	require.NoError(t, err)
	flipped := false
	for _, name := range names {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		if at := bytes.Index(b, []byte(marker)); at >= 0 {
			write(t, name, int64(at), []byte{b[at] ^ 1})
			flipped = true
		}
	}
	require.True(t, flipped)
	naive := logv1.NewLogClient(w.naive())
	direct := logv1.NewLogClient(w.dial("client", l))
	refused := false
	w.until("the leader finds it", func() error {
		resp, err := direct.Consume(w.ctx, &logv1.ConsumeRequest{Offset: off})
		if err == nil {
			require.Equal(t, marker, string(resp.GetRecord().GetValue()))
		} else {
			require.Equal(t, codes.DataLoss, status.Code(err), err)
			refused = true
		}
		got, err := naive.Consume(w.ctx, &logv1.ConsumeRequest{Offset: off})
		require.NoError(t, err, "through the proxy nobody sees it")
		require.Equal(t, marker, string(got.GetRecord().GetValue()))
		if w.metric(l, "logd_replica_damages_total") == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	require.True(t, refused, "what is damaged is not served")
	w.until("another node leads", func() error {
		if w.leader() == l {
			return errors.New("not yet")
		}
		return nil
	})
	w.repaired(l)
	resp, err := direct.Consume(w.ctx, &logv1.ConsumeRequest{Offset: off})
	require.NoError(t, err)
	require.Equal(t, marker, string(resp.GetRecord().GetValue()))
	var all [][]*logv1.Record
	for _, n := range w.Nodes {
		recs, err := w.ReadNode(w.ctx, n, off+13)
		require.NoError(t, err)
		all = append(all, recs)
	}
	require.NoError(t, harness.Same(all[0], all[1]))
	require.NoError(t, harness.Same(all[0], all[2]))
}
