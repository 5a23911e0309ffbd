package forward

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are the data path's figures. With a nil registerer they count for nobody.
type metrics struct {
	batchRecords prometheus.Histogram
	held         prometheus.Counter
	holds        prometheus.Counter
	expired      prometheus.Counter
	dropped      prometheus.Counter
	refused      prometheus.Counter
	retries      prometheus.Counter
	resent       prometheus.Counter
	duplicates   prometheus.Counter
	ackTimeouts  prometheus.Counter
	readRetries  prometheus.Counter
	sessionWaits prometheus.Counter
	sessionAsks  prometheus.Counter
	linearReads  prometheus.Counter
	resumes      prometheus.Counter
	stalls       prometheus.Counter
	badResumes   prometheus.Counter
	fallsBehind  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, f *Forwarder) *metrics {
	with := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return with.NewCounter(prometheus.CounterOpts{Namespace: "logproxy", Subsystem: "forward", Name: name, Help: help})
	}
	gauge := func(name, help string, v func() float64) {
		with.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "logproxy", Subsystem: "forward", Name: name, Help: help}, v)
	}
	gauge("produce_records_held", "Produced records without an outcome.", func() float64 { return float64(f.limit.held().count) })
	gauge("produce_bytes_held", "Bytes of produced records without an outcome, and of those told so while their batch is kept to be sent again.", func() float64 { return float64(f.limit.held().bytes) })
	gauge("sessions", "Named sessions remembered.", func() float64 { return float64(f.sessions.len()) })
	gauge("tails", "Consume streams of clients.", func() float64 { return float64(f.fanout.stats().tails) })
	gauge("tails_sharing", "Consume streams that share a fetch with others.", func() float64 { return float64(f.fanout.stats().sharing) })
	gauge("tail_fetches", "Fetches from nodes that consume streams are fed from.", func() float64 { return float64(f.fanout.stats().fetches) })
	gauge("tail_ring_bytes", "Fetched records kept for consume streams that are behind others.", func() float64 { return float64(f.fanout.bytes.Load()) })
	return &metrics{
		batchRecords: with.NewHistogram(prometheus.HistogramOpts{
			Namespace: "logproxy", Subsystem: "forward", Name: "batch_records",
			Help: "Records coalesced into one batch.", Buckets: prometheus.ExponentialBuckets(1, 2, 14),
		}),
		held:         counter("held_records_total", "Records that came while no leader made progress."),
		holds:        counter("holds_total", "Pauses of an append stream for want of a leader, or before a retry."),
		expired:      counter("hold_expired_total", "Records whose time ran out before a leader took or acknowledged them."),
		dropped:      counter("dropped_records_total", "Records never sent because their client had left."),
		refused:      counter("hold_refused_total", "Produces refused because a bound was reached."),
		retries:      counter("append_retries_total", "Append streams opened after one that failed."),
		resent:       counter("batches_resent_total", "Batches sent again with the same sequences."),
		duplicates:   counter("batches_duplicate_total", "Batches the leader had appended before."),
		ackTimeouts:  counter("ack_timeouts_total", "Append streams given up because the leader was silent."),
		readRetries:  counter("read_retries_total", "Reads tried on a further node."),
		sessionWaits: counter("session_behind_total", "Reads a node refused because it was behind the asked position."),
		sessionAsks:  counter("session_asks_total", "First reads of a session that asked the leader for its position."),
		linearReads:  counter("linearizable_reads_total", "Reads that asked to see everything acknowledged before them."),
		resumes:      counter("stream_resumes_total", "Fetches for consume streams continued on another upstream stream."),
		stalls:       counter("stream_stalls_total", "Fetches for consume streams whose upstream fell silent."),
		badResumes:   counter("stream_resume_failed_total", "Fetches for consume streams ended because a node did not continue at the cursor."),
		fallsBehind:  counter("tail_falls_behind_total", "Consume streams too slow for those they shared a fetch with."),
	}
}
