package forward_test

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/proxy/route"
)

// leadBySyncing makes a syncingLeader the leader that the proxies of c know.
func (c *fakeCluster) leadBySyncing(t testing.TB) {
	lis := bufconn.Listen(1 << 20)
	s := grpc.NewServer(grpc.WaitForHandlers(true))
	nodev1.RegisterNodeServer(s, &syncingLeader{})
	go func() { _ = s.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:///a", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(); s.Stop() })
	c.holder.Publish(route.New(route.Spec{ClusterID: clusterID, Term: 1, Leader: benchNode{conn}}))
}

// Beside clients that send all they can, the p99 of one that produces single records is
// at most three times what it is alone, as far as it depends on the order of things:
// in virtual time nobody waits for a CPU. It is about one sync that is under way and
// its own, each with 64 KiB of the flood. (DESIGN.md F8)
func TestAFloodStarvesNobody(t *testing.T) {
	for name, flood := range map[string]flooding{
		"calls":                    floodCalls(32, 8000),
		"calls with request ids":   floodCalls(64, 1000, "logd-request-id"),
		"a stream":                 floodStreams(1, 1000),
		"four streams":             floodStreams(4, 1000),
		"streams of large records": floodStreams(4, 60000),
		"many streams":             floodStreams(16, 8000),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, "a")
				c.leadBySyncing(t)
				p := newProxy(t, c, nil)
				light := p.another()
				var alone, beside timings
				var got atomic.Int64
				pause := 10 * time.Millisecond
				alone.measure(t, light, 50, pause, &got)
				ctx, cancel := context.WithCancel(context.Background())
				var wg sync.WaitGroup
				flood(ctx, t, p.another(), &got, &wg)
				time.Sleep(100 * time.Millisecond)
				new(timings).measure(t, light, 1, pause, &got) // meets full batches
				beside.measure(t, light, 50, pause, &got)
				cancel()
				wg.Wait()
				t.Logf("p50 %v ms, p99 %v ms alone, %v ms beside", beside.at(50), alone.at(99), beside.at(99))
				require.Less(t, beside.at(99), 3*alone.at(99))
			})
		})
	}
}
