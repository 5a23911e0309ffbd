package telemetry

import (
	"strings"

	metrics "github.com/hashicorp/go-metrics"
)

// Bridged is the number of go-metrics keys taken over.
func Bridged() int { return len(bridge()) }

// TouchAll gives every bridged metric a value.
func TouchAll(m *metrics.Metrics) {
	for _, b := range bridge() {
		key := strings.Split(b.key, ".")
		var labels []metrics.Label
		for _, l := range b.labels {
			labels = append(labels, metrics.Label{Name: l, Value: "x"})
		}
		m.IncrCounterWithLabels(key, 1, labels)
		m.SetGaugeWithLabels(key, 1, labels)
		m.AddSampleWithLabels(key, 1, labels)
	}
}

// Kinds is how many pairs of method and code are told apart.
func (a *AccessLog) Kinds() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.kinds)
}

// Watchers is how many watch the log.
func (l *Logger) Watchers() int {
	l.watch.mu.Lock()
	defer l.watch.mu.Unlock()
	return len(l.watch.watchers)
}
