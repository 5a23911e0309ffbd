package replica

import "github.com/prometheus/client_golang/prometheus"

// retentionMetrics are the handles of retention; the rest is looked up when it
// is asked for.
type retentionMetrics struct {
	paused prometheus.Gauge
	moves  prometheus.Counter
}

func newRetentionMetrics(reg prometheus.Registerer, r *Replica) *retentionMetrics {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "logd", Subsystem: "replica", Name: name, Help: help}
	}
	m := &retentionMetrics{
		paused: prometheus.NewGauge(prometheus.GaugeOpts(opts("retention_paused", "1 while this node leads and does not age records, because clocks disagree."))),
		moves:  prometheus.NewCounter(prometheus.CounterOpts(opts("retentions_total", "Times this node, as leader, moved the lowest offset."))),
	}
	if reg == nil {
		return m
	}
	reg.MustRegister(m.paused, m.moves)
	gauge := func(name, help string, f func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts(name, help)), f))
	}
	log := r.store.Log()
	gauge("commit_index", "Raft index up to which this node knows entries to be committed.", func() float64 { return float64(r.committed()) })
	gauge("applied_index", "Raft index up to which this node has applied entries that the state machine gets.", func() float64 {
		if e := r.engine.Load(); e != nil {
			return float64(e.fsm.applied.Load())
		}
		return 0
	})
	gauge("last_index", "Raft index of the last entry on disk.", func() float64 { return float64(log.Last()) })
	gauge("voters", "Servers with a vote in the Raft configuration.", func() float64 {
		n := 0
		for _, p := range r.View().Peers {
			if p.Voter {
				n++
			}
		}
		return float64(n)
	})
	gauge("lowest_offset", "Lowest readable offset.", func() float64 { return float64(log.Lowest()) })
	gauge("visible_offset", "Offset that the next record gets.", func() float64 { return float64(log.Visible()) })
	gauge("retained_bytes", "What the log's segments take on disk.", func() float64 { return float64(log.Stats().Bytes) })
	gauge("removing_bytes", "What is below the start of the log and not removed yet.", func() float64 { return float64(log.Stats().GoingBytes) })
	gauge("oldest_record_age_seconds", "Age of the oldest readable record, by this node's clock and its leader's stamp.", r.oldest)
	return m
}
