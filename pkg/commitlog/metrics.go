package commitlog

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the handles of what is counted; they count even when nobody
// registered them.
type metrics struct {
	entries        prometheus.Counter
	bytes          prometheus.Counter
	sync           prometheus.Histogram
	append         prometheus.Histogram
	segments       prometheus.Gauge
	noSpace        prometheus.Counter
	hits           prometheus.Counter
	misses         prometheus.Counter
	damaged        prometheus.Gauge
	damagedOffsets prometheus.Gauge
	repaired       prometheus.Counter

	scrubBytes  prometheus.Counter
	scrubPasses prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	name := func(n, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "logd", Subsystem: "commitlog", Name: n, Help: help}
	}
	m := &metrics{
		entries:        prometheus.NewCounter(prometheus.CounterOpts(name("entries_total", "Entries appended."))),
		bytes:          prometheus.NewCounter(prometheus.CounterOpts(name("written_bytes_total", "Bytes of frames written."))),
		segments:       prometheus.NewGauge(prometheus.GaugeOpts(name("segments", "Segment files."))),
		noSpace:        prometheus.NewCounter(prometheus.CounterOpts(name("no_space_total", "Attempts to preallocate a segment that met a full disk."))),
		hits:           prometheus.NewCounter(prometheus.CounterOpts(name("reads_cached_total", "Reads by offset served from the tail cache."))),
		misses:         prometheus.NewCounter(prometheus.CounterOpts(name("reads_disk_total", "Reads by offset served from segments."))),
		damaged:        prometheus.NewGauge(prometheus.GaugeOpts(name("damaged_entries", "Entries that cannot be read and wait for repair."))),
		damagedOffsets: prometheus.NewGauge(prometheus.GaugeOpts(name("damaged_offset_files", "Files of the offset index that cannot be read and wait for repair."))),
		repaired:       prometheus.NewCounter(prometheus.CounterOpts(name("repaired_entries_total", "Damaged entries that were put in place again."))),
		scrubBytes:     prometheus.NewCounter(prometheus.CounterOpts(name("scrub_bytes_total", "Bytes that the scrub has read and verified."))),
		scrubPasses:    prometheus.NewCounter(prometheus.CounterOpts(name("scrub_passes_total", "Passes of the scrub over the whole log."))),
		sync: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "logd", Subsystem: "commitlog", Name: "sync_seconds",
			Help:    "Time one fdatasync of a segment took.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16), // 0.1 ms to 3.3 s
		}),
		append: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "logd", Subsystem: "commitlog", Name: "append_seconds",
			Help:    "Time one append of entries took, written and synced.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
		}),
	}
	if r == nil {
		return m, nil
	}
	// A log that is reopened in one process goes on with the same series.
	var err error
	m.entries, err = register(r, m.entries, err)
	m.bytes, err = register(r, m.bytes, err)
	m.segments, err = register(r, m.segments, err)
	m.noSpace, err = register(r, m.noSpace, err)
	m.hits, err = register(r, m.hits, err)
	m.misses, err = register(r, m.misses, err)
	m.damaged, err = register(r, m.damaged, err)
	m.damagedOffsets, err = register(r, m.damagedOffsets, err)
	m.repaired, err = register(r, m.repaired, err)
	m.scrubBytes, err = register(r, m.scrubBytes, err)
	m.scrubPasses, err = register(r, m.scrubPasses, err)
	m.sync, err = register(r, m.sync, err)
	m.append, err = register(r, m.append, err)
	return m, err
}

func register[C prometheus.Collector](r prometheus.Registerer, c C, prev error) (C, error) {
	err := r.Register(c)
	var again prometheus.AlreadyRegisteredError
	if errors.As(err, &again) {
		if old, ok := again.ExistingCollector.(C); ok {
			return old, prev
		}
	}
	return c, errors.Join(prev, err)
}
