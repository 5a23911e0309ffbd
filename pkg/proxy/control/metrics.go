package control

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts what control does. The gauges of the nodes are read off the
// Status when they are asked for, so a node that goes leaves none behind.
type metrics struct {
	tables        prometheus.Counter
	leaderChanges prometheus.Counter
	ejections     prometheus.Counter
	watchEnds     *prometheus.CounterVec // by reason
	hintsDropped  prometheus.Counter
	aliens        prometheus.Counter
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "logproxy", Name: name, Help: help})
	}
	return &metrics{
		tables:        counter("route_tables_total", "Routing tables published."),
		leaderChanges: counter("leader_changes_total", "Times produces began to go to another node, or to be held."),
		ejections:     counter("upstream_ejections_total", "Times a node was rested because requests failed on it."),
		watchEnds: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "logproxy", Name: "watch_failures_total", Help: "Cluster watches that ended, by reason.",
		}, []string{"reason"}),
		hintsDropped: counter("hints_dropped_total", "Hints of requests that came faster than they were read."),
		aliens:       counter("alien_views_total", "Views that named another cluster or another node than expected."),
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.tables, m.leaderChanges, m.ejections, m.watchEnds, m.hintsDropped, m.aliens}
}

// nodeGauges are the metrics of each node as of the newest Status. The label's
// values are the ids of the cluster's nodes.
type nodeGauges struct {
	c                               *Control
	inFlight, healthy, leading, lag *prometheus.Desc
}

func newNodeGauges(c *Control) *nodeGauges {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("logproxy_upstream_"+name, help, []string{"upstream"}, nil)
	}
	return &nodeGauges{
		c:        c,
		inFlight: desc("in_flight", "Calls open to the node."),
		healthy:  desc("healthy", "Whether the node gets requests, as leader or as follower."),
		leading:  desc("is_leader", "Whether produces go to the node."),
		lag:      desc("lag_records", "Records that the node's readable log is behind the newest known."),
	}
}

// Describe implements prometheus.Collector.
func (g *nodeGauges) Describe(ch chan<- *prometheus.Desc) {
	ch <- g.inFlight
	ch <- g.healthy
	ch <- g.leading
	ch <- g.lag
}

// Collect implements prometheus.Collector.
func (g *nodeGauges) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, id string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, id)
	}
	for _, n := range g.c.Status().Nodes {
		gauge(g.inFlight, float64(n.InFlight()), n.ID)
		gauge(g.healthy, bit(n.Leader || n.Readable), n.ID)
		gauge(g.leading, bit(n.Leader), n.ID)
		gauge(g.lag, float64(n.Lag), n.ID)
	}
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
