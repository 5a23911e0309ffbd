package server_test

import (
	"testing"

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

// Clients that keep too many connections open are refused more; proxies, nodes and
// admins still get in, and a place that is given back is free.
func TestConnectionsAreBounded(t *testing.T) {
	r := start(t, func(c *server.Config) { c.Connections = netlimit.Budget{New: 8, Kept: 4} })
	ask := func(cc *grpc.ClientConn) error {
		_, err := logv1.NewLogClient(cc).GetOffsets(ctxOf(t), &logv1.GetOffsetsRequest{})
		return err
	}
	first := r.dial(tlsconf.RoleClient, "app")
	require.NoError(t, ask(first))
	require.NoError(t, ask(r.dial(tlsconf.RoleClient, "app")))
	third := r.dial(tlsconf.RoleClient, "app")
	require.Equal(t, codes.Unavailable, status.Code(ask(third)))
	require.NoError(t, ask(r.dial(tlsconf.RoleProxy, "p1")))
	require.NoError(t, ask(r.dial(tlsconf.RoleProxy, "p2")))
	require.Equal(t, codes.Unavailable, status.Code(ask(r.dial(tlsconf.RoleProxy, "p3"))))
	for range 3 {
		require.NoError(t, ask(r.dial(tlsconf.RoleAdmin, "root")))
		require.Equal(t, codes.PermissionDenied, status.Code(ask(r.dial(tlsconf.RoleStorage, "n2"))), "it is in, and asks the wrong thing")
	}
	require.NoError(t, first.Close())
	require.Equal(t, connectivity.Shutdown, first.GetState())
	_, err := logv1.NewLogClient(third).GetOffsets(ctxOf(t), &logv1.GetOffsetsRequest{}, grpc.WaitForReady(true))
	require.NoError(t, err)
}
