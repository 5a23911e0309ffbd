package forward_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/proxy/forward"
	"github.com/logd-io/logd/pkg/proxy/route"
)

// trivialLeader acknowledges at once and serves one batch for ever: what is
// measured is the proxy and gRPC.
type trivialLeader struct {
	nodev1.UnimplementedNodeServer
	logv1.UnimplementedLogServer
	next    atomic.Uint64
	records []byte
	count   uint32
}

func (l *trivialLeader) Append(s grpc.BidiStreamingServer[nodev1.AppendRequest, nodev1.AppendResponse]) error {
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		first := l.next.Add(uint64(r.Count)) - uint64(r.Count)
		if err := s.Send(&nodev1.AppendResponse{FirstSequence: r.FirstSequence, FirstOffset: first, Count: r.Count}); err != nil {
			return err
		}
	}
}

func (l *trivialLeader) Produce(context.Context, *logv1.ProduceRequest) (*logv1.ProduceResponse, error) {
	return &logv1.ProduceResponse{Offset: l.next.Add(1) - 1}, nil
}

func (l *trivialLeader) FetchStream(r *nodev1.FetchRequest, s grpc.ServerStreamingServer[nodev1.FetchResponse]) error {
	for at := r.Offset; ; at += uint64(l.count) {
		err := s.Send(&nodev1.FetchResponse{Batches: []*nodev1.Batch{{FirstOffset: at, Count: l.count, Records: l.records}}})
		if err != nil {
			return err
		}
	}
}

type benchNode struct{ conn *grpc.ClientConn }

func (benchNode) ID() string                       { return "a" }
func (benchNode) InFlight() int64                  { return 0 }
func (benchNode) Addr() string                     { return "" }
func (n benchNode) Conn() grpc.ClientConnInterface { return n.conn }
func (benchNode) Acquire() func()                  { return func() {} }
func (benchNode) Answered()                        {}

func serve(b *testing.B, s *grpc.Server) *grpc.ClientConn {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	go func() { _ = s.Serve(lis) }()
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(b, err)
	b.Cleanup(func() { _ = conn.Close(); s.Stop() })
	return conn
}

// benchPair is a client straight to the leader, and one through a proxy.
func benchPair(b *testing.B) (direct, through logv1.LogClient) {
	l := &trivialLeader{count: 200}
	for range l.count {
		l.records = append(append(l.records, 102, 0x0a, 100), make([]byte, 100)...)
	}
	up := grpc.NewServer()
	nodev1.RegisterNodeServer(up, l)
	logv1.RegisterLogServer(up, l)
	conn := serve(b, up)
	var h route.Holder
	h.Publish(route.New(route.Spec{ClusterID: clusterID, Term: 1, Leader: benchNode{conn}}))
	fwd, err := forward.New(forward.Config{Holder: &h})
	require.NoError(b, err)
	down := grpc.NewServer(forward.ServerCodec())
	fwd.Register(down)
	b.Cleanup(func() { require.NoError(b, fwd.Close()) })
	return logv1.NewLogClient(conn), logv1.NewLogClient(serve(b, down))
}

func BenchmarkProduce(b *testing.B) {
	for _, clients := range []int{1, 64, 256} {
		for _, way := range []string{"direct", "proxy"} {
			b.Run(fmt.Sprintf("clients=%d/%s", clients, way), func(b *testing.B) {
				direct, through := benchPair(b)
				client := direct
				if way == "proxy" {
					client = through
				}
				req := rec(string(make([]byte, 100)))
				_, err := client.Produce(context.Background(), req)
				require.NoError(b, err)
				b.ReportAllocs()
				var left atomic.Int64
				left.Store(int64(b.N))
				b.ResetTimer()
				var wg sync.WaitGroup
				for range clients {
					wg.Go(func() {
						for left.Add(-1) >= 0 {
							if _, err := client.Produce(context.Background(), req); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
			})
		}
	}
}

func BenchmarkProduceStream(b *testing.B) {
	_, client := benchPair(b)
	s, err := client.ProduceStream(context.Background())
	require.NoError(b, err)
	req := rec(string(make([]byte, 100)))
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		for range b.N {
			if s.Send(req) != nil {
				return
			}
		}
		_ = s.CloseSend()
	}()
	for range b.N {
		_, err := s.Recv()
		require.NoError(b, err)
	}
}

func BenchmarkConsumeStream(b *testing.B) {
	_, client := benchPair(b)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := client.ConsumeStream(ctx, &logv1.ConsumeRequest{})
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		_, err := s.Recv()
		require.NoError(b, err)
	}
}
