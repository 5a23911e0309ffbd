package e2e_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/harness"
	"github.com/logd-io/logd/test/history"
)

// gauge is a value on a process's /metrics.
func (w *world) gauge(admin, name string) float64 {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, "http://"+admin+"/metrics", nil)
	require.NoError(w.t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(w.t, err)
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			f, err := strconv.ParseFloat(v, 64)
			require.NoError(w.t, err)
			return f
		}
	}
	require.Fail(w.t, "no such metric", "%s on %s", name, admin)
	return 0
}

// TestManyStreams opens hundreds of idle tails, and readers that never read, takes
// the leader away from them, and has clients leave in every phase of a call. The
// proxy's memory stays bounded, every tail goes on, and when all have gone nothing
// of them is left in the proxy or in a node.
func TestManyStreams(t *testing.T) {
	w := start(t)
	r := history.NewRecorder()
	big, quiet := w.recorded(r, "big", w.proxy, ""), w.recorded(r, "quiet", w.proxy, "")
	fill := logv1.NewLogClient(big)
	s, err := fill.ProduceStream(w.ctx)
	require.NoError(t, err)
	const bigs = 64
	value := make([]byte, 1<<20-8<<10)
	for range bigs {
		require.NoError(t, s.Send(&logv1.ProduceRequest{Record: &logv1.Record{Value: value}}))
	}
	require.NoError(t, s.CloseSend())
	for range bigs {
		_, err := s.Recv()
		require.NoError(t, err)
	}
	before := w.gauge(w.proxy.Admin, "go_goroutines")

	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	var closers []*grpc.ClientConn
	var conns []*history.Conn
	var wg sync.WaitGroup
	defer wg.Wait()
	dial := func() *history.Conn {
		conn, err := harness.Naive(w.proxy.Addr)
		require.NoError(t, err)
		closers = append(closers, conn)
		conns = append(conns, r.Conn(conn, history.Who{Name: fmt.Sprint("client ", len(conns)), Session: w.proxy.Name}))
		return conns[len(conns)-1]
	}
	const idle, deaf = 500, 40
	reached := make(chan error, idle)
	for range idle / 50 {
		conn := dial()
		for range 50 {
			wg.Go(func() {
				reached <- harness.Tail(ctx, conn, bigs, func(rec *logv1.Record) bool { return rec.GetOffset() < bigs+1 })
			})
		}
	}
	for range deaf {
		stream, err := logv1.NewLogClient(dial()).ConsumeStream(ctx, &logv1.ConsumeRequest{})
		require.NoError(t, err)
		_, err = stream.Header()
		require.NoError(t, err)
	}
	one := func() {
		_, err := logv1.NewLogClient(quiet).Produce(w.ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte("small")}})
		require.NoError(t, err)
	}
	one()
	begun := time.Now()
	leader := w.leader()
	require.NoError(t, leader.Kill())
	one()
	t.Logf("%s without a leader, with %d idle streams and %d that do not read", time.Since(begun).Round(time.Millisecond), idle, deaf)
	for range idle {
		require.NoError(t, <-reached)
	}
	rss := w.gauge(w.proxy.Admin, "process_resident_memory_bytes")
	t.Logf("the proxy has %.0f MiB resident", rss/(1<<20))
	if !raceEnabled {
		require.Less(t, rss, float64(deaf*5<<20+100<<20), "a stream that is not read holds no more than its windows")
	}
	require.NoError(t, leader.Process.Start())
	require.NoError(t, w.NodeReady(w.ctx, leader))

	// Clients that leave at any moment of any call.
	var leaving sync.WaitGroup
	for i := range 32 {
		conn := conns[i%len(conns)]
		leaving.Go(func() {
			client := logv1.NewLogClient(conn)
			for range 30 {
				call, gone := context.WithTimeout(ctx, rand.N(20*time.Millisecond))
				switch rand.IntN(5) {
				case 0:
					_, _ = client.Produce(call, &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte("left")}})
				case 1:
					_, _ = client.Consume(call, &logv1.ConsumeRequest{Offset: bigs + uint64(rand.IntN(1000))})
				case 2:
					if s, err := client.ConsumeStream(call, &logv1.ConsumeRequest{Offset: bigs}); err == nil {
						_, _ = s.Recv()
					}
				case 3:
					if s, err := client.ProduceStream(call); err == nil {
						for s.Send(&logv1.ProduceRequest{Record: &logv1.Record{Value: []byte("left")}}) == nil {
						}
					}
				case 4:
					_, _ = client.GetOffsets(call, &logv1.GetOffsetsRequest{})
				}
				gone()
			}
		})
	}
	leaving.Wait()
	one()
	cancel()
	wg.Wait()
	for _, conn := range closers {
		require.NoError(t, conn.Close())
	}
	w.until("nothing is left of the clients", func() error {
		for _, n := range w.Nodes {
			if left := w.gauge(n.Admin, "go_goroutines"); left > 250 {
				return fmt.Errorf("%s has %.0f goroutines", n.Name, left)
			}
		}
		if left := w.gauge(w.proxy.Admin, "go_goroutines"); left > before+30 {
			return fmt.Errorf("the proxy has %.0f goroutines, %.0f before", left, before)
		}
		return nil
	})
	one()
	// What is frozen in the proxy may still be on its way when its client has left: its
	// log ends for us with a record that comes after.
	resp, err := logv1.NewLogClient(quiet).Produce(w.ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte("last")}})
	require.NoError(t, err)
	w.verify(r, bigs, resp.GetOffset()+1)
}
