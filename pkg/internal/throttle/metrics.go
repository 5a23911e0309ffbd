package throttle

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// limit is the setting that was met.
type limit string

const (
	produce  limit = "produce_rate"
	consume  limit = "consume_rate"
	requests limit = "request_rate"
)

// outcome is what became of it.
type outcome string

const (
	waited  outcome = "waited"
	refused outcome = "refused"
)

// metrics name no principal: there may be any number of them.
type metrics struct {
	throttled *prometheus.CounterVec
	seconds   prometheus.Counter
	known     prometheus.GaugeFunc
}

func newMetrics(namespace string, known func() int) *metrics {
	m := &metrics{
		throttled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "throttled_total",
			Help: "Times a principal was past one of its rates, and whether it was made to wait or refused.",
		}, []string{"limit", "outcome"}),
		seconds: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "throttled_seconds_total",
			Help: "Time that streams were made to wait for a principal's rate.",
		}),
		known: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: namespace, Name: "throttle_principals",
			Help: "Principals whose rates are remembered now.",
		}, func() float64 { return float64(known()) }),
	}
	for _, l := range []limit{produce, consume, requests} {
		for _, o := range []outcome{waited, refused} {
			m.throttled.WithLabelValues(string(l), string(o))
		}
	}
	return m
}

func (m *metrics) register(reg prometheus.Registerer) error {
	if reg == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{m.throttled, m.seconds, m.known} {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}

func (m *metrics) met(what limit, how outcome, d time.Duration) {
	m.throttled.WithLabelValues(string(what), string(how)).Inc()
	m.seconds.Add(d.Seconds())
}
