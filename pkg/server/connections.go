package server

import (
	"errors"
	"fmt"
	"math"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/logd-io/logd/pkg/internal/netlimit"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// connections are what others hold of the RPC port. Clients and proxies have a bound
// each, so that a client that forgets to close keeps no proxy out; one client has half
// of theirs at most, so that it does not keep out all others. Nodes and admins always get
// in, and are only counted.
type connections struct {
	fresh   *netlimit.Newest // have not shown who they are
	known   map[tlsconf.Role]*netlimit.Gate
	refused *prometheus.CounterVec // by why: client, proxy, unknown, handshake
}

func newConnections(b netlimit.Budget, reg prometheus.Registerer) (*connections, error) {
	half := (b.Kept + 1) / 2
	c := &connections{
		known: map[tlsconf.Role]*netlimit.Gate{
			tlsconf.RoleClient:  netlimit.NewFairGate(half, (half+1)/2),
			tlsconf.RoleProxy:   netlimit.NewGate(half), // sidecars may share a certificate
			tlsconf.RoleStorage: netlimit.NewGate(math.MaxInt),
			tlsconf.RoleAdmin:   netlimit.NewGate(math.MaxInt),
		},
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "logd", Name: "connections_refused_total",
			Help: "Connections closed: for the limit of clients, of proxies, or of those that have not shown who they are, or because their handshake failed.",
		}, []string{"why"}),
	}
	c.fresh = netlimit.NewNewest(b.New, c.refused.WithLabelValues("unknown").Inc)
	for _, why := range []string{"client", "proxy", "handshake"} {
		c.refused.WithLabelValues(why)
	}
	if reg == nil {
		return c, nil
	}
	all := []prometheus.Collector{c.refused, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "logd", Name: "connections_unknown", Help: "Connections open now that have not shown who they are.",
	}, func() float64 { return float64(c.fresh.Len()) })}
	for role, gate := range c.known {
		labels := prometheus.Labels{"role": string(role)}
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "logd", Name: "connections", Help: "Connections open now, by the role of who holds them.", ConstLabels: labels,
		}, func() float64 { return float64(gate.Open()) }))
		if gate.Most() < math.MaxInt {
			all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Namespace: "logd", Name: "connections_limit", Help: "Connections of a role that may be open.", ConstLabels: labels,
			}, func() float64 { return float64(gate.Most()) }))
		}
	}
	for _, m := range all {
		if err := reg.Register(m); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return c, nil
}

// keep lets a connection stay for as long as it likes, now that it is known whose it is.
func (c *connections) keep(conn *netlimit.Conn, id tlsconf.Identity) error {
	err := conn.KeepFor(c.known[id.Role], id.Name)
	var full *netlimit.FullError
	if errors.As(err, &full) {
		c.refused.WithLabelValues(string(id.Role)).Inc()
	}
	return err
}
