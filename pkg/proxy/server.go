package proxy

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/internal/netlimit"
	"github.com/logd-io/logd/pkg/proxy/forward"
	"github.com/logd-io/logd/pkg/proxy/route"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// The listener's limits.
const (
	maxStreams       = 1000             // calls at a time on one connection
	maxMessageBytes  = 1<<20 + 64<<10   // the largest record, with what goes around it
	maxHeaderBytes   = 16 << 10         // of one call
	handshakeTimeout = 5 * time.Second  // of a new connection
	pingTime         = 30 * time.Second // a silent client is asked whether it is there
	pingTimeout      = 10 * time.Second
	minPingInterval  = 5 * time.Second // clients that ask more often are sent away
)

// newServer makes the clients' gRPC server. tls nil is plaintext.
func newServer(fwd *forward.Forwarder, hs healthv1.HealthServer, pass *passthrough, ends *endings, m *metrics, tls *tlsconf.Source) *grpc.Server {
	creds := insecure.NewCredentials()
	if tls != nil {
		creds = credentials.NewTLS(tls.Server([]string{tlsconf.ALPNgRPC}, tlsconf.RoleClient, tlsconf.RoleAdmin))
	}
	s := grpc.NewServer(
		grpc.Creds(netlimit.Credentials(creds, netlimit.NewGate(netlimit.Clients(netlimit.Files()).Kept))),
		forward.ServerCodec(),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingTime, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPingInterval, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true), // Stop must not return while a handler uses what closes next
		grpc.UnaryInterceptor(m.unary),
		grpc.ChainStreamInterceptor(m.stream, ends.stream),
		grpc.UnknownServiceHandler(pass.handler()),
	)
	fwd.Register(s)
	healthv1.RegisterHealthServer(s, hs)
	reflection.Register(s) // v1 and v1alpha
	return s
}

// bounded is lis, on which connections that have not got through the handshake
// are few: the oldest gives way.
func bounded(lis net.Listener) net.Listener {
	return netlimit.Listener{Listener: lis, Newest: netlimit.NewNewest(netlimit.Clients(netlimit.Files()).New, nil)}
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
		info, ok := p.AuthInfo.(credentials.TLSInfo)
		if !ok {
			return "", noIdentity("no certificate")
		}
		id, err := tlsconf.Peer(info.State)
		if err != nil {
			return "", noIdentity(err.Error())
		}
		return id.Name, nil
	}
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
