package devcluster_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/devcluster"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// direct is a client of one node, with no proxy and so no session between.
func direct(t *testing.T, c *devcluster.Cluster, n *devcluster.Node) logv1.LogClient {
	t.Helper()
	src, err := tlsconf.Load(c.Files(tlsconf.RoleClient))
	require.NoError(t, err)
	conn, err := grpc.NewClient(n.Addr(), grpc.WithTransportCredentials(
		credentials.NewTLS(src.Client(tlsconf.ALPNgRPC, tlsconf.RoleStorage, n.Name))))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return logv1.NewLogClient(conn)
}

// What one client was told is in the log, another sees at once on a follower that
// lags, when it asks for a linearizable read; and that the follower lags, an
// ordinary read there shows.
func TestLinearizableReadOnALaggingFollower(t *testing.T) {
	c := start(t, devcluster.Options{})
	lead := leader(t, c)
	var follower *devcluster.Node
	for _, n := range c.Nodes() {
		if n != lead {
			follower = n
		}
	}
	writer, reader, atLeader := client(t, c), direct(t, c, follower), direct(t, c, lead)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	produce(t, writer, 1)
	_, err := reader.Consume(ctx, &logv1.ConsumeRequest{Linearizable: true}, grpc.WaitForReady(true))
	require.NoError(t, err)

	follower.Lag(150 * time.Millisecond)
	defer follower.Lag(0)
	stale, rounds := 0, 12
	for range rounds {
		off := produce(t, writer, 1)[0]
		_, err := reader.Consume(ctx, &logv1.ConsumeRequest{Offset: off})
		if err != nil {
			require.Equal(t, apierr.ReasonBehind, apierr.ReasonOf(err), "%v", err)
			stale++
		}
		off = produce(t, writer, 1)[0]
		for _, from := range []logv1.LogClient{reader, atLeader, writer} {
			resp, err := from.Consume(ctx, &logv1.ConsumeRequest{Offset: off, Linearizable: true})
			require.NoError(t, err)
			require.Equal(t, off, resp.GetRecord().GetOffset())
		}
		// That there is no more it may say as well, for it asked.
		_, err = reader.Consume(ctx, &logv1.ConsumeRequest{Offset: off + 1, Linearizable: true})
		require.Equal(t, apierr.ReasonOutOfRange, apierr.ReasonOf(err), "%v", err)
	}
	t.Logf("%d of %d ordinary reads met the lag", stale, rounds)
	require.Positive(t, stale, "a follower that does not lag tests nothing")

	// It also finds the leader that comes after this one.
	require.NoError(t, lead.Kill())
	next := leader(t, c)
	require.NotEqual(t, lead, next)
	off := produce(t, writer, 1)[0]
	for {
		resp, err := reader.Consume(ctx, &logv1.ConsumeRequest{Offset: off, Linearizable: true})
		if err == nil {
			require.Equal(t, off, resp.GetRecord().GetOffset())
			break
		}
		// Until it knows the new leader it says so, and never that the record is not there.
		require.Contains(t, []apierr.Reason{apierr.ReasonNotLeader, apierr.ReasonBehind}, apierr.ReasonOf(err), "%v", err)
	}
}
