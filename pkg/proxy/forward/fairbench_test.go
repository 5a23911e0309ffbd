package forward_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/proxy/forward"
	"github.com/logd-io/logd/pkg/proxy/route"
)

// syncingLeader acknowledges what it has received together, after the time that a
// disk and a round trip take, and what it has of bytes at the speed of a disk.
type syncingLeader struct {
	nodev1.UnimplementedNodeServer
	mu   sync.Mutex
	next uint64
}

const (
	syncTime       = time.Millisecond
	syncBytesASecs = 200 << 20
)

func (l *syncingLeader) Append(s grpc.BidiStreamingServer[nodev1.AppendRequest, nodev1.AppendResponse]) error {
	reqs := make(chan *nodev1.AppendRequest, 8) // more than a window
	var err error
	go func() { // ends with the stream
		defer close(reqs)
		for {
			var r *nodev1.AppendRequest
			if r, err = s.Recv(); err != nil {
				return
			}
			reqs <- r
		}
	}()
	for r := range reqs {
		together := []*nodev1.AppendRequest{r}
		for len(reqs) > 0 {
			together = append(together, <-reqs)
		}
		bytes := 0
		for _, r := range together {
			bytes += len(r.Records)
		}
		time.Sleep(syncTime + time.Duration(bytes)*time.Second/syncBytesASecs)
		for _, r := range together {
			l.mu.Lock()
			first := l.next
			l.next += uint64(r.Count)
			l.mu.Unlock()
			if err := s.Send(&nodev1.AppendResponse{FirstSequence: r.FirstSequence, FirstOffset: first, Count: r.Count}); err != nil {
				return err
			}
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// BenchmarkFairness measures a client that produces one record at a time, alone and
// beside others that flood the same proxy for the same principal, in turn. p99-ratio
// is what the flood costs it; the goal is at most 3.
func BenchmarkFairness(b *testing.B) {
	for name, flood := range map[string]func(context.Context, *testing.B, logv1.LogClient, *sync.WaitGroup){
		"calls":   floodCalls,
		"streams": floodStreams,
	} {
		b.Run(name, func(b *testing.B) {
			up := grpc.NewServer()
			nodev1.RegisterNodeServer(up, &syncingLeader{})
			var h route.Holder
			h.Publish(route.New(route.Spec{ClusterID: clusterID, Term: 1, Leader: benchNode{serve(b, up)}}))
			fwd, err := forward.New(forward.Config{Holder: &h})
			require.NoError(b, err)
			down := grpc.NewServer(forward.ServerCodec())
			fwd.Register(down)
			b.Cleanup(func() { require.NoError(b, fwd.Close()) })
			light := serve(b, down)
			flooder, err := grpc.NewClient(light.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()))
			require.NoError(b, err)
			defer flooder.Close()

			req := rec(string(make([]byte, 100)))
			measure := func(took []time.Duration) []time.Duration {
				for range 500 {
					begun := time.Now()
					_, err := logv1.NewLogClient(light).Produce(context.Background(), req)
					require.NoError(b, err)
					took = append(took, time.Since(begun))
				}
				return took
			}
			measure(nil) // warm
			var alone, beside []time.Duration
			for b.Loop() {
				alone = measure(alone)
				ctx, cancel := context.WithCancel(context.Background())
				var wg sync.WaitGroup
				flood(ctx, b, logv1.NewLogClient(flooder), &wg)
				beside = measure(beside)
				cancel()
				wg.Wait()
			}
			at := func(d []time.Duration, percent int) float64 {
				slices.Sort(d)
				return float64(d[len(d)*percent/100].Microseconds()) / 1000
			}
			b.ReportMetric(at(alone, 50), "p50-alone-ms")
			b.ReportMetric(at(beside, 50), "p50-beside-ms")
			b.ReportMetric(at(alone, 99), "p99-alone-ms")
			b.ReportMetric(at(beside, 99), "p99-beside-ms")
			b.ReportMetric(at(beside, 99)/at(alone, 99), "p99-ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// floodCalls is 256 calls at a time on one connection.
func floodCalls(ctx context.Context, _ *testing.B, client logv1.LogClient, wg *sync.WaitGroup) {
	req := rec(string(make([]byte, 1000)))
	for range 256 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_, _ = client.Produce(ctx, req)
			}
		})
	}
}

// floodStreams is four streams that send as fast as they are let.
func floodStreams(ctx context.Context, b *testing.B, client logv1.LogClient, wg *sync.WaitGroup) {
	req := rec(string(make([]byte, 1000)))
	for range 4 {
		s, err := client.ProduceStream(ctx)
		require.NoError(b, err)
		wg.Go(func() {
			for s.Send(req) == nil {
			}
		})
		wg.Go(func() {
			for err := error(nil); err == nil; {
				_, err = s.Recv()
			}
		})
	}
}
