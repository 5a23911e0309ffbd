package membership

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	members      *prometheus.GaugeVec // by role and state
	changes      prometheus.Counter
	joinFailures prometheus.Counter
	udpSilent    prometheus.Gauge
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.members, m.changes, m.joinFailures, m.udpSilent}
}

// newMetrics registers with reg; nil keeps the handles private.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "logd", Subsystem: "gossip", Name: name, Help: help}
	}
	m := &metrics{
		members: prometheus.NewGaugeVec(prometheus.GaugeOpts(
			opts("members", "Members known by gossip.")), []string{"role", "state"}),
		changes: prometheus.NewCounter(prometheus.CounterOpts(
			opts("changes_total", "Changes of the member list."))),
		joinFailures: prometheus.NewCounter(prometheus.CounterOpts(
			opts("join_failures_total", "Attempts to join an address that reached nobody."))),
		udpSilent: prometheus.NewGauge(prometheus.GaugeOpts(
			opts("udp_silent", "1 while members are alive and no packet of theirs arrives: gossip goes over TCP alone."))),
	}
	if reg == nil {
		return m, nil
	}
	var done []prometheus.Collector
	for _, c := range m.all() {
		if err := reg.Register(c); err != nil {
			for _, d := range done {
				reg.Unregister(d)
			}
			return nil, err
		}
		done = append(done, c)
	}
	return m, nil
}

func (m *metrics) unregister(reg prometheus.Registerer) {
	if reg == nil {
		return
	}
	for _, c := range m.all() {
		reg.Unregister(c)
	}
}

func (m *metrics) show(members []Member) {
	for _, role := range []Role{RoleStorage, RoleProxy} {
		for _, state := range []State{Alive, Failed, Left} {
			n := 0
			for _, x := range members {
				if x.Role == role && x.State == state {
					n++
				}
			}
			m.members.WithLabelValues(string(role), state.String()).Set(float64(n))
		}
	}
	m.changes.Inc()
}
