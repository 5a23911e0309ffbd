package authz

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	denied  *prometheus.CounterVec // by action
	reloads *prometheus.CounterVec // by result
	last    *prometheus.GaugeVec   // by result
	failing prometheus.Gauge
	errors  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "logd", Subsystem: "acl", Name: name, Help: help}
	}
	m := &metrics{
		denied:  prometheus.NewCounterVec(prometheus.CounterOpts(opts("denied_total", "Calls refused, by the action that was not allowed, or role.")), []string{"action"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts(opts("reloads_total", "Changed or ordered reloads of the acl files, by result.")), []string{"result"}),
		last:    prometheus.NewGaugeVec(prometheus.GaugeOpts(opts("last_reload_timestamp_seconds", "When the acl files were last read again with that result, in seconds since 1970; 0: never.")), []string{"result"}),
		failing: prometheus.NewGauge(prometheus.GaugeOpts(opts("reload_failing", "1 while the acl files do not load and older rules are in force."))),
		errors:  prometheus.NewCounter(prometheus.CounterOpts(opts("errors_total", "Decisions that the acl failed at, and refused."))),
	}
	for _, action := range append(actionNames[:], "role") {
		m.denied.WithLabelValues(action)
	}
	for _, result := range []string{"ok", "failed"} {
		m.reloads.WithLabelValues(result)
		m.last.WithLabelValues(result)
	}
	if reg != nil {
		reg.MustRegister(m.denied, m.reloads, m.last, m.failing, m.errors)
	}
	return m
}

// reloaded notes how a reload ended.
func (m *metrics) reloaded(result string) {
	m.reloads.WithLabelValues(result).Inc()
	m.last.WithLabelValues(result).SetToCurrentTime()
}
