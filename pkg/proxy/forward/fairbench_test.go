package forward_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/proxy/forward"
	"github.com/logd-io/logd/pkg/proxy/route"
)

// syncingLeader acknowledges what it has received together, after the time that a
// disk and a round trip take, and what it has of bytes at the speed of a disk.
type syncingLeader struct {
	nodev1.UnimplementedNodeServer
	batches atomic.Int64
	mu      sync.Mutex
	next    uint64
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
			l.batches.Add(1)
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

// fairWorld is a leader and a proxy before it, and a client that produces one small
// record at a time there.
type fairWorld struct {
	leader         *syncingLeader
	light, flooder *grpc.ClientConn
}

func newFairWorld(b *testing.B) fairWorld {
	up := grpc.NewServer()
	leader := &syncingLeader{}
	nodev1.RegisterNodeServer(up, leader)
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
	b.Cleanup(func() { _ = flooder.Close() })
	return fairWorld{leader, light, flooder}
}

// timings are how long each record took its client, and what the flood got meanwhile.
type timings struct {
	took    []time.Duration
	flooded int64
	during  time.Duration
}

// measure has n records produced one after the other, with pauses of that length on
// average between them.
func (m *timings) measure(t testing.TB, client logv1.LogClient, n int, pause time.Duration, flooded *atomic.Int64) {
	req := rec(string(make([]byte, 100)))
	start, before := time.Now(), flooded.Load()
	for range n {
		if pause > 0 {
			time.Sleep(rand.N(2 * pause))
		}
		begun := time.Now()
		_, err := client.Produce(context.Background(), req)
		require.NoError(t, err)
		m.took = append(m.took, time.Since(begun))
	}
	m.during += time.Since(start)
	m.flooded += flooded.Load() - before
}

// at is the percentile in milliseconds.
func (m *timings) at(percent int) float64 {
	slices.Sort(m.took)
	return float64(m.took[len(m.took)*percent/100].Microseconds()) / 1000
}

// BenchmarkFairness measures a client that produces one record at a time, in turn
// alone, beside others that flood another proxy and another leader in this process
// (apart), and beside others that flood the same proxy for the same principal
// (beside). What the flood costs the client in all is p99-ratio, whose goal is at most
// 3; apart it costs the CPU's time only, since the client, the flood, the proxies and
// the leaders share the CPUs of one process. p99-to-apart is what is left for the
// proxy to answer for.
func BenchmarkFairness(b *testing.B) {
	for _, bc := range []struct {
		name  string
		flood flooding
	}{{"calls", floodCalls(256, 1000)}, {"streams", floodStreams(4, 1000)}} {
		b.Run(bc.name, func(b *testing.B) {
			here, elsewhere := newFairWorld(b), newFairWorld(b)
			light := logv1.NewLogClient(here.light)
			var none atomic.Int64
			new(timings).measure(b, light, 300, 0, &none) // warm
			var alone, apart, beside timings
			flooded := func(w fairWorld, m *timings) {
				ctx, cancel := context.WithCancel(context.Background())
				var wg sync.WaitGroup
				var got atomic.Int64
				bc.flood(ctx, b, logv1.NewLogClient(w.flooder), &got, &wg)
				time.Sleep(100 * time.Millisecond) // until it is at its height
				m.measure(b, light, 300, 0, &got)
				cancel()
				wg.Wait()
			}
			for b.Loop() {
				alone.measure(b, light, 300, 0, &none)
				flooded(elsewhere, &apart)
				flooded(here, &beside)
			}
			for name, m := range map[string]*timings{"alone": &alone, "apart": &apart, "beside": &beside} {
				b.ReportMetric(m.at(50), "p50-"+name+"-ms")
				b.ReportMetric(m.at(99), "p99-"+name+"-ms")
			}
			b.ReportMetric(float64(apart.flooded)/apart.during.Seconds(), "flood-apart/s")
			b.ReportMetric(float64(beside.flooded)/beside.during.Seconds(), "flood-beside/s")
			b.ReportMetric(beside.at(99)/alone.at(99), "p99-ratio")
			b.ReportMetric(beside.at(99)/apart.at(99), "p99-to-apart")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkProduceOfMany is of clients that all want the same, calls on eight
// connections, before a leader with a disk.
func BenchmarkProduceOfMany(b *testing.B) {
	for _, calls := range []int{64, 256} {
		b.Run(fmt.Sprintf("calls=%d", calls), func(b *testing.B) {
			w := newFairWorld(b)
			var clients []logv1.LogClient
			for range 8 {
				conn, err := grpc.NewClient(w.light.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()))
				require.NoError(b, err)
				defer conn.Close()
				clients = append(clients, logv1.NewLogClient(conn))
			}
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			var got atomic.Int64
			for _, client := range clients {
				floodCalls(calls/len(clients), 1000)(ctx, b, client, &got, &wg)
			}
			time.Sleep(1200 * time.Millisecond) // each was light until it had its calls under way
			begun, before, batches := time.Now(), got.Load(), w.leader.batches.Load()
			for got.Load() < before+int64(b.N) {
				time.Sleep(10 * time.Millisecond)
			}
			n := float64(got.Load() - before)
			b.ReportMetric(n/time.Since(begun).Seconds(), "records/s")
			b.ReportMetric(n/float64(w.leader.batches.Load()-batches), "records/batch")
			b.ReportMetric(0, "ns/op")
			cancel()
			wg.Wait()
		})
	}
}

// flooding sends all it can until ctx ends, and counts what it got acknowledged.
type flooding func(ctx context.Context, t testing.TB, client logv1.LogClient, got *atomic.Int64, wg *sync.WaitGroup)

// floodCalls is n calls at a time on one connection, each with those keys as metadata, and
// a value of its own.
func floodCalls(n, size int, keys ...string) flooding {
	return func(ctx context.Context, _ testing.TB, client logv1.LogClient, got *atomic.Int64, wg *sync.WaitGroup) {
		req := rec(string(make([]byte, size)))
		for i := range n {
			wg.Go(func() {
				for j := 0; ctx.Err() == nil; j++ {
					call := ctx
					for _, k := range keys {
						call = metadata.AppendToOutgoingContext(ctx, k, fmt.Sprint(i, "/", j))
					}
					if _, err := client.Produce(call, req); err == nil {
						got.Add(1)
					}
				}
			})
		}
	}
}

// floodStreams is n streams that send as fast as they are let.
func floodStreams(n, size int) flooding {
	return func(ctx context.Context, t testing.TB, client logv1.LogClient, got *atomic.Int64, wg *sync.WaitGroup) {
		req := rec(string(make([]byte, size)))
		for range n {
			s, err := client.ProduceStream(ctx)
			require.NoError(t, err)
			wg.Go(func() {
				for s.Send(req) == nil {
				}
			})
			wg.Go(func() {
				for {
					if _, err := s.Recv(); err != nil {
						return
					}
					got.Add(1)
				}
			})
		}
	}
}
