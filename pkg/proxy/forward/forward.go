package forward

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
)

// Forwarder answers log.v1.Log for a proxy's clients.
type Forwarder struct {
	cfg      Config
	codec    codec
	log      hclog.Logger
	metrics  *metrics
	start    time.Time
	limit    *limiter
	holds    holds
	reads    *budget // of retries of reads
	sends    *budget // of append streams, so that no number of readers holds up a produce
	ops      opPool
	sessions *sessions
	fanout   *fanout
	shared   session // of calls that name none, where the scope is the proxy

	ending    context.Context //nolint:containedctx // over once EndStreams was called
	endStream context.CancelFunc

	startMu sync.Mutex     // orders goroutines that start with Close
	closed  chan struct{}  // closed by Close, under startMu
	running sync.WaitGroup // goroutines of appenders, of ProduceStreams and of feeds

	mu        sync.RWMutex
	appenders map[string]*appender // by principal; guarded by mu
}

// New makes a Forwarder. It starts no goroutine; the first produce of a principal
// does.
func New(cfg Config) (*Forwarder, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	f := &Forwarder{
		cfg: cfg, codec: newCodec(), log: cfg.Logger, start: time.Now(),
		limit:     newLimiter(load{cfg.HoldRecords, cfg.HoldBytes}),
		reads:     newBudget(),
		sends:     newBudget(),
		sessions:  newSessions(cfg.MaxSessions),
		closed:    make(chan struct{}),
		appenders: make(map[string]*appender),
	}
	f.fanout = newFanout(f)
	f.ending, f.endStream = context.WithCancel(context.Background())
	f.metrics = newMetrics(cfg.Registerer, f)
	return f, nil
}

// EndStreams ends the open streams with DRAINING: consume streams at once, produce
// streams when what they have sent is answered. New ones end the same way. What no
// leader has taken or acknowledged a second later ends too, unary calls included.
func (f *Forwarder) EndStreams() { f.endStream() }

// Close ends what is still held and waits for every goroutine. The gRPC server is
// to be stopped before; produces that come later are refused with DRAINING.
func (f *Forwarder) Close() error {
	f.endStream()
	f.startMu.Lock()
	if !f.isClosed() {
		close(f.closed)
	}
	f.startMu.Unlock()
	f.running.Wait()
	return nil
}

// spawn runs fn on a goroutine that Close waits for, or answers false after Close.
func (f *Forwarder) spawn(fn func()) bool {
	f.startMu.Lock()
	defer f.startMu.Unlock()
	if f.isClosed() {
		return false
	}
	f.running.Go(fn)
	return true
}

func (f *Forwarder) isClosed() bool {
	select {
	case <-f.closed:
		return true
	default:
		return false
	}
}

// now is the time since f was made, in nanoseconds, and never 0.
func (f *Forwarder) now() int64 { return int64(time.Since(f.start)) + 1 }

// appenderOf is the principal's appender. Their number is bounded: an idle one
// makes room, and when there is none the caller is refused.
func (f *Forwarder) appenderOf(principal string) (*appender, error) {
	f.mu.RLock()
	a := f.appenders[principal]
	f.mu.RUnlock()
	if a != nil {
		return a, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if a := f.appenders[principal]; a != nil {
		return a, nil
	}
	if len(f.appenders) >= f.cfg.MaxAppenders && !f.retireOne() {
		f.metrics.refused.Inc()
		return nil, apierr.Overloaded{RetryAfter: pushback}
	}
	a = newAppender(f, principal)
	f.appenders[principal] = a
	return a, nil
}

// retireOne forgets an appender that has no stream and no work. mu is held.
func (f *Forwarder) retireOne() bool {
	for p, a := range f.appenders {
		a.mu.Lock()
		retire := !a.running
		a.retired = retire
		a.mu.Unlock()
		if retire {
			delete(f.appenders, p)
			return true
		}
	}
	return false
}

// Register adds log.v1.Log to a server made with ServerCodec.
func (f *Forwarder) Register(r grpc.ServiceRegistrar) { r.RegisterService(&serviceDesc, f) }

// serviceDesc is logv1.Log_ServiceDesc with requests to produce taken as bytes.
var serviceDesc = grpc.ServiceDesc{
	ServiceName: logv1.Log_ServiceDesc.ServiceName,
	HandlerType: (*any)(nil),
	Metadata:    logv1.Log_ServiceDesc.Metadata,
	Methods: []grpc.MethodDesc{
		{MethodName: "Produce", Handler: handleProduce},
		{MethodName: "Consume", Handler: unary(logv1.Log_Consume_FullMethodName, (*Forwarder).consume)},
		{MethodName: "GetServers", Handler: unary(logv1.Log_GetServers_FullMethodName, (*Forwarder).getServers)},
		{MethodName: "GetOffsets", Handler: unary(logv1.Log_GetOffsets_FullMethodName, (*Forwarder).getOffsets)},
	},
	Streams: []grpc.StreamDesc{
		{StreamName: "ConsumeStream", ServerStreams: true, Handler: func(srv any, ss grpc.ServerStream) error {
			f, err := self(srv)
			if err != nil {
				return err
			}
			var req logv1.ConsumeRequest
			if err := ss.RecvMsg(&req); err != nil {
				return err
			}
			return f.consumeStream(&req, ss)
		}},
		{StreamName: "ProduceStream", ServerStreams: true, ClientStreams: true, Handler: func(srv any, ss grpc.ServerStream) error {
			f, err := self(srv)
			if err != nil {
				return err
			}
			return f.produceStream(ss)
		}},
	},
}

func self(srv any) (*Forwarder, error) {
	f, ok := srv.(*Forwarder)
	if !ok {
		return nil, fmt.Errorf("forward: registered with a %T", srv)
	}
	return f, nil
}

// unary is a handler as generated code has it, for a method of Forwarder.
func unary[Req any, P interface{ *Req }, Resp any](method string, call func(f *Forwarder, ctx context.Context, req P, by *string) (Resp, error)) grpc.MethodHandler {
	return func(srv any, ctx context.Context, dec func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		f, err := self(srv)
		if err != nil {
			return nil, err
		}
		in := new(unaryCall[Req])
		if err := dec(P(&in.req)); err != nil {
			return nil, err
		}
		if intercept == nil {
			return call(f, ctx, &in.req, &in.by)
		}
		return intercept(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: method},
			func(ctx context.Context, _ any) (any, error) { return call(f, ctx, &in.req, &in.by) })
	}
}
