package e2e_test

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/test/harness"
	"github.com/logd-io/logd/test/history"
)

// TestProxyDrains ends a proxy with SIGTERM under load. What was under way is
// answered, streams end with a word that says why, and what clients were told is
// true: no record they hear nothing of but those whose call met a closed door.
func TestProxyDrains(t *testing.T) {
	t.Parallel()
	w := start(t)
	p, err := w.AddProxy("principal = \"app\"\ndrain_timeout = \"500ms\"\n")
	require.NoError(t, err)
	require.NoError(t, p.Process.Start())
	require.NoError(t, w.ProxyReady(w.ctx, p))

	r, l := history.NewRecorder(), newLedger()
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	dial := func(name string) logv1.LogClient { return logv1.NewLogClient(w.recorded(r, name, p, app)) }
	for i := range 16 {
		client := dial(fmt.Sprint("unary ", i))
		wg.Go(func() {
			for n := uint64(i) << 32; ctx.Err() == nil; n++ {
				_, err := client.Produce(w.ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: harness.Value(n, nil)}})
				if status.Code(err) != codes.Unavailable {
					l.note(err)
				}
				if err != nil {
					return
				}
			}
		})
	}
	produceEnded, tailEnded := make(chan error, 1), make(chan error, 1)
	client := dial("streams")
	wg.Go(func() {
		s, err := client.ProduceStream(ctx)
		if err != nil {
			produceEnded <- err
			return
		}
		for n := uint64(1000) << 32; ; n++ {
			if err = s.Send(&logv1.ProduceRequest{Record: &logv1.Record{Value: harness.Value(n, nil)}}); err != nil {
				_, err = s.Recv()
				produceEnded <- err
				return
			}
			if _, err := s.Recv(); err != nil {
				produceEnded <- err
				return
			}
			l.note(nil)
		}
	})
	wg.Go(func() {
		s, err := client.ConsumeStream(ctx, &logv1.ConsumeRequest{})
		for err == nil {
			_, err = s.Recv()
		}
		tailEnded <- err
	})
	w.until("traffic", func() error {
		if n := l.count(acknowledged); n < 1000 {
			return fmt.Errorf("%d records", n)
		}
		return nil
	})
	begun := time.Now()
	require.NoError(t, p.Signal(syscall.SIGTERM))
	for name, ended := range map[string]chan error{"produce stream": produceEnded, "tail": tailEnded} {
		require.Equal(t, apierr.ReasonDraining, apierr.ReasonOf(<-ended), name)
	}
	code, err := p.Wait(w.ctx)
	require.NoError(t, err)
	require.Zero(t, code, p.Tail(20))
	t.Logf("drained in %s", time.Since(begun).Round(time.Millisecond))
	cancel()
	wg.Wait()
	require.Empty(t, l.wrong)

	next := w.logEnd("client")
	_, report := w.verify(r, 0, next)
	require.Equal(t, report.Acked, report.Records, "every record in the log was acknowledged before the proxy went")
}

// TestProxyDrainsWithoutALeader: a proxy that holds records nobody takes and is asked
// by command to drain ends in time, and tells that they were not sent.
func TestProxyDrainsWithoutALeader(t *testing.T) {
	w := start(t)
	p, err := w.AddProxy("drain_timeout = \"500ms\"\n")
	require.NoError(t, err)
	require.NoError(t, p.Process.Start())
	require.NoError(t, w.ProxyReady(w.ctx, p))
	conn, err := harness.Naive(p.Addr)
	require.NoError(t, err)
	defer conn.Close()
	client := logv1.NewLogClient(conn)
	_, err = client.Produce(w.ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: harness.Value(0, nil)}})
	require.NoError(t, err)
	for _, n := range w.Nodes {
		require.NoError(t, n.Kill())
	}
	ended := make(chan error, 32)
	for range cap(ended) {
		go func() { // joined by reading ended
			_, err := client.Produce(w.ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: harness.Value(1, nil)}})
			ended <- err
		}()
	}
	w.until("records held", func() error {
		if n := w.gauge(p.Admin, "logproxy_forward_produce_records_held"); n < float64(cap(ended)) {
			return fmt.Errorf("%.0f held", n)
		}
		return nil
	})
	status, out := command(t, "logproxy", "drain", "-timeout", "10s", "-admin", p.Admin)
	require.Zero(t, status, out)
	require.Contains(t, out, "The proxy has stopped.")
	code, err := p.Wait(w.ctx)
	require.NoError(t, err, p.Tail(20))
	require.Zero(t, code)
	for range cap(ended) {
		err := <-ended
		require.Contains(t, []apierr.Reason{apierr.ReasonDraining, apierr.ReasonNotSent}, apierr.ReasonOf(err), "%v", err)
	}
}
