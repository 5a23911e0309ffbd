package telemetry

import (
	"fmt"
	"strings"

	metrics "github.com/hashicorp/go-metrics"
	"github.com/prometheus/client_golang/prometheus"
)

// Sink takes what raft, serf and memberlist report through go-metrics into a
// Prometheus registry, under our names and in base units. What bridge.go does
// not list is dropped: go-metrics makes names out of peers and event names, and
// tells neither a duration from a count nor milliseconds from bytes.
type Sink struct {
	counters map[string]bridged[*prometheus.CounterVec]
	gauges   map[string]bridged[*prometheus.GaugeVec]
	samples  map[string]bridged[prometheus.ObserverVec]
}

type bridged[V any] struct {
	vec    V
	labels []string // of go-metrics, in the order of the vec's
	scale  float64
}

var _ metrics.MetricSink = (*Sink)(nil)

// NewSink registers the bridged metrics under program's prefix.
func NewSink(program string, reg prometheus.Registerer) (*Sink, error) {
	s := &Sink{
		counters: map[string]bridged[*prometheus.CounterVec]{},
		gauges:   map[string]bridged[*prometheus.GaugeVec]{},
		samples:  map[string]bridged[prometheus.ObserverVec]{},
	}
	for _, b := range bridge() {
		if program != "logd" && strings.HasPrefix(b.key, "raft.") {
			continue // only a node has one
		}
		name, ours := program+"_"+b.name, renamed(b.labels)
		var c prometheus.Collector
		switch b.kind {
		case counter:
			vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: b.help}, ours)
			if len(ours) == 0 {
				vec.WithLabelValues() // 0 until something happens, and not absent
			}
			s.counters[b.key] = bridged[*prometheus.CounterVec]{vec, b.labels, 1}
			c = vec
		case gauge:
			vec := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: b.help}, ours)
			s.gauges[b.key] = bridged[*prometheus.GaugeVec]{vec, b.labels, 1}
			c = vec
		case milliseconds:
			vec := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: b.help, Buckets: durationBuckets()}, ours)
			if len(ours) == 0 {
				vec.WithLabelValues()
			}
			s.samples[b.key] = bridged[prometheus.ObserverVec]{vec, b.labels, 1e-3}
			c = vec
		case sample:
			vec := prometheus.NewSummaryVec(prometheus.SummaryOpts{Name: name, Help: b.help}, ours)
			if len(ours) == 0 {
				vec.WithLabelValues()
			}
			s.samples[b.key] = bridged[prometheus.ObserverVec]{vec, b.labels, 1}
			c = vec
		}
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register %s: %w", name, err)
		}
	}
	return s, nil
}

// InstallGlobal makes the sink the one that raft, serf and memberlist write to.
// It is for a main: the libraries know only one instance in a process.
func (s *Sink) InstallGlobal() error {
	c := metrics.DefaultConfig("")
	c.EnableHostname = false
	c.EnableRuntimeMetrics = false // the Go collector has them
	_, err := metrics.NewGlobal(c, s)
	return err
}

// durationBuckets from half a millisecond to ten seconds.
func durationBuckets() []float64 {
	return []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10}
}

// values picks the labels a vec has out of those that came; one that did not
// come is empty.
func (b bridged[V]) values(labels []metrics.Label) []string {
	if len(b.labels) == 0 {
		return nil
	}
	values := make([]string, len(b.labels))
	for i, name := range b.labels {
		for _, l := range labels {
			if l.Name == name {
				values[i] = l.Value
			}
		}
	}
	return values
}

// SetGauge and the methods after it are metrics.MetricSink.
func (s *Sink) SetGauge(key []string, val float32) { s.SetGaugeWithLabels(key, val, nil) }

func (s *Sink) SetGaugeWithLabels(key []string, val float32, labels []metrics.Label) {
	if b, ok := s.gauges[strings.Join(key, ".")]; ok {
		b.vec.WithLabelValues(b.values(labels)...).Set(float64(val) * b.scale)
	}
}

func (s *Sink) IncrCounter(key []string, val float32) { s.IncrCounterWithLabels(key, val, nil) }

func (s *Sink) IncrCounterWithLabels(key []string, val float32, labels []metrics.Label) {
	if b, ok := s.counters[strings.Join(key, ".")]; ok && val >= 0 {
		b.vec.WithLabelValues(b.values(labels)...).Add(float64(val) * b.scale)
	}
}

func (s *Sink) AddSample(key []string, val float32) { s.AddSampleWithLabels(key, val, nil) }

func (s *Sink) AddSampleWithLabels(key []string, val float32, labels []metrics.Label) {
	if b, ok := s.samples[strings.Join(key, ".")]; ok {
		b.vec.WithLabelValues(b.values(labels)...).Observe(float64(val) * b.scale)
	}
}

// EmitKey drops the value: no library of ours uses it.
func (s *Sink) EmitKey([]string, float32) {}
