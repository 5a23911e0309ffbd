package replica

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the replica's handles. Every name begins with logd_replica_.
type metrics struct {
	inFlight    prometheus.Gauge
	leader      prometheus.Gauge
	term        prometheus.Gauge
	leaders     prometheus.Counter
	entryBytes  prometheus.Histogram
	batchSize   prometheus.Histogram
	seconds     prometheus.Histogram
	accepted    prometheus.Counter
	duplicate   prometheus.Counter
	refused     prometheus.Counter
	unknown     prometheus.Counter
	overloaded  prometheus.Counter
	checkpoints prometheus.Counter
	installs    prometheus.Counter
	diskFree    prometheus.Gauge
	diskReserve prometheus.Gauge
	diskLow     prometheus.Gauge
	diskRefused prometheus.Counter
	reads       prometheus.Histogram
	readSeconds prometheus.Histogram

	damages, repairs, repaired, drops, checkpointRepairs, offsetRepairs prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "logd", Subsystem: "replica", Name: name, Help: help}
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts(opts(name, help)))
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts(opts(name, help)))
	}
	batches := prometheus.NewCounterVec(prometheus.CounterOpts(
		opts("batches_total", "Batches this node proposed, by the state machine's verdict.")), []string{"verdict"})
	m := &metrics{
		inFlight: gauge("in_flight_bytes", "Bytes of batches waiting or proposed."),
		leader:   gauge("leader", "1 while this node leads and has applied an entry of its term."),
		term:     gauge("term", "Raft's current term."),
		entryBytes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "logd", Subsystem: "replica", Name: "entry_bytes",
			Help: "Size of proposed entries.", Buckets: prometheus.ExponentialBuckets(256, 4, 7),
		}),
		leaders: counter("leader_changes_total", "Times this node learned of another leader than before, itself included. The first after its start is none."),
		batchSize: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "logd", Subsystem: "replica", Name: "batch_records",
			Help: "Records of a batch that this node proposed.", Buckets: prometheus.ExponentialBuckets(1, 4, 8),
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "logd", Subsystem: "replica", Name: "append_seconds",
			Help:    "From taking a batch to its outcome: waiting, replicated, applied.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15), // 0.5 ms to 8 s
		}),
		accepted:    batches.WithLabelValues("accepted"),
		duplicate:   batches.WithLabelValues("duplicate"),
		refused:     batches.WithLabelValues("refused"),
		unknown:     counter("unknown_outcomes_total", "Batches whose fate this node could not learn."),
		overloaded:  counter("overloaded_total", "Batches refused by the limit of bytes in flight."),
		checkpoints: counter("checkpoints_total", "Checkpoints taken."),
		installs:    counter("installs_total", "Checkpoints installed from a leader."),
		diskFree:    gauge("disk_free_bytes", "Bytes that may still be written to the data directory, preallocated ones included."),
		diskReserve: gauge("disk_reserve_bytes", "Bytes below which this node counts as low on disk."),
		diskLow:     gauge("disk_low", "1 while this node is below its reserve of disk space."),
		diskRefused: counter("disk_refused_total", "Batches this leader refused since too many disks were below their reserve."),
		reads: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "logd", Subsystem: "replica", Name: "read_index_calls",
			Help:    "Linearizable reads that one confirmed round of the leader served; the count is of rounds.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 7),
		}),
		readSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "logd", Subsystem: "replica", Name: "read_index_seconds",
			Help:    "How long the leader took to confirm a round of linearizable reads.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 7),
		}),

		damages:           counter("damages_total", "Times that damage was found on a node that had none."),
		repairs:           counter("repairs_total", "Times that all damage was repaired."),
		repaired:          counter("repaired_entries_total", "Damaged entries replaced by a peer's."),
		drops:             counter("dropped_tails_total", "Damaged ends of the log cut off because they were never committed."),
		checkpointRepairs: counter("repaired_checkpoints_total", "Checkpoints replaced by a peer's."),
		offsetRepairs:     counter("repaired_offset_files_total", "Files of the offset index made anew."),
	}
	if reg != nil {
		reg.MustRegister(m.inFlight, m.leader, m.term, m.leaders, m.entryBytes, m.batchSize, m.seconds, batches,
			m.unknown, m.overloaded, m.checkpoints, m.installs,
			m.diskFree, m.diskReserve, m.diskLow, m.diskRefused, m.reads, m.readSeconds,
			m.damages, m.repairs, m.repaired, m.drops, m.checkpointRepairs, m.offsetRepairs)
	}
	return m
}

// count counts an applied proposal's verdicts.
func (m *metrics) count(pr *proposal) {
	now := time.Now()
	for _, p := range pr.waiting {
		m.batchSize.Observe(float64(p.batch.Count))
		m.seconds.Observe(now.Sub(p.born).Seconds())
		switch {
		case p.err != nil:
			m.refused.Inc()
		case p.res.Duplicate:
			m.duplicate.Inc()
		default:
			m.accepted.Inc()
		}
	}
}
