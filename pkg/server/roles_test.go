package server_test

import (
	"context"
	"crypto/sha256"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// Every method of both services, and who may call it. A new method fails this
// test until it is put here.
var mayCall = map[string]string{
	"/log.v1.Log/Produce": "client proxy admin", "/log.v1.Log/Consume": "client proxy admin",
	"/log.v1.Log/ConsumeStream": "client proxy admin", "/log.v1.Log/ProduceStream": "client proxy admin",
	"/log.v1.Log/GetServers": "client proxy admin", "/log.v1.Log/GetOffsets": "client proxy admin",
	"/node.v1.Node/Append": "proxy admin", "/node.v1.Node/Fetch": "proxy admin",
	"/node.v1.Node/FetchStream": "proxy admin", "/node.v1.Node/Offsets": "proxy admin",
	"/node.v1.Node/WatchCluster": "proxy storage admin", "/node.v1.Node/Stats": "proxy storage admin",
	"/node.v1.Node/Join": "storage", "/node.v1.Node/Promise": "storage",
	"/node.v1.Node/FetchEntries": "storage", "/node.v1.Node/FetchCheckpoint": "storage",
	"/node.v1.Node/ReadIndex": "storage", "/node.v1.Node/CompareHash": "storage",
	"/node.v1.Node/TransferLeadership": "admin", "/node.v1.Node/RemovePeer": "admin",
	"/node.v1.Node/ListKeys": "admin", "/node.v1.Node/InstallKey": "admin",
	"/node.v1.Node/UseKey": "admin", "/node.v1.Node/RemoveKey": "admin",
}

func TestRolesPerMethod(t *testing.T) {
	r := start(t)
	all := map[string]bool{} // full method → streams
	for _, sd := range []grpc.ServiceDesc{logv1.Log_ServiceDesc, nodev1.Node_ServiceDesc} {
		for _, m := range sd.Methods {
			all["/"+sd.ServiceName+"/"+m.MethodName] = false
		}
		for _, m := range sd.Streams {
			all["/"+sd.ServiceName+"/"+m.StreamName] = true
		}
	}
	require.Len(t, mayCall, len(all))
	for _, role := range []tlsconf.Role{tlsconf.RoleClient, tlsconf.RoleProxy, tlsconf.RoleStorage, tlsconf.RoleAdmin} {
		cc := r.dial(role, "x")
		for method, streams := range all {
			allowed := strings.Contains(mayCall[method], string(role))
			ctx, cancel := context.WithCancel(ctxOf(t))
			if role == tlsconf.RoleProxy {
				ctx = metadata.AppendToOutgoingContext(ctx, "logd-original-principal", "alice")
			}
			var err error
			if streams {
				var cs grpc.ClientStream
				cs, err = cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
				require.NoError(t, err)
				if err := cs.SendMsg(&nodev1.StatsRequest{}); err != nil {
					require.ErrorIs(t, err, io.EOF, "refused before it was sent, or not at all")
				}
				require.NoError(t, cs.CloseSend())
				// Headers come at once from whoever is let in. An Append without a
				// record is refused after them.
				if md, herr := cs.Header(); herr != nil || md == nil {
					var resp nodev1.StatsResponse
					err = cs.RecvMsg(&resp)
				}
			} else {
				err = cc.Invoke(ctx, method, &nodev1.StatsRequest{}, &nodev1.StatsResponse{})
			}
			if allowed {
				require.NotEqual(t, codes.PermissionDenied, status.Code(err), "%s by %s: %v", method, role, err)
			} else {
				require.Equal(t, codes.PermissionDenied, status.Code(err), "%s by %s", method, role)
			}
			cancel()
		}
	}
}

func TestOnlyAProxySpeaksForOthers(t *testing.T) {
	r := start(t)
	as := metadata.AppendToOutgoingContext(ctxOf(t), "logd-original-principal", "alice")
	for _, role := range []tlsconf.Role{tlsconf.RoleClient, tlsconf.RoleStorage, tlsconf.RoleAdmin} {
		cc := r.dial(role, "x")
		for _, method := range []string{"/log.v1.Log/GetOffsets", "/node.v1.Node/Stats", "/grpc.health.v1.Health/Check"} {
			err := cc.Invoke(as, method, &nodev1.StatsRequest{}, &nodev1.StatsResponse{})
			require.Equal(t, codes.PermissionDenied, status.Code(err), "%s by %s", method, role)
		}
		stream, err := nodev1.NewNodeClient(cc).Append(as)
		require.NoError(t, err)
		_, err = stream.Recv()
		require.Equal(t, codes.PermissionDenied, status.Code(err))
	}
	p := nodev1.NewNodeClient(r.dial(tlsconf.RoleProxy, "p1"))
	odd := metadata.AppendToOutgoingContext(ctxOf(t), "logd-original-principal", "100%")
	_, err := p.Stats(odd, &nodev1.StatsRequest{})
	require.Equal(t, codes.PermissionDenied, status.Code(err), "not percent-encoded")
	two := metadata.AppendToOutgoingContext(as, "logd-original-principal", "bob")
	_, err = p.Stats(two, &nodev1.StatsRequest{})
	require.Equal(t, codes.PermissionDenied, status.Code(err), "two principals")
	_, err = p.Stats(as, &nodev1.StatsRequest{})
	require.NoError(t, err)
	_, err = p.Stats(ctxOf(t), &nodev1.StatsRequest{})
	require.NoError(t, err, "what a proxy asks for itself")
	_, err = p.Fetch(ctxOf(t), &nodev1.FetchRequest{})
	require.Equal(t, codes.PermissionDenied, status.Code(err), "a fetch for nobody")
	stream, err := p.Append(ctxOf(t))
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, codes.PermissionDenied, status.Code(err), "an append for nobody")
}

func TestOwnerIsPrincipalAndCertificate(t *testing.T) {
	r := start(t)
	owner := func(proxy, principal string) uint64 {
		stream, err := r.proxyFor(proxy, principal).Append(ctxOf(t))
		require.NoError(t, err)
		require.NoError(t, stream.Send(&nodev1.AppendRequest{Count: 1, Records: []byte{0}}))
		_, err = stream.Recv()
		require.NoError(t, err)
		return r.last().Owner
	}
	one := owner("p1", "alice")
	require.Equal(t, one, owner("p1", "alice"))
	require.NotEqual(t, one, owner("p2", "alice"), "another proxy")
	require.NotEqual(t, one, owner("p1", "bob"), "another principal")
	require.Equal(t, one, owner("p1", "%61lice"), "percent-encoded")
}

func TestRequestKeyBelongsToPrincipal(t *testing.T) {
	r := start(t)
	key := func(name, id string) [16]byte {
		ctx := metadata.AppendToOutgoingContext(ctxOf(t), "logd-request-id", id)
		_, err := logv1.NewLogClient(r.dial(tlsconf.RoleClient, name)).Produce(ctx, &logv1.ProduceRequest{})
		require.NoError(t, err)
		return r.last().Key
	}
	a := key("app", "1")
	sum := sha256.Sum256([]byte("3:app1")) // a proxy makes the same, so it may not change
	require.Equal(t, sum[:16], a[:])
	require.Equal(t, a, key("app", "1"))
	require.NotEqual(t, a, key("app", "2"))
	require.NotEqual(t, a, key("other", "1"))
	_, err := r.client().Produce(metadata.AppendToOutgoingContext(ctxOf(t), "logd-request-id", ""), &logv1.ProduceRequest{})
	require.Equal(t, apierr.ReasonInvalid, apierr.ReasonOf(err))
}

func TestHealthAndReflection(t *testing.T) {
	r := start(t)
	cc := r.dial(tlsconf.RoleClient, "grpcurl")
	watch, err := healthv1.NewHealthClient(cc).Watch(ctxOf(t), &healthv1.HealthCheckRequest{Service: "log.v1.Log"})
	require.NoError(t, err)
	until := func(want healthv1.HealthCheckResponse_ServingStatus) {
		for {
			resp, err := watch.Recv()
			require.NoError(t, err)
			if resp.Status == want {
				return
			}
		}
	}
	until(healthv1.HealthCheckResponse_SERVING)
	r.follow()
	v := r.View()
	v.Ready = false
	r.set(func(to *replica.View) { *to = v })
	until(healthv1.HealthCheckResponse_NOT_SERVING)

	s1, err := reflectionv1.NewServerReflectionClient(cc).ServerReflectionInfo(ctxOf(t))
	require.NoError(t, err)
	require.NoError(t, s1.Send(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "log.v1.Log"}}))
	got, err := s1.Recv()
	require.NoError(t, err)
	require.NotEmpty(t, got.GetFileDescriptorResponse().GetFileDescriptorProto())
	s0, err := reflectionv1alpha.NewServerReflectionClient(cc).ServerReflectionInfo(ctxOf(t))
	require.NoError(t, err)
	require.NoError(t, s0.Send(&reflectionv1alpha.ServerReflectionRequest{
		MessageRequest: &reflectionv1alpha.ServerReflectionRequest_ListServices{}}))
	list, err := s0.Recv()
	require.NoError(t, err)
	var names []string
	for _, s := range list.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	require.Subset(t, names, []string{"log.v1.Log", "node.v1.Node", "grpc.health.v1.Health"})
}

// A proxy says which cluster it takes the node for one of. Behind the address of a node
// that it knew there may be one of another cluster.
func TestACallMeantForAnotherClusterIsRefused(t *testing.T) {
	r := start(t)
	p := r.proxy()
	calls := map[string]func(ctx context.Context) error{
		"Append": func(ctx context.Context) error {
			s, err := p.Append(ctx)
			require.NoError(t, err)
			_, err = s.Recv()
			return err
		},
		"Fetch": func(ctx context.Context) error {
			_, err := p.Fetch(ctx, &nodev1.FetchRequest{MaxBytes: 1, WaitMs: 1})
			return err
		},
		"FetchStream": func(ctx context.Context) error {
			s, err := p.FetchStream(ctx, &nodev1.FetchRequest{MaxBytes: 1})
			require.NoError(t, err)
			_, err = s.Recv()
			return err
		},
	}
	for name, call := range calls {
		meant := metadata.AppendToOutgoingContext(ctxOf(t), "logd-cluster", "00000000-3b7e-4d46-9f0c-2a4f5b1f7a10")
		require.Equal(t, apierr.ReasonDraining, apierr.ReasonOf(call(meant)), name)
	}
	for _, md := range [][]string{nil, {"logd-cluster", cluster}} {
		_, err := p.Stats(metadata.AppendToOutgoingContext(ctxOf(t), md...), &nodev1.StatsRequest{})
		require.NoError(t, err)
	}
	// On the way into a cluster it is of none yet.
	r.set(func(v *replica.View) { v.ClusterID = "" })
	_, err := p.Stats(metadata.AppendToOutgoingContext(ctxOf(t), "logd-cluster", cluster), &nodev1.StatsRequest{})
	require.NoError(t, err)
}
