package proxy

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/proxy/forward"
	"github.com/logd-io/logd/pkg/proxy/route"
	"github.com/logd-io/logd/pkg/telemetry"
)

// metrics counts the calls of clients. Labels are bounded: methods that are not
// the proxy's own are "other", there are 17 codes, and of upstreams no more than
// mostUpstreams.
type metrics struct {
	calls   *prometheus.CounterVec   // by method, code and upstream
	seconds *prometheus.HistogramVec // likewise; unary calls only
	open    *prometheus.GaugeVec     // by method; streams only
	methods map[string]string        // full name to label; never changed
	grpc    *telemetry.Calls
	series  callSeries
	access  *telemetry.AccessLog
	who     func(context.Context) (string, error)

	pastRate     *prometheus.CounterVec // by method and upstream
	refusedCalls *prometheus.CounterVec // by why: all, client, memory
	refusedConns *prometheus.CounterVec // by why: all, client, unknown, unread
	unreadEnded  prometheus.Counter
}

// services are those the listener knows.
func services() []grpc.ServiceDesc {
	return []grpc.ServiceDesc{
		logv1.Log_ServiceDesc, healthv1.Health_ServiceDesc,
		reflectionv1.ServerReflection_ServiceDesc, reflectionv1alpha.ServerReflection_ServiceDesc,
	}
}

func newMetrics(reg prometheus.Registerer, access *telemetry.AccessLog, who func(context.Context) (string, error), holder *route.Holder) (*metrics, error) {
	m := &metrics{
		access: access, who: who,
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "logproxy", Name: "requests_total", Help: "Calls of clients that have ended, by the node that served them; none, if no node had a part in the outcome.",
		}, []string{"method", "code", "upstream"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "logproxy", Name: "request_duration_seconds", Help: "Duration of clients' unary calls, by the node that served them.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"method", "code", "upstream"}),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "logproxy", Name: "streams", Help: "Streams of clients open now.",
		}, []string{"method"}),
		methods: map[string]string{},
		pastRate: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "logproxy", Name: "requests_past_rate_total",
			Help: "Calls of clients that ended because their principal was past a rate, by the node whose rate it was; none, if it was this proxy's.",
		}, []string{"method", "upstream"}),
		refusedCalls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "logproxy", Name: "calls_refused_total",
			Help: "Calls refused for a limit: of all calls, of one client's, or of memory.",
		}, []string{"limit"}),
		refusedConns: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "logproxy", Name: "connections_refused_total",
			Help: "Connections closed for a limit: of all, of one client's, of those that have not said anything, or of streams that were not read.",
		}, []string{"limit"}),
		unreadEnded: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "logproxy", Name: "unread_streams_ended_total",
			Help: "Streams ended because their clients did not read and there were too many of those.",
		}),
	}
	for _, l := range []string{"all", "client", "memory"} {
		m.refusedCalls.WithLabelValues(l)
	}
	for _, l := range []string{"all", "client", "unknown", "unread"} {
		m.refusedConns.WithLabelValues(l)
	}
	m.series.init(m.calls, m.seconds, m.pastRate, holder)
	var err error
	if m.grpc, err = telemetry.ServerCalls(reg, services()...); err != nil {
		return nil, err
	}
	for _, d := range services() {
		for _, x := range d.Methods {
			m.methods["/"+d.ServiceName+"/"+x.MethodName] = x.MethodName
		}
		for _, x := range d.Streams {
			m.methods["/"+d.ServiceName+"/"+x.StreamName] = x.StreamName
		}
	}
	for _, l := range m.methods {
		m.pastRate.WithLabelValues(l, none)
	}
	for _, c := range []prometheus.Collector{m.calls, m.seconds, m.open, m.pastRate, m.refusedCalls, m.refusedConns, m.unreadEnded} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// watch shows how much is open, and how much may be.
func (m *metrics) watch(reg prometheus.Registerer, b *bounds) error {
	for _, g := range []struct {
		name, help string
		read       func() int
	}{
		{"connections", "Connections of clients open now.", b.conns.Open},
		{"connections_limit", "Connections of clients that may be open.", b.conns.Most},
		{"connections_unknown", "Connections open now on which nobody has said anything yet.", b.fresh.Len},
		{"calls", "Calls of clients open now, streams included.", b.calls.gate.Open},
		{"calls_limit", "Calls of clients that may be open.", b.calls.gate.Most},
		{"unread_streams", "Streams whose clients do not read now.", func() int { return int(b.unread.stuck.Load()) }},
	} {
		c := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "logproxy", Name: g.name, Help: g.help},
			func() float64 { return float64(g.read()) })
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}

func (m *metrics) label(method string) string {
	if l, ok := m.methods[method]; ok {
		return l
	}
	return other
}

func (m *metrics) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	g, begin := m.grpc.Of(info.FullMethod), time.Now()
	g.BeginUnary()
	resp, err := handler(ctx, req)
	code, took := telemetry.CodeOf(err), time.Since(begin)
	g.EndUnary(code, took)
	by := ""
	if s, ok := req.(forward.Served); ok {
		by = s.ServedBy()
	}
	l := m.label(info.FullMethod)
	s := m.series.of(l, true, code, by)
	s.count(err)
	s.seconds.Observe(took.Seconds())
	if m.access.Enabled() {
		m.note(ctx, l, code, took, by)
	}
	return resp, err
}

func (m *metrics) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	l := m.label(info.FullMethod)
	m.open.WithLabelValues(l).Inc()
	defer m.open.WithLabelValues(l).Dec()
	g, begin := m.grpc.Of(info.FullMethod), time.Now()
	g.Begin()
	ss, served := forward.WatchServed(g.Stream(ss))
	err := handler(srv, ss)
	code, took, by := telemetry.CodeOf(err), time.Since(begin), served.ServedBy()
	g.End(code, took)
	m.series.of(l, false, code, by).count(err)
	if m.access.Enabled() {
		m.note(ss.Context(), l, code, took, by)
	}
	return err
}

func (m *metrics) note(ctx context.Context, method string, code codes.Code, took time.Duration, by string) {
	who, _ := m.who(ctx) // empty for one that was refused for it
	m.access.Note(telemetry.Call{Method: method, Code: code, Took: took, Principal: who, Upstream: by})
}
