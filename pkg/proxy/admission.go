package proxy

import (
	"context"
	"errors"
	"runtime"
	rtmetrics "runtime/metrics"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/tap"

	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/internal/netlimit"
	"github.com/logd-io/logd/pkg/internal/throttle"
)

// pushback is how long a client that met a limit is asked to stay away.
const pushback = 250 * time.Millisecond

// admission bounds the calls that are open at a time, in all and of each client,
// and refuses new ones while memory is short. Health and reflection always get in:
// whoever asks how the proxy is must be told, and they hold nothing.
type admission struct {
	gate   *netlimit.Gate
	memory *memory // nil: not watched
	who    func(context.Context) (string, error)
	m      *metrics
	rates  *throttle.Throttle // of each client; nil: none
}

func exempt(method string) bool { return strings.HasPrefix(method, "/grpc.") }

// tap refuses a call before anything of it is read, and before it has a goroutine.
func (a *admission) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	if exempt(info.FullMethodName) {
		return ctx, nil
	}
	if a.memory.short() {
		a.m.refusedCalls.WithLabelValues("memory").Inc()
		return nil, overloaded()
	}
	if a.gate.Open() >= a.gate.Most() {
		a.m.refusedCalls.WithLabelValues("all").Inc()
		return nil, overloaded()
	}
	return ctx, nil
}

// enter counts a call in until leave.
func (a *admission) enter(ctx context.Context) (leave func(), err error) {
	client, err := a.who(ctx)
	if err != nil {
		return nil, err
	}
	if err := a.rates.Call(client); err != nil {
		var past *throttle.Error
		errors.As(err, &past)
		return nil, apierr.Overloaded{RetryAfter: past.After, Why: past.Error(), Limit: past.Limit}
	}
	if err := a.gate.Enter(client); err != nil {
		why := "all"
		var full *netlimit.FullError
		if errors.As(err, &full) && full.Of != "" {
			why = "client"
		}
		a.m.refusedCalls.WithLabelValues(why).Inc()
		return nil, overloaded()
	}
	return func() { a.gate.Leave(client) }, nil
}

func (a *admission) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if exempt(info.FullMethod) {
		return handler(ctx, req)
	}
	leave, err := a.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return handler(ctx, req)
}

func (a *admission) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if exempt(info.FullMethod) {
		return handler(srv, ss)
	}
	leave, err := a.enter(ss.Context())
	if err != nil {
		return err
	}
	defer leave()
	return handler(srv, ss)
}

func overloaded() error { return apierr.Overloaded{RetryAfter: pushback}.GRPCStatus().Err() }

// memory says whether objects on the heap take more than a limit.
type memory struct {
	limit uint64
	over  atomic.Bool // what was seen at the last look
}

// newMemory watches nothing, and answers nil, where there is no limit.
func newMemory(limit uint64) *memory {
	if limit == 0 {
		return nil
	}
	return &memory{limit: limit}
}

func (m *memory) short() bool { return m != nil && m.over.Load() }

// look counts garbage only when it has been collected: what looks like too much
// may be nothing else.
func (m *memory) look() {
	if m == nil {
		return
	}
	over := heapBytes() > m.limit
	if over {
		runtime.GC()
		over = heapBytes() > m.limit
	}
	m.over.Store(over)
}

func heapBytes() uint64 {
	s := []rtmetrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	rtmetrics.Read(s)
	return s[0].Value.Uint64()
}
