package e2e_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/test/harness"
)

// used is what the files below dir take.
func used(dir string) (bytes int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // files go while we look
		}
		if info, err := d.Info(); err == nil && !d.IsDir() {
			bytes += info.Size()
		}
		return nil
	})
	return bytes
}

// Records flow while old ones go: the nodes' disks stay as full as they were told
// to be, whoever keeps up notices nothing, whoever comes too late is told where
// the log begins, and a node that lost its disk comes back from what is left.
func TestRetentionBySize(t *testing.T) {
	t.Parallel()
	const (
		size    = 1 << 20
		segment = 64 << 10
		count   = 500
		bytes   = 32 << 10
		each    = 25 * time.Millisecond
		rate    = int64(bytes * (time.Second / each)) // a second's, at most
	)
	w := prepare(t, nil)
	for _, n := range w.Nodes {
		setting(t, n, fmt.Sprintf("log { segment_size = \"%dB\" }\nretain { size = \"%dB\" }\n", segment, size))
	}
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))
	conn := w.naive()
	log := logv1.NewLogClient(conn)

	tailConn := w.naive()
	var seen atomic.Uint64
	tailed := make(chan error, 1)
	go func() { // joined below
		tailed <- harness.Tail(w.ctx, tailConn, 0, func(rec *logv1.Record) bool {
			return seen.Add(1) < count
		})
	}()
	var most int64
	watch := func() {
		for _, n := range w.Nodes {
			most = max(most, used(n.DataDir))
		}
	}
	tick := time.NewTicker(each)
	defer tick.Stop()
	value := make([]byte, bytes)
	for i := range uint64(count) {
		<-tick.C
		// The consumer keeps up, on a machine that is busy as well: it is never more
		// than half of what is kept behind.
		w.until("the consumer has kept up", func() error {
			if at := seen.Load(); len(tailed) == 0 && i > at+size/bytes/2 {
				return fmt.Errorf("it is at %d of %d", at, i)
			}
			return nil
		})
		resp, err := log.Produce(w.ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: value}})
		require.NoError(t, err)
		require.Equal(t, i, resp.GetOffset())
		watch()
	}
	require.NoError(t, <-tailed, "a consumer that keeps up")
	require.EqualValues(t, count, seen.Load())

	// While records flow: what is kept, what came since the leader looked, what
	// waits to be removed, and the parts of segments that cannot go. The offset
	// index, checkpoints and the rest are small.
	limit := size + 2*rate + (16*segment + 2*rate) + 4*segment + size/2
	t.Logf("%d MiB written; the fullest disk held %d KiB, at most %d KiB are allowed", count*bytes>>20, most>>10, limit>>10)
	require.Less(t, most, limit)
	w.until("disks are as full as they were told to be", func() error {
		for _, n := range w.Nodes {
			// A log begins at a checkpoint: retention took one about every second.
			if got := used(n.DataDir); got > size+rate+4*segment+size/4 {
				return fmt.Errorf("%s takes %d KiB", n.Name, got>>10)
			}
		}
		return nil
	})

	var begins uint64
	w.until("the log and the refusal begin at the same", func() error { // retention may go on, on one node before another
		off, err := log.GetOffsets(w.ctx, &logv1.GetOffsetsRequest{})
		require.NoError(t, err)
		lowest := off.GetLowest()
		require.EqualValues(t, count, off.GetNext())
		require.Greater(t, lowest, uint64(count/2))
		s, err := log.ConsumeStream(w.ctx, &logv1.ConsumeRequest{})
		require.NoError(t, err)
		_, err = s.Recv()
		info, _ := apierr.From(err)
		require.Equal(t, apierr.ReasonOutOfRange, info.Reason, "%v", err)
		var ok bool
		begins, ok = info.Uint(apierr.KeyLowest)
		require.True(t, ok)
		if lowest != begins {
			return fmt.Errorf("%d and %d", lowest, begins)
		}
		return nil
	})
	begins, recs := w.readRetained(conn, begins, count)
	require.Len(t, recs, int(count-begins))

	n := w.follower()
	old := w.stats(n).GetNodeId()
	require.NoError(t, n.Kill())
	require.NoError(t, os.RemoveAll(n.DataDir))
	w.remove(old)
	require.NoError(t, n.Process.Start())
	require.NoError(t, w.NodeReady(w.ctx, n))
	w.voter(w.stats(n).GetNodeId())
	first, mine := w.readRetained(w.dial("client", n), begins, count)
	require.NotEmpty(t, mine)
	require.NoError(t, harness.Same(recs[first-begins:], mine))
	resp, err := log.Produce(w.ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: value}})
	require.NoError(t, err)
	require.EqualValues(t, count, resp.GetOffset())
}

// readRetained reads up to next, from an offset on or from wherever retention has
// brought the beginning of the log in the meantime.
func (w *world) readRetained(conn *grpc.ClientConn, from, next uint64) (first uint64, recs []*logv1.Record) {
	w.t.Helper()
	for {
		recs, err := harness.ReadTo(w.ctx, conn, from, next)
		info, _ := apierr.From(err)
		if lowest, ok := info.Uint(apierr.KeyLowest); ok && info.Reason == apierr.ReasonOutOfRange && lowest > from {
			from = lowest
			continue
		}
		require.NoError(w.t, err)
		return from, recs
	}
}
