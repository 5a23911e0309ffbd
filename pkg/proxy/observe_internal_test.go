package proxy

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// Rates and durations are of the time between two looks, and of the node's own calls.
func TestRatesByNode(t *testing.T) {
	calls := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "c"}, []string{"method", "code", "upstream"})
	took := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "h", Buckets: []float64{.001, .01, .1}}, []string{"method", "upstream"})
	past := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "p"}, []string{"method", "upstream"})
	m := &metrics{calls: calls, seconds: took, pastRate: past}
	call := func(n int, code, node string, s float64) {
		for range n {
			calls.WithLabelValues("Produce", code, node).Inc()
			took.WithLabelValues("Produce", node).Observe(s)
		}
	}
	call(1000, "OK", "a", 1) // before the first look: it does not count
	call(1000, "Unavailable", "a", 1)
	begin := time.Now()
	from := sample{at: begin, nodes: m.byNode(), newest: 100}

	call(90, "OK", "a", .0005)
	call(5, "OutOfRange", "a", .05) // what the client asked for
	call(5, "Unavailable", "a", .05)
	call(10, "OK", "b", 5) // above the last bound
	call(20, "ResourceExhausted", "c", .0005)
	past.WithLabelValues("Produce", "c").Add(15)
	r := ratesOf(from, sample{at: begin.Add(10 * time.Second), nodes: m.byNode(), newest: 1100})
	require.InDelta(t, 10, r.nodes["a"].calls, 1e-9)
	require.InDelta(t, .5, r.nodes["a"].errors, 1e-9)
	require.InDelta(t, 1, r.nodes["b"].calls, 1e-9)
	require.InDelta(t, .5, r.nodes["c"].errors, 1e-9, "what a client did by itself is left out")
	require.InDelta(t, 13, r.calls, 1e-9)
	require.InDelta(t, 100, r.records, 1e-9)
	require.InDelta(t, .001*50/90, r.nodes["a"].p50.Seconds(), 1e-6)
	require.InDelta(t, .01+.09*9/10, r.nodes["a"].p99.Seconds(), 1e-6)
	require.Equal(t, 100*time.Millisecond, r.nodes["b"].p50, "at least that")
	require.Zero(t, ratesOf(from, from).calls)
}

func TestFiguresForPeople(t *testing.T) {
	for n, want := range map[float64]string{0: "0", 7: "7", 999: "999", 1000: "1,000", 1234567: "1,234,567", 999999.6: "1,000,000"} {
		require.Equal(t, want, count(n))
	}
	require.Equal(t, "0.1", rate(.1))
	require.Equal(t, "9.9", rate(9.94))
	require.Equal(t, "1,200", rate(1200.4))
	require.Equal(t, "–", seconds(measured(0)))
	require.Equal(t, "0.5 ms", seconds(measured(500*time.Microsecond)))
	require.Equal(t, "25 ms", seconds(measured(25*time.Millisecond)))
	require.Equal(t, "1.5 s", seconds(measured(1500*time.Millisecond)))
	now := time.Now()
	in := func(d time.Duration) string {
		end := now.Add(d)
		text, tone := days(&end, now)
		return text + string(tone)
	}
	require.Equal(t, "overbad", in(-time.Second))
	require.Equal(t, "30 hwarn", in(30*time.Hour))
	require.Equal(t, "6 dayswarn", in(6*24*time.Hour+time.Hour))
	require.Equal(t, "364 days", in(365*24*time.Hour-time.Second))
}
