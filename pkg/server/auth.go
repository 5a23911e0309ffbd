package server

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"net/url"
	"path"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/authz"
	"github.com/logd-io/logd/pkg/internal/throttle"
	"github.com/logd-io/logd/pkg/telemetry"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// Request metadata the node reads.
const (
	metaPrincipal = "logd-original-principal" // from role proxy only
	metaCluster   = "logd-cluster"            // the cluster a proxy takes this node for one of
	metaRequestID = "logd-request-id"
)

// maxPrincipal bounds what a proxy may claim in bytes.
const maxPrincipal = 2048

// caller is who a request is from, and for whom.
type caller struct {
	identity tlsconf.Identity
	// principal is the client a proxy speaks for, and for everybody else the
	// name in the certificate.
	principal string
	grant     authz.Grant
	rates     *throttle.Throttle // of principal; nil: it has none
}

// owner identifies who a producer id belongs to: the principal together with
// the certificate it came under.
func (c caller) owner() uint64 {
	h := sha256.New()
	for _, s := range []string{c.principal, string(c.identity.Role), c.identity.Name} {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(s))))
		h.Write([]byte(s))
	}
	return binary.BigEndian.Uint64(h.Sum(nil))
}

type callerKey struct{}

func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// admit decides whether a request may go on, and says who it is from.
func (s *Server) admit(ctx context.Context, method string) (context.Context, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, apierr.Unauthenticated{Why: "no connection"}
	}
	info, ok := p.AuthInfo.(peerInfo)
	if !ok {
		return nil, apierr.Unauthenticated{Why: "no certificate"}
	}
	id := info.identity
	who := caller{identity: id, principal: id.Name}
	ask := authz.Caller{Role: string(id.Role), Name: id.Name}
	if claimed := metadata.ValueFromIncomingContext(ctx, metaPrincipal); len(claimed) > 0 {
		name, err := principalOf(claimed)
		if err != nil && id.Role == tlsconf.RoleProxy {
			return nil, s.refused(who, method, err)
		}
		who.principal, ask.Principal, ask.Proxied = name, name, true
	}
	grant, err := s.authz.Check(ask, method)
	if err != nil {
		return nil, s.refused(who, method, err)
	}
	who.grant = grant
	if authz.Public(method) {
		return context.WithValue(ctx, callerKey{}, who), nil
	}
	select {
	case <-s.stopping:
		return nil, apierr.Draining{}
	default:
	}
	if ask.Proxied {
		if err := s.ours(ctx, who, method); err != nil {
			return nil, err
		}
	}
	// A proxy's own calls, such as to watch the cluster, are not its clients'. Peers and
	// operators are to get through above all when there is much to do.
	if id.Role == tlsconf.RoleClient || ask.Proxied {
		who.rates = s.rates
		if err := who.rates.Call(who.principal); err != nil {
			return nil, s.kind(err)
		}
	}
	if authz.Audited(method) {
		s.audit.allowed(who, method)
	}
	return context.WithValue(ctx, callerKey{}, who), nil
}

// ours refuses a call that a proxy meant for another cluster. Everybody of that one may
// have been wiped, and this one begun at their addresses: what the proxy's clients wrote
// there has not been read here, and what they would write here is not meant for it. The
// proxy tries elsewhere, as with a node that is not ready.
func (s *Server) ours(ctx context.Context, who caller, method string) error {
	meant := metadata.ValueFromIncomingContext(ctx, metaCluster)
	if len(meant) == 0 {
		return nil // an older proxy, or one that knows of no cluster yet
	}
	is := s.view().ClusterID
	if is == "" || slices.Contains(meant, is) {
		return nil
	}
	now := time.Now().UnixNano()
	if last := s.strayed.Load(); now-last >= int64(time.Minute) && s.strayed.CompareAndSwap(last, now) {
		s.logger.Warn("calls for another cluster are refused; the proxy is to be restarted if its clients are to use this one",
			"proxy", who.identity.Name, "method", method, "meant", meant[0], "cluster", is)
	}
	return apierr.Draining{}
}

// principalOf is the one name in what a proxy has said.
func principalOf(claimed []string) (string, error) {
	if len(claimed) != 1 || claimed[0] == "" || len(claimed[0]) > maxPrincipal {
		return "", apierr.PermissionDenied{Why: metaPrincipal + ": exactly one name is needed"}
	}
	// What a header cannot hold comes percent-encoded.
	name, err := url.PathUnescape(claimed[0])
	if err != nil {
		return "", apierr.PermissionDenied{Why: metaPrincipal + ": not percent-encoded"}
	}
	return name, nil
}

// refused is a denial as the caller is told it.
func (s *Server) refused(who caller, method string, err error) error {
	s.audit.denied(who, method, err)
	return apierr.PermissionDenied{Why: err.Error()}
}

// standing watches over a grant for as long as a stream goes by it.
type standing struct {
	s   *Server
	who caller
}

// changed is closed when the rules have changed since the last look.
func (g *standing) changed() <-chan struct{} { return g.who.grant.Changed() }

// look asks again, and gives the refusal if the stream may not go on.
func (g *standing) look() error {
	grant, err := g.s.authz.Renew(g.who.grant)
	if err != nil {
		return g.s.refused(g.who, g.who.grant.Method(), err)
	}
	g.who.grant = grant
	return nil
}

// still refuses a read whose caller may not read any more after what it has waited for.
func (s *Server) still(ctx context.Context) error {
	leave := standing{s, callerOf(ctx)}
	select {
	case <-leave.changed():
		return leave.look()
	default:
		return nil
	}
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	if s.access.Enabled() {
		defer s.note(&ctx, info.FullMethod, time.Now(), &err)
	}
	known, err := s.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	ctx = known
	resp, err = next(ctx, req)
	if err != nil {
		return nil, s.status(info.FullMethod, err)
	}
	return resp, nil
}

// note writes the access log's line of a call that has ended. One that was refused is
// told under the certificate's name.
func (s *Server) note(ctx *context.Context, method string, begin time.Time, err *error) {
	who := callerOf(*ctx).principal
	if p, ok := peer.FromContext(*ctx); ok && who == "" {
		if info, ok := p.AuthInfo.(peerInfo); ok {
			who = info.identity.Name
		}
	}
	s.access.Note(telemetry.Call{Method: path.Base(method), Code: telemetry.CodeOf(*err), Took: time.Since(begin), Principal: who})
}

func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	ctx := ss.Context()
	if s.access.Enabled() {
		defer s.note(&ctx, info.FullMethod, time.Now(), &err)
	}
	known, err := s.admit(ctx, info.FullMethod)
	if err != nil {
		return err
	}
	ctx = known
	ss = &callerStream{ServerStream: ss, ctx: ctx}
	if authz.Public(info.FullMethod) {
		return s.untilStop(func() error { return next(srv, ss) })
	}
	if err := next(srv, ss); err != nil {
		return s.status(info.FullMethod, err)
	}
	return nil
}

// untilStop ends a stream of a handler that is not ours when the server stops: a
// health watch would otherwise last until its client goes, and hold up a drain.
func (s *Server) untilStop(handler func() error) error {
	done := make(chan error, 1) // room for the one result, which nobody may wait for
	s.helpers.Go(func() { done <- handler() })
	select {
	case err := <-done:
		return err
	case <-s.stopping:
		return apierr.Draining{}
	}
}

// callerStream is a stream whose context knows the caller.
type callerStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // what Context answers
}

func (s *callerStream) Context() context.Context { return s.ctx }
