package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"hash/crc64"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/harness"
)

// movingTail is a stream that is to notice nothing: what it has read, and why it ended.
type movingTail struct {
	next atomic.Uint64 // the offset after the last one it has read
	sum  atomic.Uint64 // of all values up to there
	err  chan error    // room for the one
}

var crcTable = crc64.MakeTable(crc64.ECMA)

func sum(s uint64, value []byte) uint64 { return crc64.Update(s, crcTable, value) }

// TestStreamsMove has streams move from node to node, because nodes are killed,
// stopped and drained, because leaders change, and, in a long run, because connections
// have reached their age. Some of the streams share one fetch, the others have their own. None
// sees an error, a gap or a duplicate, and all have read the same as is in the log.
//
// LOGD_MOVES=1000 goes on until there have been so many moves; without it the test
// lasts 20 seconds. LOGD_MOVES_SEED repeats a run's order of events.
func TestStreamsMove(t *testing.T) {
	const sharing, alone = 10, 30
	length, moves, limit := 20*time.Second, 0.0, 4*time.Minute
	if v := os.Getenv("LOGD_MOVES"); v != "" {
		n, err := strconv.Atoi(v)
		require.NoError(t, err)
		length, moves, limit = 0, float64(n), time.Hour
	}
	seed := uint64(time.Now().UnixNano())
	if v := os.Getenv("LOGD_MOVES_SEED"); v != "" {
		var err error
		seed, err = strconv.ParseUint(v, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("LOGD_MOVES_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))

	w := prepareFor(t, nil, limit)
	for _, n := range w.Nodes {
		setting(t, n, "limits { connection_age = \"5s\" }\n")
	}
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))

	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var streams []*movingTail
	conn := w.naive()
	for i := range sharing + alone {
		ctx := ctx
		if i >= sharing { // streams with different keys do not share
			ctx = metadata.AppendToOutgoingContext(ctx, "logd-routing-key", strconv.Itoa(i))
		}
		m := &movingTail{err: make(chan error, 1)}
		streams = append(streams, m)
		wg.Go(func() {
			m.err <- harness.Tail(ctx, conn, 0, func(rec *logv1.Record) bool {
				m.sum.Store(sum(m.sum.Load(), rec.GetValue()))
				m.next.Store(rec.GetOffset() + 1)
				return true
			})
		})
	}
	ended := func() error {
		for i, m := range streams {
			select {
			case err := <-m.err:
				return harness.Ended(fmt.Errorf("stream %d, at %d: %w", i, m.next.Load(), err))
			default:
			}
		}
		return nil
	}

	// A record every few milliseconds.
	var acked atomic.Uint64
	stop, stopped := make(chan struct{}), make(chan error, 1)
	wg.Go(func() {
		client := logv1.NewLogClient(w.naive())
		for i := 0; ; i++ {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			resp, err := client.Produce(ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte(strconv.Itoa(i))}})
			if err == nil && resp.GetOffset() != uint64(i) {
				err = fmt.Errorf("record %d is at %d", i, resp.GetOffset())
			}
			if err != nil {
				stopped <- err
				return
			}
			acked.Store(resp.GetOffset() + 1)
			rest(ctx, 5*time.Millisecond)
		}
	})

	moved := func() float64 { return w.gauge(w.proxy.Admin, "logproxy_forward_stream_resumes_total") }
	count, events := map[string]float64{}, map[string]int{}
	for end := time.Now().Add(length); time.Now().Before(end) || moved() < moves; {
		before := moved()
		n := w.Nodes[rng.IntN(len(w.Nodes))]
		down := time.Duration(rng.IntN(1000)) * time.Millisecond
		kind := []string{"killed", "stopped", "drained", "leader changed", "aged"}[rng.IntN(5)]
		switch kind {
		case "killed":
			require.NoError(t, n.Kill())
			w.pause(down)
			require.NoError(t, n.Process.Start())
		case "stopped":
			w.stopped(time.Second+down, n.Process)
		case "drained":
			ctx, cancel := context.WithTimeout(w.ctx, patience)
			require.NoError(t, n.Stop(ctx))
			cancel()
			require.NoError(t, n.Process.Start())
		case "leader changed":
			w.depose(rng)
		case "aged":
			// A node lets the streams of a connection past its age be for a minute, so
			// only a long run has the time, once.
			if moves > 0 && events[kind] == 0 {
				w.until("a connection has reached its age", func() error {
					if moved() == before {
						return errors.New("no stream has moved")
					}
					return nil
				})
			}
		}
		w.until(n.Name+" is ready", func() error { return errors.Join(ended(), w.NodeReady(w.ctx, n)) })
		want := acked.Load()
		w.until("the streams have got on", func() error {
			for i, m := range streams {
				if at := m.next.Load(); at < want {
					return errors.Join(ended(), fmt.Errorf("stream %d is at %d of %d", i, at, want))
				}
			}
			return ended()
		})
		events[kind]++
		count[kind] += moved() - before
	}
	close(stop)
	require.NoError(t, <-stopped)
	next := acked.Load()
	recs, err := w.ReadNode(w.ctx, w.leader(), next)
	require.NoError(t, err)
	want := uint64(0)
	for _, rec := range recs {
		want = sum(want, rec.GetValue())
	}
	w.until("all streams have all", func() error {
		for i, m := range streams {
			if at := m.next.Load(); at < next {
				return errors.Join(ended(), fmt.Errorf("stream %d is at %d of %d", i, at, next))
			}
		}
		return ended()
	})
	for i, m := range streams {
		require.Equal(t, next, m.next.Load(), "stream %d", i)
		require.Equal(t, want, m.sum.Load(), "stream %d", i)
	}
	require.Zero(t, w.gauge(w.proxy.Admin, "logproxy_forward_stream_resume_failed_total"))
	require.EqualValues(t, sharing+alone, w.gauge(w.proxy.Admin, "logproxy_forward_tails"))
	w.until("the streams share", func() error {
		if n := w.gauge(w.proxy.Admin, "logproxy_forward_tail_fetches"); n != alone+1 {
			return fmt.Errorf("%v fetches", n)
		}
		return nil
	})
	t.Logf("%d records, %.0f moves of %d fetches (%d streams); events %v, moves while they went on %v; %.0f stalls",
		next, moved(), alone+1, sharing+alone, events, count, w.gauge(w.proxy.Admin, "logproxy_forward_stream_stalls_total"))
}
