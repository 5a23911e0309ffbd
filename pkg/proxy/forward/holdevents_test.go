package forward_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/internal/events"
	"github.com/logd-io/logd/pkg/proxy/forward"
)

// However many produces are held, by whomever, a hold is one event.
func TestAHoldIsOneEvent(t *testing.T) {
	c := newCluster(t, "a")
	log := events.New()
	p := newProxy(t, c, func(cfg *forward.Config) { cfg.Events = log })
	since, held := p.fwd.Holding()
	require.Zero(t, since)
	require.Zero(t, held)

	var got []<-chan error
	for range 40 {
		got = append(got, produceAsync(t, p, "x"))
	}
	require.Eventually(t, func() bool {
		since, held := p.fwd.Holding()
		return since > 0 && held == 40
	}, 10*time.Second, time.Millisecond)
	require.Empty(t, log.Last(1))
	c.lead("a")
	for _, g := range got {
		require.NoError(t, <-g)
	}
	require.Eventually(t, func() bool { return len(log.Last(9)) > 0 }, 10*time.Second, time.Millisecond)
	es := log.Last(9)
	require.Len(t, es, 1)
	require.Equal(t, "hold", es[0].Kind)
	require.EqualValues(t, 40, es[0].Count)
	require.Regexp(t, `^held 40 produces for [0-9.]+ m?s$`, es[0].Text)
	since, held = p.fwd.Holding()
	require.Zero(t, since)
	require.Zero(t, held)
	counts := p.fwd.Counts()
	require.Equal(t, p.metric("held_records_total"), counts.Held)

	// A leader that goes while nobody waits for it is no hold.
	c.lead("")
	c.lead("a")
	require.NoError(t, <-produceAsync(t, p, "y"))
	require.Eventually(t, func() bool { since, _ := p.fwd.Holding(); return since == 0 }, 10*time.Second, time.Millisecond)
}

// The proxy reads for itself as a client's Consume goes, and is of no session: what it
// saw must not make its clients wait.
func TestTheProxysOwnReads(t *testing.T) {
	c := newCluster(t, "a", "b")
	c.lead("a")
	p := newProxy(t, c, nil)
	require.NoError(t, <-produceAsync(t, p, "x"))
	rec, err := p.fwd.Read(ctxFor(t, 20*time.Second), "me", 0)
	require.NoError(t, err)
	require.Equal(t, "x", string(rec.GetValue()))
	require.Zero(t, rec.GetOffset())
	require.Zero(t, p.metric("sessions"))
	_, err = p.fwd.Read(ctxFor(t, 20*time.Second), "me", 7)
	requireReason(t, "OFFSET_OUT_OF_RANGE", err)
}
