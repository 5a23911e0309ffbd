package agent

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/telemetry"
)

// openMetrics registers what no part knows alone: calls to other nodes, and how far
// those are by what autopilot asks them.
func (a *Agent) openMetrics() (err error) {
	if a.calls, err = telemetry.ClientCalls(a.deps.Registry, nodev1.Node_ServiceDesc); err != nil {
		return err
	}
	if err := a.deps.Registry.Register(newPeerGauges(a)); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	return nil
}

// peerGauges are looked up when they are asked for, so that a node that is removed
// leaves none behind. The label's values are the ids of the Raft configuration.
type peerGauges struct {
	a                     *Agent
	lag, contact, healthy *prometheus.Desc
}

func newPeerGauges(a *Agent) *peerGauges {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("logd_peer_"+name, help, []string{"peer"}, nil)
	}
	return &peerGauges{
		a:       a,
		lag:     desc("lag_entries", "Entries that the server is behind this leader, when autopilot last asked; on the leader only."),
		contact: desc("contact_age_seconds", "Since the server last heard of its leader, when autopilot last asked it; on the leader only."),
		healthy: desc("healthy", "1 for a server that autopilot takes for healthy; on the leader only."),
	}
}

// Describe implements prometheus.Collector.
func (g *peerGauges) Describe(ch chan<- *prometheus.Desc) {
	ch <- g.lag
	ch <- g.contact
	ch <- g.healthy
}

// Collect implements prometheus.Collector.
func (g *peerGauges) Collect(ch chan<- prometheus.Metric) {
	pilot := g.a.pilot
	if pilot == nil || !g.a.replica.View().IsLeader {
		return
	}
	st := pilot.State()
	if st == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, id string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, id)
	}
	last := g.a.replica.Log().Last()
	for _, s := range st.Servers {
		if s.ID == g.a.id {
			continue
		}
		if s.LastIndex > 0 { // it has been asked
			gauge(g.lag, float64(last-min(last, s.LastIndex)), s.ID)
		}
		if s.LastContact >= 0 {
			gauge(g.contact, s.LastContact.Seconds(), s.ID)
		}
		healthy := 0.0
		if s.Healthy {
			healthy = 1
		}
		gauge(g.healthy, healthy, s.ID)
	}
}
