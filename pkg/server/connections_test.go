package server_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/internal/netlimit"
	"github.com/logd-io/logd/pkg/server"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// Clients that keep too many connections open are refused more, one of them before the
// others; proxies, nodes and admins still get in, and a place that is given back is free.
func TestConnectionsAreBounded(t *testing.T) {
	reg := prometheus.NewRegistry()
	r := start(t, func(c *server.Config) { c.Connections, c.Registerer = netlimit.Budget{New: 8, Kept: 4}, reg })
	ask := func(cc *grpc.ClientConn) error {
		_, err := logv1.NewLogClient(cc).GetOffsets(ctxOf(t), &logv1.GetOffsetsRequest{})
		return err
	}
	first := r.dial(tlsconf.RoleClient, "app")
	require.NoError(t, ask(first))
	second := r.dial(tlsconf.RoleClient, "app")
	require.Equal(t, codes.Unavailable, status.Code(ask(second)), "half is for one")
	require.NoError(t, second.Close())
	require.NoError(t, ask(r.dial(tlsconf.RoleClient, "other")))
	third := r.dial(tlsconf.RoleClient, "third")
	require.Equal(t, codes.Unavailable, status.Code(ask(third)))
	require.NoError(t, ask(r.dial(tlsconf.RoleProxy, "p1")))
	require.NoError(t, ask(r.dial(tlsconf.RoleProxy, "p2")))
	require.Equal(t, codes.Unavailable, status.Code(ask(r.dial(tlsconf.RoleProxy, "p3"))))
	for range 3 {
		require.NoError(t, ask(r.dial(tlsconf.RoleAdmin, "root")))
		require.Equal(t, codes.PermissionDenied, status.Code(ask(r.dial(tlsconf.RoleStorage, "n2"))), "it is in, and asks the wrong thing")
	}
	told := map[string]float64{}
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if strings.HasPrefix(f.GetName(), "logd_connections") {
				name := strings.TrimPrefix(f.GetName(), "logd_")
				for _, l := range m.GetLabel() {
					name += " " + l.GetValue()
				}
				told[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	for name, n := range map[string]float64{
		"connections client": 2, "connections proxy": 2, "connections admin": 3, "connections storage": 3,
		"connections_limit client": 2, "connections_limit proxy": 2,
	} {
		require.Equal(t, n, told[name], "%s in %v", name, told)
	}
	require.Positive(t, told["connections_refused_total client"])
	require.Positive(t, told["connections_refused_total proxy"])
	require.NoError(t, first.Close())
	require.Equal(t, connectivity.Shutdown, first.GetState())
	_, err = logv1.NewLogClient(third).GetOffsets(ctxOf(t), &logv1.GetOffsetsRequest{}, grpc.WaitForReady(true))
	require.NoError(t, err)
}
