package e2e_test

import (
	"fmt"
	"sync/atomic"

	"github.com/stretchr/testify/require"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/harness"
)

// traffic is naive producers and a naive tail that run while a test breaks things.
type traffic struct {
	*harness.Load
	w      *world
	ended  chan struct{} // closed when the producers have stopped
	tailed chan error    // one value: why the tail ended
	seen   atomic.Uint64 // the offset after the last one the tail has read
}

// more waits until n more records than now have been acknowledged.
func (tr *traffic) more(n uint64) {
	tr.w.t.Helper()
	want := tr.Acked() + n
	tr.w.until(fmt.Sprintf("%d acknowledgements", want), func() error {
		if got := tr.Acked(); got < want {
			return fmt.Errorf("%d acknowledged, %d failed: %w", got, tr.Failed(), tr.Err())
		}
		return nil
	})
}

// finish stops the producers and requires that nothing went wrong for anybody:
// no error, nothing lost, nothing twice, no gap, and all nodes equal.
func (tr *traffic) finish() {
	tr.w.t.Helper()
	tr.halt()
	require.NoError(tr.w.t, tr.Err())
	require.Zero(tr.w.t, tr.Failed())
	v := tr.check()
	require.Equal(tr.w.t, tr.Acked(), v.InLog)
	tr.tailReads(v.InLog)
}

// halt stops the producers and waits for the calls under way.
func (tr *traffic) halt() {
	tr.Stop()
	<-tr.ended
}

// check reads every running node's whole log: every acknowledged record at its
// offset, none twice, all nodes equal.
func (tr *traffic) check() harness.Verdict {
	t, w := tr.w.t, tr.w
	t.Helper()
	acked := tr.Offsets()
	next := w.logEnd("client")
	var first []*logv1.Record
	var verdict harness.Verdict
	for _, n := range w.Nodes {
		if !n.Running() {
			continue
		}
		recs, err := w.ReadNode(w.ctx, n, next)
		require.NoError(t, err, n.Name)
		verdict, err = harness.Check(recs, acked)
		require.NoError(t, err, n.Name)
		require.Zero(t, verdict.Lost, "%s lost acknowledged records", n.Name)
		require.Zero(t, verdict.Duplicates, "%s has records twice", n.Name)
		if first == nil {
			first = recs
		}
		require.NoError(t, harness.Same(first, recs), n.Name)
	}
	return verdict
}

// tailReads waits until the tail, which was never opened again, has read
// everything below next.
func (tr *traffic) tailReads(next uint64) {
	tr.w.t.Helper()
	tr.w.until("the tail", func() error {
		select {
		case err := <-tr.tailed:
			return harness.Ended(fmt.Errorf("the tail has ended: %w", err))
		default:
		}
		if at := tr.seen.Load(); at < next {
			return fmt.Errorf("the tail has read %d of %d", at, next)
		}
		return nil
	})
}
