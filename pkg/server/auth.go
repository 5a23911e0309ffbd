package server

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/url"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/authz"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// Request metadata the node reads.
const (
	metaPrincipal = "logd-original-principal" // from role proxy only
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
	if claimed := metadata.ValueFromIncomingContext(ctx, metaPrincipal); len(claimed) > 0 {
		switch {
		case id.Role != tlsconf.RoleProxy:
			return nil, apierr.PermissionDenied{Why: fmt.Sprintf("%s: only a proxy speaks for others, %s is of role %s", metaPrincipal, id.Name, id.Role)}
		case len(claimed) != 1 || claimed[0] == "" || len(claimed[0]) > maxPrincipal:
			return nil, apierr.PermissionDenied{Why: metaPrincipal + ": exactly one name is needed"}
		}
		// What a header cannot hold comes percent-encoded.
		name, err := url.PathUnescape(claimed[0])
		if err != nil {
			return nil, apierr.PermissionDenied{Why: metaPrincipal + ": not percent-encoded"}
		}
		who.principal = name
	} else if id.Role == tlsconf.RoleProxy && authz.NeedsPrincipal(method) {
		return nil, apierr.PermissionDenied{Why: fmt.Sprintf("%s: %s has to say for whom (%s)", method, id.Name, metaPrincipal)}
	}
	if authz.Open(method) {
		return context.WithValue(ctx, callerKey{}, who), nil
	}
	if !authz.Allowed(string(id.Role), method) {
		return nil, apierr.PermissionDenied{Why: fmt.Sprintf("%s: not for role %s (%s)", method, id.Role, id.Name)}
	}
	select {
	case <-s.stopping:
		return nil, apierr.Draining{}
	default:
	}
	return context.WithValue(ctx, callerKey{}, who), nil
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	ctx, err := s.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	resp, err := next(ctx, req)
	if err != nil {
		return nil, s.status(info.FullMethod, err)
	}
	return resp, nil
}

func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, err := s.admit(ss.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	ss = &callerStream{ServerStream: ss, ctx: ctx}
	if authz.Open(info.FullMethod) {
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
