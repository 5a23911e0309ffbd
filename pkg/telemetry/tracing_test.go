package telemetry_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/telemetry"
)

func TestTracingIsOffWithoutAnEndpoint(t *testing.T) {
	off, err := telemetry.OpenTracing(telemetry.TraceOptions{Program: "logd", SampleRatio: 1})
	require.NoError(t, err)
	require.Nil(t, off)
	require.Nil(t, off.Tracer())
	require.Empty(t, off.ServerOptions())
	require.Empty(t, off.DialOptions())
	require.NoError(t, off.Close())
	for _, bad := range []string{"127.0.0.1:4317", "tcp://a:1", "http://", "://"} {
		_, err := telemetry.OpenTracing(telemetry.TraceOptions{Program: "logd", Endpoint: bad})
		require.ErrorContains(t, err, "endpoint", bad)
	}
}

func TestWhereTracesGo(t *testing.T) {
	for name, c := range map[string]struct {
		configured string
		env        map[string]string
		want       string
	}{
		"nowhere":          {},
		"configured":       {"http://a:1", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://b:1"}, "http://a:1"},
		"the environment":  {"", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://b:1"}, "http://b:1"},
		"that for traces":  {"", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://b:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:1"}, "http://c:1"},
		"disabled for all": {"http://a:1", map[string]string{"OTEL_SDK_DISABLED": "true"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, telemetry.TraceEndpoint(c.configured, func(k string) string { return c.env[k] }))
		})
	}
}

// A collector that takes connections and says nothing: spans are dropped, their number is
// known, and nobody waits.
func TestSpansThatNobodyTakesAreDropped(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer lis.Close()
	reg := prometheus.NewRegistry()
	tracing, err := telemetry.OpenTracing(telemetry.TraceOptions{
		Program: "logd", Endpoint: "http://" + lis.Addr().String(), SampleRatio: 1, Registerer: reg,
	})
	require.NoError(t, err)
	const n = 50_000
	begin := time.Now()
	for range n {
		_, span := tracing.Tracer().Start(context.Background(), "x")
		span.End()
	}
	require.Less(t, time.Since(begin), 30*time.Second, "ending a span does not wait")
	require.NoError(t, tracing.Close())
	counts := map[string]float64{}
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		counts[f.GetName()] = f.GetMetric()[0].GetCounter().GetValue()
	}
	require.InDelta(t, n, counts["logd_trace_spans_ended_total"], 0)
	require.Zero(t, counts["logd_trace_spans_exported_total"])
	require.LessOrEqual(t, counts["logd_trace_spans_failed_total"], 4096.0, "no more than the queue and what was taken from it was ever kept")
}
