package proxy

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip" // of clients that compress; they get it back
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"

	"github.com/logd-io/logd/config"
	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/internal/netlimit"
	"github.com/logd-io/logd/pkg/internal/throttle"
	"github.com/logd-io/logd/pkg/proxy/forward"
	"github.com/logd-io/logd/pkg/proxy/route"
	"github.com/logd-io/logd/pkg/telemetry"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// The listener's limits that need no setting.
const (
	maxMessageBytes = 1<<20 + 64<<10   // the largest record, with what goes around it
	maxHeaderBytes  = 16 << 10         // of one call
	pingTime        = 30 * time.Second // a silent client is asked whether it is there
	pingTimeout     = 10 * time.Second
	minPingInterval = 5 * time.Second // clients that ask more often are sent away

	// Fixed windows: what a client may have sent of one call before anybody reads it
	// does not grow with the bandwidth seen.
	streamWindowBytes = 256 << 10
	connWindowBytes   = 1 << 20
	readBufferBytes   = 8 << 10 // which every connection has, idle or not
	// streamWorkers are goroutines that take one call after another, so that their
	// stacks have grown already. Calls beyond get goroutines of their own.
	streamWorkers = 64

	lookEvery = 500 * time.Millisecond // who has not read for that long does not read
)

// bounds are what clients can make the proxy hold.
type bounds struct {
	conns  *netlimit.Gate   // connections that are known
	fresh  *netlimit.Newest // those that are not yet
	calls  *admission
	unread *unread
}

// newBounds makes what cfg says. With TLS, where clients differ, none of them gets
// more than half of anything.
func newBounds(cfg *config.Proxy, who func(context.Context) (string, error), rates *throttle.Throttle, m *metrics, reg prometheus.Registerer) (*bounds, error) {
	budget := netlimit.Clients(netlimit.Files())
	if most := cfg.Limits.MaxConnections; most != 0 {
		budget.Kept = min(most, budget.Kept)
	}
	share := func(n int) int {
		if cfg.Listener.TLS.IsZero() {
			return n
		}
		return (n + 1) / 2
	}
	b := &bounds{
		conns: netlimit.NewFairGate(budget.Kept, share(budget.Kept)),
		fresh: netlimit.NewNewest(budget.New, m.refusedConns.WithLabelValues("unknown").Inc),
		calls: &admission{
			gate:   netlimit.NewFairGate(cfg.Limits.MaxCalls, share(cfg.Limits.MaxCalls)),
			memory: newMemory(uint64(cfg.Limits.Memory)), who: who, m: m, rates: rates,
		},
		unread: newUnread(cfg.Limits.MaxUnread, m),
	}
	return b, m.watch(reg, b)
}

// run looks after what is not decided call by call, until ctx ends.
func (b *bounds) run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		b.calls.memory.look()
		b.unread.look()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// newServer makes the clients' gRPC server. tls nil is plaintext.
func newServer(tracing *telemetry.Tracing, limits config.ProxyLimits, fwd *forward.Forwarder, hs healthv1.HealthServer, pass *passthrough, ends *endings, m *metrics, b *bounds, tls *tlsconf.Source) *grpc.Server {
	door := netlimit.Door{Gate: b.conns, Refused: func(full *netlimit.FullError) {
		if full.Of != "" {
			m.refusedConns.WithLabelValues("client").Inc()
		} else {
			m.refusedConns.WithLabelValues("all").Inc()
		}
	}}
	creds := spokenTo(insecure.NewCredentials())
	if tls != nil {
		creds = credentials.NewTLS(tls.Server([]string{tlsconf.ALPNgRPC}, tlsconf.RoleClient, tlsconf.RoleAdmin))
		door.Who = func(info credentials.AuthInfo) string {
			name, _ := nameOf(info) // a call without one is refused
			return name
		}
	}
	s := grpc.NewServer(append(tracing.ServerOptions(),
		grpc.Creds(netlimit.Credentials(creds, door)),
		forward.ServerCodec(),
		grpc.MaxConcurrentStreams(uint32(limits.MaxConcurrentStreams)),
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.ReadBufferSize(readBufferBytes),
		grpc.StaticStreamWindowSize(streamWindowBytes),
		grpc.StaticConnWindowSize(connWindowBytes),
		grpc.ConnectionTimeout(limits.HandshakeTimeout),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingTime, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPingInterval, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true), // Stop must not return while a handler uses what closes next
		grpc.InTapHandle(b.calls.tap),
		grpc.ChainUnaryInterceptor(m.unary, b.calls.unary),
		grpc.ChainStreamInterceptor(m.stream, b.calls.stream, b.unread.stream, ends.stream),
		grpc.UnknownServiceHandler(pass.handler()),
	)...)
	fwd.Register(s)
	healthv1.RegisterHealthServer(s, hs)
	reflection.Register(s) // v1 and v1alpha
	return s
}

// caller answers who a call's client is. Without TLS it is always sidecar, the
// workload the listener is there for.
func caller(tls *tlsconf.Source, sidecar string) func(context.Context) (string, error) {
	if tls == nil {
		return func(context.Context) (string, error) { return sidecar, nil }
	}
	return func(ctx context.Context) (string, error) {
		p, ok := peer.FromContext(ctx)
		if !ok {
			return "", noIdentity("no peer")
		}
		return nameOf(p.AuthInfo)
	}
}

func nameOf(auth credentials.AuthInfo) (string, error) {
	if held, ok := auth.(netlimit.Held); ok {
		auth = held.AuthInfo
	}
	info, ok := auth.(credentials.TLSInfo)
	if !ok {
		return "", noIdentity("no certificate")
	}
	id, err := tlsconf.Peer(info.State)
	if err != nil {
		return "", noIdentity(err.Error())
	}
	return id.Name, nil
}

// errDraining is why a stream ends that outlived its last chance.
var errDraining = errors.New("the proxy is shutting down")

// endings end the streams that nobody else ends in a drain: watchers of health
// and reflection at once, as they would stay for ever, and those passed through
// when their last chance is over. forward ends its own.
type endings struct {
	watchers, passed       context.Context //nolint:containedctx // events, not anybody's request
	endWatchers, endPassed context.CancelCauseFunc
}

func newEndings() *endings {
	e := &endings{}
	e.watchers, e.endWatchers = context.WithCancelCause(context.Background())
	e.passed, e.endPassed = context.WithCancelCause(context.Background())
	return e
}

func (e *endings) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	end := e.passed
	switch {
	case strings.HasPrefix(info.FullMethod, "/grpc."):
		end = e.watchers
	case strings.HasPrefix(info.FullMethod, "/"+logv1.Log_ServiceDesc.ServiceName+"/"):
		return handler(srv, ss)
	}
	ctx, cancel := context.WithCancelCause(ss.Context())
	defer cancel(nil)
	defer context.AfterFunc(end, func() { cancel(errDraining) })()
	err := handler(srv, ending{ss, ctx})
	if err != nil && errors.Is(context.Cause(ctx), errDraining) {
		return apierr.Draining{}
	}
	return err
}

type ending struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // what Context answers
}

func (e ending) Context() context.Context { return e.ctx }

// ready says whether a table can serve anything.
func ready(t *route.Table) bool { return t.Leader != nil || len(t.Followers) > 0 }
