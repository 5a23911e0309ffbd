package proxy

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
)

// metrics counts the calls of clients. Labels are bounded: methods that are not
// the proxy's own are "other", and there are 17 codes.
type metrics struct {
	calls   *prometheus.CounterVec   // by method and code
	seconds *prometheus.HistogramVec // by method; unary calls only
	open    *prometheus.GaugeVec     // by method; streams only
	methods map[string]string        // full name to label; never changed

	refusedCalls *prometheus.CounterVec // by why: all, client, memory
	refusedConns *prometheus.CounterVec // by why: all, client, unknown, unread
	unreadEnded  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "logproxy", Name: "requests_total", Help: "Calls of clients that have ended.",
		}, []string{"method", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "logproxy", Name: "request_duration_seconds", Help: "Duration of clients' unary calls.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"method"}),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "logproxy", Name: "streams", Help: "Streams of clients open now.",
		}, []string{"method"}),
		methods: map[string]string{},
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
	for _, d := range []grpc.ServiceDesc{logv1.Log_ServiceDesc, healthv1.Health_ServiceDesc} {
		for _, x := range d.Methods {
			m.methods["/"+d.ServiceName+"/"+x.MethodName] = x.MethodName
		}
		for _, x := range d.Streams {
			m.methods["/"+d.ServiceName+"/"+x.StreamName] = x.StreamName
		}
	}
	for _, c := range []prometheus.Collector{m.calls, m.seconds, m.open, m.refusedCalls, m.refusedConns, m.unreadEnded} {
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
	if strings.HasPrefix(method, "/grpc.reflection.") {
		return "ServerReflectionInfo"
	}
	return "other"
}

func (m *metrics) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	l, begin := m.label(info.FullMethod), time.Now()
	resp, err := handler(ctx, req)
	m.seconds.WithLabelValues(l).Observe(time.Since(begin).Seconds())
	m.calls.WithLabelValues(l, status.Code(err).String()).Inc()
	return resp, err
}

func (m *metrics) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	l := m.label(info.FullMethod)
	m.open.WithLabelValues(l).Inc()
	defer m.open.WithLabelValues(l).Dec()
	err := handler(srv, ss)
	m.calls.WithLabelValues(l, status.Code(err).String()).Inc()
	return err
}
