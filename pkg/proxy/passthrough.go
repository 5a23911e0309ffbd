package proxy

import (
	"context"
	"regexp"
	"strings"
	"time"

	grpcproxy "github.com/mwitkow/grpc-proxy/proxy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/proxy/forward"
	"github.com/logd-io/logd/pkg/proxy/route"
)

// principalKey is the metadata by which a proxy tells a node whose call it is. A
// node believes a proxy, so nothing a client sends may stand in it.
const principalKey = "logd-original-principal"

// methodPattern is what passes: a node must read the name as we did.
var methodPattern = regexp.MustCompile(`^/([A-Za-z_][A-Za-z0-9_.]*)/[A-Za-z_][A-Za-z0-9_]*$`)

// passthrough carries calls that the proxy does not know to the leader.
type passthrough struct {
	holder    *route.Holder
	principal func(context.Context) (string, error)
	hold      time.Duration // how long a call waits for a leader
}

// handler is for grpc.UnknownServiceHandler. Messages go through as bytes. Response
// headers follow with the first message of the answer, which is when the
// library can tell them.
func (p *passthrough) handler() grpc.StreamHandler {
	return grpcproxy.TransparentHandler(p.direct)
}

func (p *passthrough) direct(ctx context.Context, method string) (context.Context, grpc.ClientConnInterface, error) {
	if err := allowed(method); err != nil {
		return nil, nil, err
	}
	principal, err := p.principal(ctx)
	if err != nil {
		return nil, nil, err
	}
	leader, err := p.leader(ctx)
	if err != nil {
		return nil, nil, err
	}
	in, _ := metadata.FromIncomingContext(ctx)
	out := in.Copy()
	for _, k := range []string{principalKey, ":authority", "content-type", "user-agent"} {
		out.Delete(k)
	}
	// Encoded, since the node decodes it: as it is, a '%' in one client's name would
	// make it another's.
	out.Set(principalKey, forward.HeaderSafe(principal))
	return metadata.NewOutgoingContext(ctx, out), counted{leader}, nil
}

// allowed refuses what clients have no business asking of a node, and what only
// the proxy itself answers.
func allowed(method string) error {
	m := methodPattern.FindStringSubmatch(method)
	if m == nil {
		return unknownMethod(method)
	}
	switch pkg, _, _ := strings.Cut(m[1], "."); pkg {
	case "node":
		return notForClients(m[1])
	case "grpc":
		return unknownMethod(method)
	}
	return nil
}

// leader waits for one, like a produce.
func (p *passthrough) leader(ctx context.Context) (route.Upstream, error) {
	t := p.holder.Load()
	if t.Leader != nil {
		return t.Leader, nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.hold)
	defer cancel()
	for ; t.Leader == nil; t = p.holder.Load() {
		select {
		case <-t.Superseded():
		case <-ctx.Done():
			return nil, apierr.NotSent{}
		}
	}
	return t.Leader, nil
}

// counted is a node's connection whose calls count as in flight.
type counted struct{ u route.Upstream }

func (c counted) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	// The handler cancels ctx when the call is over, whichever way it ends.
	context.AfterFunc(ctx, c.u.Acquire())
	return c.u.Conn().NewStream(ctx, desc, method, opts...)
}

func (c counted) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	defer c.u.Acquire()()
	return c.u.Conn().Invoke(ctx, method, args, reply, opts...)
}
