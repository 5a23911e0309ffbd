package certwatch

import (
	"crypto/x509"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	notAfter *prometheus.GaugeVec   // by certificate
	reloads  *prometheus.CounterVec // by result
	last     *prometheus.GaugeVec   // by result
}

// newMetrics registers with reg; nil keeps the handles private.
func newMetrics(setting string, reg prometheus.Registerer) (*metrics, error) {
	labels := prometheus.Labels{"setting": setting}
	m := &metrics{
		notAfter: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "logd", Subsystem: "tls", Name: "not_after_seconds", ConstLabels: labels,
			Help: "When the certificate in use, and the CA that vouches for it, end, in seconds since 1970.",
		}, []string{"certificate"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "logd", Subsystem: "tls", Name: "reloads_total", ConstLabels: labels,
			Help: "Changes of the certificate files that were taken, or not.",
		}, []string{"result"}),
	}
	m.last = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: "logd", Subsystem: "tls", Name: "last_reload_timestamp_seconds", ConstLabels: labels,
		Help: "When the certificate files were last read again with that result, in seconds since 1970; 0: never.",
	}, []string{"result"})
	for _, result := range []string{"loaded", "failed"} {
		m.reloads.WithLabelValues(result)
		m.last.WithLabelValues(result)
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.notAfter, m.reloads, m.last} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// reloaded notes how a reload ended.
func (m *metrics) reloaded(result string) {
	m.reloads.WithLabelValues(result).Inc()
	m.last.WithLabelValues(result).SetToCurrentTime()
}

func (m *metrics) show(leaf, ca *x509.Certificate) {
	m.notAfter.WithLabelValues("leaf").Set(float64(leaf.NotAfter.Unix()))
	m.notAfter.WithLabelValues("ca").Set(float64(ca.NotAfter.Unix()))
}
