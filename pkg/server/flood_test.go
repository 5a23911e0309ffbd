package server_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	promtest "github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/server"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// Nobody makes up series: not by methods, nor by the principals that a proxy names,
// nor by request ids.
func TestNoCallerMakesUpSeries(t *testing.T) {
	reg := prometheus.NewRegistry()
	r := start(t, func(c *server.Config) { c.Registerer = reg })
	r.put("one")
	proxy, client := r.dial(tlsconf.RoleProxy, "p1"), r.dial(tlsconf.RoleClient, "app")
	ctx := testutil.Context(t, 10*time.Minute)
	flood := func(from, to int) {
		const workers = 32
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				for i := from + w; i < to; i += workers {
					_ = client.Invoke(ctx, fmt.Sprintf("/made.Up%d/Method%d", i, i), new(emptypb.Empty), new(emptypb.Empty)) // refused
					as := metadata.AppendToOutgoingContext(ctx, "logd-original-principal", fmt.Sprintf("principal-%d", i))
					if _, err := nodev1.NewNodeClient(proxy).Fetch(as, &nodev1.FetchRequest{MaxBytes: 1}); err != nil {
						t.Error(err)
					}
					id := metadata.AppendToOutgoingContext(ctx, "logd-request-id", fmt.Sprintf("id-%d", i))
					if _, err := logv1.NewLogClient(client).Produce(id, &logv1.ProduceRequest{}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	count := func() int {
		n, err := promtest.GatherAndCount(reg)
		require.NoError(t, err)
		return n
	}
	flood(0, 10)
	before := count()
	flood(10, 10_000)
	require.Equal(t, before, count())
	t.Logf("%d series", before)
}

// A line a call, of those that were refused too.
func TestAccessLog(t *testing.T) {
	log := new(lines)
	r := start(t, func(c *server.Config) {
		c.Logger = hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Debug})
	})
	_, err := r.client().Produce(ctxOf(t), &logv1.ProduceRequest{})
	require.NoError(t, err)
	require.Len(t, log.with("access: call", "method=Produce", "code=OK", "took=", "principal=app"), 1)
	_, err = r.proxy().Fetch(ctxOf(t), &nodev1.FetchRequest{Offset: 9})
	require.Error(t, err)
	require.Len(t, log.with("access: call", "method=Fetch", "code=OutOfRange", "principal=alice"), 1, "of whom a proxy speaks for")
	_, err = nodev1.NewNodeClient(r.dial(tlsconf.RoleClient, "app")).Join(ctxOf(t), &nodev1.JoinRequest{})
	require.Error(t, err)
	require.Len(t, log.with("access: call", "method=Join", "code=PermissionDenied", "principal=app"), 1)
	s, err := r.proxy().Append(ctxOf(t))
	require.NoError(t, err)
	require.NoError(t, s.CloseSend())
	_, err = s.Recv()
	require.Error(t, err)
	require.Len(t, log.with("access: call", "method=Append", "code=OK", "principal=alice"), 1)
}
