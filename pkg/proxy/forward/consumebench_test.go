package forward_test

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/proxy/forward"
	"github.com/logd-io/logd/pkg/proxy/route"
)

// endless is a node with a log that never ends, encoded beforehand: what is measured
// is gRPC, the proxy and the client. It is paced when more is not nil.
type endless struct {
	nodev1.UnimplementedNodeServer
	logv1.UnimplementedLogServer
	batch  []byte // count records, framed
	count  uint32
	record mem.BufferSlice // one ConsumeResponse
	more   func(at uint64)
}

func newEndless(size, batchBytes int) *endless {
	rec := protowire.AppendBytes([]byte{0x0a}, make([]byte, size))
	l := &endless{}
	for len(l.batch) < batchBytes {
		l.batch = protowire.AppendBytes(l.batch, rec)
		l.count++
	}
	one := protowire.AppendBytes([]byte{0x12}, append(rec, 0x10, 1))
	l.record = mem.BufferSlice{mem.SliceBuffer(one)}
	return l
}

func (l *endless) FetchStream(r *nodev1.FetchRequest, s grpc.ServerStreamingServer[nodev1.FetchResponse]) error {
	for at := r.Offset; ; at += uint64(l.count) {
		if l.more != nil {
			l.more(at)
		}
		err := s.Send(&nodev1.FetchResponse{Batches: []*nodev1.Batch{{FirstOffset: at, Count: l.count, Records: l.batch}}})
		if err != nil {
			return err
		}
	}
}

func (l *endless) ConsumeStream(_ *logv1.ConsumeRequest, s grpc.ServerStreamingServer[logv1.ConsumeResponse]) error {
	for {
		if err := s.SendMsg(ready(l.record)); err != nil {
			return err
		}
	}
}

// ready is a message that is encoded already, and readyCodec sends it.
type ready mem.BufferSlice

type readyCodec struct{ encoding.CodecV2 }

func (c readyCodec) Marshal(v any) (mem.BufferSlice, error) {
	if r, ok := v.(ready); ok {
		return mem.BufferSlice(r), nil
	}
	return c.CodecV2.Marshal(v)
}

func benchConsume(b *testing.B, l *endless) (direct, through *grpc.ClientConn) {
	up := grpc.NewServer(grpc.ForceServerCodecV2(readyCodec{encoding.GetCodecV2(proto.Name)}))
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
	return conn, serve(b, down)
}

// cpu adds what a record costs the whole process, client and node included: on a busy
// machine that says more than the time.
func cpu(b *testing.B) (done func()) {
	used := func() time.Duration {
		var u syscall.Rusage
		require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op") }
}

// BenchmarkTail is one client's stream, through a proxy and straight.
func BenchmarkTail(b *testing.B) {
	for _, size := range []int{100, 1024, 16 << 10} {
		for _, way := range []string{"direct", "proxy"} {
			b.Run(fmt.Sprintf("bytes=%d/%s", size, way), func(b *testing.B) {
				conn, through := benchConsume(b, newEndless(size, 200<<10))
				if way == "proxy" {
					conn = through
				}
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				s, err := logv1.NewLogClient(conn).ConsumeStream(ctx, &logv1.ConsumeRequest{})
				require.NoError(b, err)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				done := cpu(b)
				for b.Loop() {
					_, err := s.Recv()
					require.NoError(b, err)
				}
				done()
			})
		}
	}
}

// BenchmarkFanOut is many clients' streams at the end of one log: what one record
// costs for all of them.
func BenchmarkFanOut(b *testing.B) {
	for _, tails := range []int{1, 50, 500} {
		b.Run(fmt.Sprintf("tails=%d", tails), func(b *testing.B) {
			l := newEndless(100, 1)
			turn := make(chan struct{}, 1)
			var mu sync.Mutex
			var fetches int
			l.more = func(at uint64) {
				if at == 0 {
					mu.Lock()
					fetches++
					mu.Unlock()
				}
				<-turn
			}
			_, conn := benchConsume(b, l)
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
			defer cancel()
			defer close(turn)
			var streams []grpc.ServerStreamingClient[logv1.ConsumeResponse]
			for range tails {
				s, err := logv1.NewLogClient(conn).ConsumeStream(ctx, &logv1.ConsumeRequest{})
				require.NoError(b, err)
				_, err = s.Header()
				require.NoError(b, err)
				streams = append(streams, s)
			}
			b.ReportAllocs()
			done := cpu(b)
			for b.Loop() {
				turn <- struct{}{}
				for _, s := range streams {
					_, err := s.Recv()
					require.NoError(b, err)
				}
			}
			done()
			b.StopTimer()
			cancel()
			b.ReportMetric(float64(fetches), "fetches")
		})
	}
}
