package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Calls counts gRPC calls as go-grpc-middleware's provider does, under its names
// and labels: grpc_server_started_total and so on, or grpc_client_.... What differs
// is the cost: every handle is looked up beforehand, so that a call allocates
// nothing (docs/adr/0025). Methods that were not named beforehand are "other", so
// that no caller makes up series.
type Calls struct {
	methods map[string]*Method // by full name; never changed
	other   *Method
}

// Method is the series of one method.
type Method struct {
	started, received, sent prometheus.Counter
	seconds                 prometheus.Observer
	handled                 [codes.Unauthenticated + 1]atomic.Pointer[prometheus.Counter] // by code; made when there is a first
	handle                  func(codes.Code) prometheus.Counter
}

// ServerCalls registers grpc_server_* for the methods of these services.
func ServerCalls(reg prometheus.Registerer, services ...grpc.ServiceDesc) (*Calls, error) {
	return newCalls(reg, "server", "on the server", services)
}

// ClientCalls registers grpc_client_* for the methods of these services.
func ClientCalls(reg prometheus.Registerer, services ...grpc.ServiceDesc) (*Calls, error) {
	return newCalls(reg, "client", "by this client", services)
}

func newCalls(reg prometheus.Registerer, side, where string, services []grpc.ServiceDesc) (*Calls, error) {
	labels := []string{"grpc_type", "grpc_service", "grpc_method"}
	counter := func(name, help string, labels []string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "grpc", Subsystem: side, Name: name, Help: help + " " + where + "."}, labels)
	}
	started := counter("started_total", "RPCs started", labels)
	handled := counter("handled_total", "RPCs completed", append(labels, "grpc_code"))
	received := counter("msg_received_total", "Messages received", labels)
	sent := counter("msg_sent_total", "Messages sent", labels)
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "grpc", Subsystem: side, Name: "handling_seconds",
		Help: "Duration of RPCs completed " + where + "; a stream's is its life.", Buckets: durationBuckets(),
	}, labels)
	for _, c := range []prometheus.Collector{started, handled, received, sent, seconds} {
		if reg == nil {
			break
		}
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register gRPC metrics: %w", err)
		}
	}
	method := func(kind, service, name string) *Method {
		m := &Method{
			started: started.WithLabelValues(kind, service, name), received: received.WithLabelValues(kind, service, name),
			sent: sent.WithLabelValues(kind, service, name), seconds: seconds.WithLabelValues(kind, service, name),
		}
		m.handle = func(code codes.Code) prometheus.Counter {
			return handled.WithLabelValues(kind, service, name, code.String())
		}
		m.handledBy(codes.OK)
		return m
	}
	c := &Calls{methods: map[string]*Method{}, other: method("other", "other", "other")}
	for _, d := range services {
		for _, m := range d.Methods {
			c.methods["/"+d.ServiceName+"/"+m.MethodName] = method("unary", d.ServiceName, m.MethodName)
		}
		for _, s := range d.Streams {
			c.methods["/"+d.ServiceName+"/"+s.StreamName] = method(kindOf(s), d.ServiceName, s.StreamName)
		}
	}
	return c, nil
}

func kindOf(s grpc.StreamDesc) string {
	switch {
	case s.ClientStreams && s.ServerStreams:
		return "bidi_stream"
	case s.ClientStreams:
		return "client_stream"
	}
	return "server_stream"
}

// Of is the series of the method with that full name.
func (c *Calls) Of(full string) *Method {
	if m, ok := c.methods[full]; ok {
		return m
	}
	return c.other
}

// Begin counts a call in.
func (m *Method) Begin() { m.started.Inc() }

// End counts a call out.
func (m *Method) End(code codes.Code, took time.Duration) {
	m.handledBy(code).Inc()
	m.seconds.Observe(took.Seconds())
}

func (m *Method) handledBy(code codes.Code) prometheus.Counter {
	if code > codes.Unauthenticated {
		code = codes.Unknown // somebody's own number
	}
	if c := m.handled[code].Load(); c != nil {
		return *c
	}
	c := m.handle(code)
	m.handled[code].Store(&c)
	return c
}

// BeginUnary counts in a unary call, whose request is there already.
func (m *Method) BeginUnary() {
	m.started.Inc()
	m.received.Inc()
}

// EndUnary is End, with the answer.
func (m *Method) EndUnary(code codes.Code, took time.Duration) {
	if code == codes.OK {
		m.sent.Inc()
	}
	m.End(code, took)
}

// CodeOf is the code by which gRPC tells a handler's error.
func CodeOf(err error) codes.Code {
	switch {
	case err == nil:
		return codes.OK
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		if _, ok := status.FromError(err); !ok {
			return status.FromContextError(err).Code()
		}
	}
	return status.Code(err)
}

// Stream is ss with its messages counted.
func (m *Method) Stream(ss grpc.ServerStream) grpc.ServerStream { return &countedServer{ss, m} }

type countedServer struct {
	grpc.ServerStream
	m *Method
}

func (s *countedServer) SendMsg(v any) error {
	err := s.ServerStream.SendMsg(v)
	if err == nil {
		s.m.sent.Inc()
	}
	return err
}

func (s *countedServer) RecvMsg(v any) error {
	err := s.ServerStream.RecvMsg(v)
	if err == nil {
		s.m.received.Inc()
	}
	return err
}

// UnaryServer and the methods after it are interceptors.
func (c *Calls) UnaryServer(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	m, begin := c.Of(info.FullMethod), time.Now()
	m.BeginUnary()
	resp, err := next(ctx, req)
	m.EndUnary(CodeOf(err), time.Since(begin))
	return resp, err
}

func (c *Calls) StreamServer(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	m, begin := c.Of(info.FullMethod), time.Now()
	m.Begin()
	err := next(srv, m.Stream(ss))
	m.End(CodeOf(err), time.Since(begin))
	return err
}

func (c *Calls) UnaryClient(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	m, begin := c.Of(method), time.Now()
	m.started.Inc()
	m.sent.Inc()
	err := invoke(ctx, method, req, reply, cc, opts...)
	if err == nil {
		m.received.Inc()
	}
	m.End(CodeOf(err), time.Since(begin))
	return err
}

func (c *Calls) StreamClient(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	m, begin := c.Of(method), time.Now()
	m.started.Inc()
	cs, err := open(ctx, desc, cc, method, opts...)
	if err != nil {
		m.End(CodeOf(err), time.Since(begin))
		return nil, err
	}
	return &countedClient{ClientStream: cs, m: m, begin: begin, many: desc.ServerStreams}, nil
}

// DialOptions are those with which a client's connection counts its calls.
func (c *Calls) DialOptions() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithChainUnaryInterceptor(c.UnaryClient), grpc.WithChainStreamInterceptor(c.StreamClient)}
}

// countedClient is a stream that is over for its client when a receive says so.
type countedClient struct {
	grpc.ClientStream
	m     *Method
	begin time.Time
	many  bool // messages may come, not one
	over  bool // the receiving goroutine's alone
}

func (s *countedClient) SendMsg(v any) error {
	err := s.ClientStream.SendMsg(v)
	if err == nil {
		s.m.sent.Inc()
	}
	return err
}

func (s *countedClient) RecvMsg(v any) error {
	err := s.ClientStream.RecvMsg(v)
	if err == nil {
		s.m.received.Inc()
		if s.many {
			return nil
		}
	}
	if !s.over {
		s.over = true
		code := codes.OK
		if !errors.Is(err, io.EOF) {
			code = CodeOf(err)
		}
		s.m.End(code, time.Since(s.begin))
	}
	return err
}
