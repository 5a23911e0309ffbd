package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/harness"
)

// twins starts a cluster and two proxies of one principal, with a client of each.
func twins(t *testing.T) (w *world, proxies [2]*harness.Proxy, clients [2]logv1.LogClient) {
	w = prepare(t, nil)
	for i := range proxies {
		p, err := w.AddProxy("principal = \"app\"\n")
		require.NoError(t, err)
		conn, err := harness.Naive(p.Addr)
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		proxies[i], clients[i] = p, logv1.NewLogClient(conn)
	}
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))
	return w, proxies, clients
}

// P3: proxies are killed under load, again and again. Clients that name their
// requests repeat what they have heard nothing of, through whichever proxy, until they
// have: each record is in the log once, where its client was told, and in its order.
func TestProxiesKilledUnderLoad(t *testing.T) {
	t.Parallel()
	w, proxies, clients := twins(t)
	const producers = 16
	var repeated atomic.Int64
	acked := make([][]uint64, producers)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			try := p
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				for first := true; ; first = false {
					ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
					ctx = metadata.AppendToOutgoingContext(ctx, "logd-request-id", fmt.Sprintf("%d/%d", p, i))
					resp, err := clients[try%2].Produce(ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: harness.Value(uint64(p)<<32|uint64(i), nil)}})
					cancel()
					if !first {
						repeated.Add(1)
					}
					if err == nil {
						acked[p] = append(acked[p], resp.GetOffset())
						break
					}
					if w.ctx.Err() != nil {
						t.Errorf("producer %d, record %d: %v", p, i, err)
						return
					}
					try++
				}
			}
		})
	}
	for round := range 8 {
		w.pause(300*time.Millisecond + rand.N(700*time.Millisecond))
		require.NoError(t, proxies[round%2].Kill())
		w.pause(rand.N(300 * time.Millisecond))
		require.NoError(t, proxies[round%2].Start())
		require.NoError(t, w.ProxyReady(w.ctx, proxies[round%2]))
	}
	close(stop)
	wg.Wait()
	require.Positive(t, repeated.Load(), "no call was under way when its proxy was killed")

	next := w.logEnd("client")
	total := 0
	for p, offsets := range acked {
		total += len(offsets)
		for i := 1; i < len(offsets); i++ {
			require.Less(t, offsets[i-1], offsets[i], "producer %d", p)
		}
	}
	require.EqualValues(t, total, next, "the log has what was acknowledged, and nothing twice")
	for _, n := range w.Nodes {
		err := harness.Tail(w.ctx, w.dial("client", n), 0, func(rec *logv1.Record) bool {
			num, err := harness.Number(rec.GetValue())
			require.NoError(t, err, n.Name)
			require.Equal(t, acked[num>>32][uint32(num)], rec.GetOffset(), "%s: record %d of producer %d", n.Name, uint32(num), num>>32)
			return rec.GetOffset()+1 < next
		})
		require.NoError(t, err, n.Name)
	}
	t.Logf("%d records of %d producers, %d calls repeated", total, producers, repeated.Load())
}

// Where P3 ends: a client that names no request, and repeats one whose answer died with
// its proxy, has it in the log twice. README says so.
func TestWithoutARequestIDAtLeastOnce(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	require.Contains(t, strings.Join(strings.Fields(string(readme)), " "),
		"without one, and with the answer lost because the proxy died, at least once")

	w, proxies, clients := twins(t)
	conn, deaf := w.hardOfHearing(proxies[0].Addr)
	lost := logv1.NewLogClient(conn)
	rec := &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte("once or twice")}}
	_, err = lost.Produce(w.ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte("first")}}, grpc.WaitForReady(true))
	require.NoError(t, err)
	deaf.Store(true)
	ctx, cancel := context.WithCancel(w.ctx)
	heard := make(chan error, 1)
	go func() {
		_, err := lost.Produce(ctx, rec)
		heard <- err
	}()
	w.until("the record is committed", func() error {
		if st, err := w.Stats(w.ctx, w.leader()); err != nil || st.GetVisible() > 1 {
			return err
		}
		return errors.New("it is not")
	})
	require.NoError(t, proxies[0].Kill())
	cancel()
	require.Error(t, <-heard, "its answer was lost")
	resp, err := clients[1].Produce(w.ctx, rec)
	require.NoError(t, err)
	require.EqualValues(t, 2, resp.GetOffset())
	for offset := range uint64(2) {
		got, err := clients[1].Consume(w.ctx, &logv1.ConsumeRequest{Offset: 1 + offset, Linearizable: true})
		require.NoError(t, err)
		require.Equal(t, "once or twice", string(got.GetRecord().GetValue()))
	}
}
