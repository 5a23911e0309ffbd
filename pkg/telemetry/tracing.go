package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
)

// The bounds of what traces hold and take.
const (
	traceQueue  = 2048 // spans that wait to be exported; more are dropped
	traceBatch  = 512  // of them in one export
	traceEvery  = 2 * time.Second
	traceExport = 5 * time.Second // one export
	traceLinks  = 1024            // of one span; a batch has one for each call in it
	traceFlush  = 3 * time.Second // the last export
)

// TraceOptions say where spans go and which.
type TraceOptions struct {
	Program, Version string
	// Endpoint is the OTLP/gRPC collector's URL, http:// for plaintext or https://.
	// Empty: no traces.
	Endpoint string
	// SampleRatio is the part of traces that begin here which is recorded, 0 to 1. One
	// that a client began is recorded when the client says so.
	SampleRatio float64
	Logger      hclog.Logger          // nil: quiet
	Registerer  prometheus.Registerer // nil: no metrics
}

// TraceEndpoint is where traces go by configuration, or else by OpenTelemetry's
// environment variables; empty: nowhere.
func TraceEndpoint(configured string, getenv func(string) string) string {
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") {
		return ""
	}
	for _, url := range []string{configured, getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), getenv("OTEL_EXPORTER_OTLP_ENDPOINT")} {
		if url != "" {
			return url
		}
	}
	return ""
}

// Tracing records spans and exports them. A nil *Tracing is one that is off: its
// methods give nothing, so that nothing is asked of a call.
type Tracing struct {
	provider *sdktrace.TracerProvider
	program  string
}

// OpenTracing makes the exporter and what feeds it; nil when there is no endpoint.
// It does not wait for the collector: an unreachable one costs spans, and nothing else.
func OpenTracing(o TraceOptions) (*Tracing, error) {
	if o.Endpoint == "" {
		return nil, nil
	}
	if u, err := url.Parse(o.Endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("otlp endpoint %q: a URL, http://host:port or https://host:port", o.Endpoint)
	}
	client := otlptracegrpc.NewUnstarted(
		otlptracegrpc.WithEndpointURL(o.Endpoint),
		otlptracegrpc.WithTimeout(traceExport),
		// What cannot be exported now is dropped: a collector that comes back should
		// not meet an hour's spans.
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{Enabled: false}),
	)
	if err := client.Start(context.Background()); err != nil { // dials nothing yet
		return nil, fmt.Errorf("otlp exporter: %w", err)
	}
	out := &exports{SpanExporter: client, log: o.Logger}
	if out.log == nil {
		out.log = hclog.NewNullLogger()
	}
	out.count(o.Program, o.Registerer)
	limits := sdktrace.NewSpanLimits()
	limits.LinkCountLimit = traceLinks
	return &Tracing{program: o.Program, provider: sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(o.SampleRatio))),
		sdktrace.WithRawSpanLimits(limits),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", o.Program), attribute.String("service.version", o.Version))),
		sdktrace.WithSpanProcessor(counting{out.ended, sdktrace.NewBatchSpanProcessor(out,
			sdktrace.WithMaxQueueSize(traceQueue), sdktrace.WithMaxExportBatchSize(traceBatch),
			sdktrace.WithBatchTimeout(traceEvery), sdktrace.WithExportTimeout(traceExport))}),
	)}, nil
}

// Tracer starts spans; nil when tracing is off.
func (t *Tracing) Tracer() trace.Tracer {
	if t == nil {
		return nil
	}
	return t.provider.Tracer("github.com/logd-io/logd/" + t.program)
}

// ServerOptions are those of a gRPC server whose calls have spans.
func (t *Tracing) ServerOptions() []grpc.ServerOption {
	if t == nil {
		return nil
	}
	return []grpc.ServerOption{grpc.StatsHandler(otelgrpc.NewServerHandler(t.options()...))}
}

// DialOptions are those of a connection whose calls have spans.
func (t *Tracing) DialOptions() []grpc.DialOption {
	if t == nil {
		return nil
	}
	return []grpc.DialOption{grpc.WithStatsHandler(otelgrpc.NewClientHandler(t.options()...))}
}

func (t *Tracing) options() []otelgrpc.Option {
	return []otelgrpc.Option{
		otelgrpc.WithTracerProvider(t.provider), otelgrpc.WithMeterProvider(noop.NewMeterProvider()),
		otelgrpc.WithPropagators(propagation.TraceContext{}), otelgrpc.WithFilter(traced),
	}
}

// traced leaves out what lasts as long as the processes do, and probes. The batches of
// an Append stream have spans of their own.
func traced(info *stats.RPCTagInfo) bool {
	switch info.FullMethodName {
	case "/node.v1.Node/Append", "/node.v1.Node/WatchCluster":
		return false
	}
	return !strings.HasPrefix(info.FullMethodName, "/grpc.")
}

// Close exports what waits, for a few seconds at most, and ends everything.
func (t *Tracing) Close() error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), traceFlush)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("end of tracing: %w", err)
	}
	return nil
}

// counting counts the spans that end, before the queue may drop them.
type counting struct {
	ended prometheus.Counter
	sdktrace.SpanProcessor
}

func (c counting) OnEnd(s sdktrace.ReadOnlySpan) {
	if s.SpanContext().IsSampled() {
		c.ended.Inc()
	}
	c.SpanProcessor.OnEnd(s)
}

// exports counts what is exported and says when that begins and ends to fail. The
// library would say so each time, to standard error.
type exports struct {
	sdktrace.SpanExporter
	log     hclog.Logger
	failing atomic.Bool

	ended, exported, failed prometheus.Counter
}

func (e *exports) count(program string, reg prometheus.Registerer) {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: program, Subsystem: "trace", Name: name, Help: help})
		if reg != nil {
			reg.MustRegister(c)
		}
		return c
	}
	e.ended = counter("spans_ended_total", "Spans that were recorded; those neither exported nor failed wait, or were dropped for a full queue.")
	e.exported = counter("spans_exported_total", "Spans that the collector took.")
	e.failed = counter("spans_failed_total", "Spans that the collector could not be given.")
}

func (e *exports) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.failed.Add(float64(len(spans)))
		if !e.failing.Swap(true) {
			e.log.Warn("traces cannot be exported", "err", err)
		}
		return nil
	}
	e.exported.Add(float64(len(spans)))
	if e.failing.Swap(false) {
		e.log.Info("traces are exported again")
	}
	return nil
}
