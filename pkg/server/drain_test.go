package server_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/server"
	"github.com/logd-io/logd/pkg/tlsconf"
)

func TestDrain(t *testing.T) {
	r := start(t, func(c *server.Config) { c.OffsetsInterval = time.Hour })
	ctx := ctxOf(t)
	health, err := healthv1.NewHealthClient(r.dial(tlsconf.RoleAdmin, "h")).Watch(ctx, &healthv1.HealthCheckRequest{})
	require.NoError(t, err)
	watch, err := r.proxy().WatchCluster(ctx, &nodev1.WatchClusterRequest{})
	require.NoError(t, err)
	_, err = watch.Recv()
	require.NoError(t, err)
	tail, err := r.client().ConsumeStream(ctx, &logv1.ConsumeRequest{})
	require.NoError(t, err)
	_, err = tail.Header()
	require.NoError(t, err)
	fetch, err := r.proxy().FetchStream(ctx, &nodev1.FetchRequest{HeartbeatMs: 20000})
	require.NoError(t, err)
	_, err = fetch.Header()
	require.NoError(t, err)

	// Announced first: everything is still answered.
	r.srv.SetDraining()
	for {
		resp, err := health.Recv()
		require.NoError(t, err)
		if resp.Status == healthv1.HealthCheckResponse_NOT_SERVING {
			break
		}
	}
	v, err := watch.Recv()
	require.NoError(t, err)
	require.True(t, v.Draining)
	r.alive()
	_, err = tail.Recv()
	require.NoError(t, err)

	// Two batches are under way when it begins to stop.
	r.hold()
	stream := r.append()
	require.NoError(t, stream.Send(batch(0, "a")))
	require.NoError(t, stream.Send(batch(1, "b")))
	a, b := <-r.arrived, <-r.arrived
	unary := make(chan error, 1)
	client := r.client()
	go func() {
		_, err := client.Produce(ctx, &logv1.ProduceRequest{})
		unary <- err
	}()
	c := <-r.arrived

	drained := make(chan error, 1)
	go func() { drained <- r.srv.Drain(ctx) }()
	_, err = tail.Recv()
	require.Equal(t, apierr.Draining{}, reasonOf(t, err))
	for err = nil; err == nil; {
		_, err = fetch.Recv() // what was there before, then the end
	}
	require.Equal(t, apierr.Draining{}, reasonOf(t, err))
	_, err = watch.Recv()
	require.Equal(t, apierr.Draining{}, reasonOf(t, err))

	// What had begun ends well: acknowledgements, then the reason.
	r.settle(a, nil)
	r.settle(b, nil)
	r.settle(c, nil)
	for range 2 {
		_, err = stream.Recv()
		require.NoError(t, err)
	}
	_, err = stream.Recv()
	require.Equal(t, apierr.Draining{}, reasonOf(t, err))
	require.NoError(t, <-unary)
	require.NoError(t, <-drained)
	_, err = health.Recv() // a watcher of health that stays does not hold up a drain
	require.Equal(t, apierr.Draining{}, reasonOf(t, err))
}

func TestDrainCutsOffWhatDoesNotEnd(t *testing.T) {
	r := start(t)
	r.hold()
	stream := r.append()
	require.NoError(t, stream.Send(batch(0, "a")))
	<-r.arrived // never settled
	why := errors.New("time is over")
	ctx, cancel := context.WithTimeoutCause(ctxOf(t), 50*time.Millisecond, why)
	defer cancel()
	require.ErrorIs(t, r.srv.Drain(ctx), why)
	_, err := stream.Recv()
	require.Equal(t, codes.Unavailable, status.Code(err))
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	r := start(t, func(c *server.Config) { c.Registerer = reg })
	r.alive()
	require.Equal(t, 1.0, handled(t, reg, "Produce", "OK"))
	require.Zero(t, handled(t, reg, "Produce", "Internal"))
}

// handled is how often a method has ended with a code.
func handled(t *testing.T, reg *prometheus.Registry, method, code string) (n float64) {
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != "grpc_server_handled_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["grpc_method"] == method && labels["grpc_code"] == code {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	_, err := server.New(server.Config{})
	require.Error(t, err)
}
