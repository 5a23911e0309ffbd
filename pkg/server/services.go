package server

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
)

// The service descriptions are the generated ones; the methods records go through
// get handlers that take and give frames.

func logService() *grpc.ServiceDesc {
	return describe(logv1.Log_ServiceDesc, map[string]frameHandler{
		"Produce": func(s *Server, ctx context.Context, in []byte) (*frame, error) { return s.produce(ctx, in) },
		"Consume": (*Server).consume,
	}, map[string]grpc.StreamHandler{
		"ProduceStream": func(srv any, ss grpc.ServerStream) error { return srv.(*Server).produceStream(ss) },
		"ConsumeStream": func(srv any, ss grpc.ServerStream) error { return srv.(*Server).consumeStream(ss) },
	})
}

func nodeService() *grpc.ServiceDesc {
	return describe(nodev1.Node_ServiceDesc, map[string]frameHandler{
		"Fetch": (*Server).fetch,
	}, map[string]grpc.StreamHandler{
		"Append":      func(srv any, ss grpc.ServerStream) error { return srv.(*Server).appendStream(ss) },
		"FetchStream": func(srv any, ss grpc.ServerStream) error { return srv.(*Server).fetchStream(ss) },
	})
}

// frameHandler answers a unary call in wire format.
type frameHandler func(s *Server, ctx context.Context, in []byte) (*frame, error)

func describe(sd grpc.ServiceDesc, unary map[string]frameHandler, streams map[string]grpc.StreamHandler) *grpc.ServiceDesc {
	sd.HandlerType = (*any)(nil) // the handlers know whom they are for
	methods := make([]grpc.MethodDesc, len(sd.Methods))
	for i, m := range sd.Methods {
		full := "/" + sd.ServiceName + "/" + m.MethodName
		if h, ok := unary[m.MethodName]; ok {
			m.Handler = frameMethod(full, h)
		} else {
			m.Handler = plainMethod(m.Handler)
		}
		methods[i] = m
	}
	sd.Methods = methods
	descs := make([]grpc.StreamDesc, len(sd.Streams))
	for i, d := range sd.Streams {
		if h, ok := streams[d.StreamName]; ok {
			d.Handler = h
		}
		descs[i] = d
	}
	sd.Streams = descs
	return &sd
}

func frameMethod(full string, h frameHandler) grpc.MethodHandler {
	return func(srv any, ctx context.Context, dec func(any) error, chain grpc.UnaryServerInterceptor) (any, error) {
		in := new(frame)
		if err := dec(in); err != nil {
			return nil, err
		}
		info := &grpc.UnaryServerInfo{Server: srv, FullMethod: full}
		return chain(ctx, in, info, func(ctx context.Context, req any) (any, error) {
			out, err := h(srv.(*Server), ctx, req.(*frame).in)
			if err != nil {
				return nil, err // not a nil *frame in an interface
			}
			return out, nil
		})
	}
}

// plainMethod is the generated handler, with our answer to what cannot be
// decoded. gRPC's own would be INTERNAL, which says that the fault is ours.
func plainMethod(h grpc.MethodHandler) grpc.MethodHandler {
	return func(srv any, ctx context.Context, dec func(any) error, chain grpc.UnaryServerInterceptor) (any, error) {
		return h(srv, ctx, func(v any) error {
			in := new(frame)
			if err := dec(in); err != nil {
				return err
			}
			return in.decode(v.(proto.Message))
		}, chain)
	}
}
