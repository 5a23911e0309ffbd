package server_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/internal/throttle"
	"github.com/logd-io/logd/pkg/server"
	"github.com/logd-io/logd/pkg/tlsconf"
)

const mib = 1 << 20

// large is nearly a MiB, as much as a record may be.
var large = string(make([]byte, mib-8<<10))

// rated is a server on which a principal has rates.
func rated(t *testing.T, rates throttle.Rates) (*rig, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	return start(t, func(c *server.Config) { c.Rates, c.Registerer = rates, reg }), reg
}

func throttled(t *testing.T, reg *prometheus.Registry, limit, outcome string) (n float64) {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != "logd_throttled_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == limit && m.GetLabel()[1].GetValue() == outcome {
				n = m.GetCounter().GetValue()
			}
		}
	}
	return n
}

func requireOverloaded(t *testing.T, err error) time.Duration {
	t.Helper()
	require.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)
	require.Equal(t, apierr.ReasonOverloaded, apierr.ReasonOf(err))
	info, _ := apierr.From(err)
	require.Positive(t, info.RetryAfter())
	return info.RetryAfter()
}

func TestRequestRate(t *testing.T) {
	r, reg := rated(t, throttle.Rates{Requests: 20})
	app := r.client()
	taken := 0
	var refusal error
	for range 1000 {
		if _, refusal = app.Produce(ctxOf(t), &logv1.ProduceRequest{Record: &logv1.Record{}}); refusal != nil {
			break
		}
		taken++
	}
	requireOverloaded(t, refusal)
	require.ErrorContains(t, refusal, "request_rate")
	require.GreaterOrEqual(t, taken, 20)
	require.Equal(t, taken, r.count(), "what was refused has not been submitted")
	require.Positive(t, throttled(t, reg, "request_rate", "refused"))

	// Whose rate it is not: other clients, operators, a proxy's own calls.
	_, err := logv1.NewLogClient(r.dial(tlsconf.RoleClient, "other")).Produce(ctxOf(t), &logv1.ProduceRequest{Record: &logv1.Record{}})
	require.NoError(t, err)
	admin := nodev1.NewNodeClient(r.dial(tlsconf.RoleAdmin, "ops"))
	own := nodev1.NewNodeClient(r.dial(tlsconf.RoleProxy, "p1"))
	for range 50 {
		_, err = admin.Stats(ctxOf(t), &nodev1.StatsRequest{})
		require.NoError(t, err)
		_, err = own.Stats(ctxOf(t), &nodev1.StatsRequest{})
		require.NoError(t, err)
	}
	// Whose it is, by whatever way in.
	proxied := r.proxyFor("p1", "app")
	r.put("x")
	testutil.Eventually(t, 20*time.Second, func() error {
		_, err := proxied.Fetch(ctxOf(t), &nodev1.FetchRequest{})
		if err == nil {
			return errors.New("not refused")
		}
		requireOverloaded(t, err)
		return nil
	})
}

// A call with too much is refused before anything of it is submitted, and gets in when
// it was told to come again.
func TestProduceRateOfCalls(t *testing.T) {
	r, _ := rated(t, throttle.Rates{Produce: 4 * mib})
	app := r.client()
	taken := 0
	for {
		_, err := app.Produce(ctxOf(t), &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte(large)}})
		if err != nil {
			require.ErrorContains(t, err, "produce_rate")
			require.Equal(t, taken, r.count())
			timer := time.NewTimer(requireOverloaded(t, err))
			<-timer.C
			break
		}
		taken++
	}
	require.GreaterOrEqual(t, taken, 4)
	_, err := app.Produce(ctxOf(t), &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte(large)}})
	require.NoError(t, err)
}

// Streams with too much wait: all of it is submitted, in its order, and another
// principal on the same proxy's connection notices nothing.
func TestProduceRateOfStreams(t *testing.T) {
	const batches = 12
	r, reg := rated(t, throttle.Rates{Produce: 4 * mib})
	begun := time.Now()
	stream := r.append()
	sent := make(chan error, 1)
	go func() {
		for i := range batches {
			if err := stream.Send(batch(uint64(i), large)); err != nil {
				sent <- err
				return
			}
		}
		sent <- stream.CloseSend()
	}()
	testutil.Eventually(t, 20*time.Second, func() error {
		if throttled(t, reg, "produce_rate", "waited") == 0 {
			return errors.New("it does not wait")
		}
		return nil
	})
	before := r.count()
	bob, err := r.proxyFor("p1", "bob").Append(ctxOf(t))
	require.NoError(t, err)
	for i := range 3 {
		require.NoError(t, bob.Send(batch(uint64(i), "b")))
		_, err := bob.Recv()
		require.NoError(t, err)
	}
	require.Less(t, before, batches)
	for i := range batches {
		ack, err := stream.Recv()
		require.NoError(t, err)
		require.EqualValues(t, i, ack.GetFirstSequence())
	}
	_, err = stream.Recv()
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, <-sent)
	require.GreaterOrEqual(t, time.Since(begun), time.Second, "4 of nearly 12 MiB in store, 4 a second")
	require.Zero(t, throttled(t, reg, "produce_rate", "refused"))

	direct, err := r.client().ProduceStream(ctxOf(t))
	require.NoError(t, err)
	for range 6 {
		require.NoError(t, direct.Send(&logv1.ProduceRequest{Record: &logv1.Record{Value: []byte(large)}}))
	}
	for range 6 {
		_, err := direct.Recv()
		require.NoError(t, err)
	}
}

// A batch that would wait for so long that a proxy takes its leader for dead is
// refused, and with it what is behind it: there is no gap, and the same sequence is
// taken later.
func TestProduceRateLeavesNoGap(t *testing.T) {
	r, reg := rated(t, throttle.Rates{Produce: mib})
	stream := r.append()
	require.NoError(t, stream.Send(batch(0, large, large, large)))
	_, err := stream.Recv()
	require.NoError(t, err)
	_ = stream.Send(batch(3, large, large, large)) // two seconds too early
	_ = stream.Send(batch(6, "small"))
	_, err = stream.Recv()
	again := requireOverloaded(t, err)
	require.Equal(t, 1, r.count(), "nor is the small one behind it submitted")
	require.EqualValues(t, 1, throttled(t, reg, "produce_rate", "refused"))
	timer := time.NewTimer(again)
	<-timer.C
	stream = r.append()
	for _, b := range []*nodev1.AppendRequest{batch(3, large, large, large), batch(6, "small")} {
		require.NoError(t, stream.Send(b))
		ack, err := stream.Recv()
		require.NoError(t, err)
		require.Equal(t, b.GetFirstSequence(), ack.GetFirstSequence())
	}
}

// A stream that may not have what there is keeps saying that it is alive, and misses
// nothing; single reads are refused meanwhile, and others read on.
func TestConsumeRate(t *testing.T) {
	const records = 10
	r, reg := rated(t, throttle.Rates{Consume: 4 * mib})
	for range records {
		r.put(large)
	}
	proxied := r.proxy() // for alice
	fetch, err := proxied.FetchStream(ctxOf(t), &nodev1.FetchRequest{HeartbeatMs: 50, MaxBytes: 1})
	require.NoError(t, err)
	next, beats := uint64(0), 0
	for next < records {
		resp, err := fetch.Recv()
		require.NoError(t, err)
		if len(resp.GetBatches()) == 0 {
			if beats++; beats == 1 {
				_, err = proxied.Fetch(ctxOf(t), &nodev1.FetchRequest{})
				requireOverloaded(t, err)
				require.ErrorContains(t, err, "consume_rate")
				_, err = r.proxyFor("p1", "bob").Fetch(ctxOf(t), &nodev1.FetchRequest{MaxBytes: 3 * mib})
				require.NoError(t, err)
			}
		}
		for _, b := range resp.GetBatches() {
			require.Equal(t, next, b.GetFirstOffset())
			next += uint64(b.GetCount())
		}
	}
	require.Greater(t, beats, 5, "some 6 MiB more than there was in store")
	require.Positive(t, throttled(t, reg, "consume_rate", "waited"))

	begun := time.Now()
	tail, err := r.client().ConsumeStream(ctxOf(t), &logv1.ConsumeRequest{})
	require.NoError(t, err)
	for i := range uint64(records) {
		resp, err := tail.Recv()
		require.NoError(t, err)
		require.Equal(t, i, resp.GetRecord().GetOffset())
	}
	require.GreaterOrEqual(t, time.Since(begun), 500*time.Millisecond)
}

// A drain does not wait for who waits.
func TestDrainEndsWaits(t *testing.T) {
	r, reg := rated(t, throttle.Rates{Produce: 1024, Consume: 1024})
	for range 6 {
		r.put(large)
	}
	tail, err := r.client().ConsumeStream(ctxOf(t), &logv1.ConsumeRequest{})
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := tail.Recv(); err != nil {
				ended <- err
				return
			}
		}
	}()
	produce, err := r.client().ProduceStream(ctxOf(t))
	require.NoError(t, err)
	for range 5 {
		require.NoError(t, produce.Send(&logv1.ProduceRequest{Record: &logv1.Record{Value: []byte(large)}}))
	}
	testutil.Eventually(t, 20*time.Second, func() error {
		if throttled(t, reg, "produce_rate", "waited") == 0 || throttled(t, reg, "consume_rate", "waited") == 0 {
			return errors.New("they do not wait")
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(t, r.srv.Drain(ctx))
	require.Equal(t, apierr.ReasonDraining, apierr.ReasonOf(<-ended))
	for {
		if _, err = produce.Recv(); err != nil {
			break
		}
	}
	require.Equal(t, apierr.ReasonDraining, apierr.ReasonOf(err))
}
