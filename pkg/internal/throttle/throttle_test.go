package throttle_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	promtest "github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/internal/throttle"
)

func TestMain(m *testing.M) { testutil.VerifyMain(m) }

const mib = 1 << 20

func made(t *testing.T, r throttle.Rates) (*throttle.Throttle, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	th, err := throttle.New(throttle.Config{Rates: r, Namespace: "x", Registerer: reg})
	require.NoError(t, err)
	return th, reg
}

func after(t *testing.T, err error) time.Duration {
	t.Helper()
	var past *throttle.Error
	require.ErrorAs(t, err, &past)
	return past.After
}

func TestNothingIsBoundedByDefault(t *testing.T) {
	th, reg := made(t, throttle.Rates{})
	for range 1000 {
		require.NoError(t, th.Call("a"))
		require.NoError(t, th.Produce("a", 1<<30))
		require.NoError(t, th.Message(t.Context(), "a", 1<<30, 0))
		require.NoError(t, th.MayRead("a"))
		th.HasRead("a", 1<<30)
	}
	require.NoError(t, promtest.GatherAndCompare(reg, strings.NewReader(`
# HELP x_throttle_principals Principals whose rates are remembered now.
# TYPE x_throttle_principals gauge
x_throttle_principals 0
`), "x_throttle_principals"))
	require.Zero(t, testing.AllocsPerRun(100, func() {
		_ = th.Message(context.Background(), "a", 1, 0)
		_, _ = th.WaitRead(context.Background(), "a", 0)
		th.HasRead("a", 1)
	}))
	var none *throttle.Throttle
	require.NoError(t, none.Call("a"))
	require.False(t, none.Reads())
}

func BenchmarkNoRates(b *testing.B) {
	th, err := throttle.New(throttle.Config{Namespace: "x"})
	require.NoError(b, err)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		ctx := context.Background()
		for pb.Next() {
			_ = th.Message(ctx, "a", 1, 0)
		}
	})
}

// Rates come and go while streams wait: those who wait by a rate that has changed look
// again at once, and what was used of one that has not still counts.
func TestRatesChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th, _ := made(t, throttle.Rates{})
		require.NoError(t, th.Produce("a", 100*mib))
		th.Set(throttle.Rates{Produce: mib, Consume: mib, Requests: 10})
		begun := time.Now()
		require.NoError(t, th.Produce("a", 4*mib), "what was before is not held against anybody")
		require.Error(t, th.Produce("a", mib))
		th.HasRead("a", 10*mib)
		for range 10 {
			require.NoError(t, th.Call("a"))
		}

		// Three wait, of which two for a rate that changes.
		ended := make(chan string, 3)
		var waiting sync.WaitGroup
		wait := func(name string, f func() error) {
			waiting.Go(func() {
				require.NoError(t, f())
				ended <- fmt.Sprint(name, " ", time.Since(begun))
			})
			synctest.Wait()
		}
		wait("message", func() error { return th.Message(t.Context(), "a", 1, 0) }) // first for its request, at 100 ms
		wait("read", func() error { _, err := th.WaitRead(t.Context(), "a", 0); return err })
		time.Sleep(50 * time.Millisecond)
		th.Set(throttle.Rates{Produce: mib, Consume: mib, Requests: 10})
		th.Set(throttle.Rates{Produce: 8 * mib, Consume: mib, Requests: 10})
		synctest.Wait()
		require.Empty(t, ended)
		require.Equal(t, "message 100ms", <-ended, "as long as it would have taken")
		require.Error(t, th.Call("a"))
		require.NoError(t, th.Produce("a", 7*mib), "this store is new")
		time.Sleep(time.Second)
		th.Set(throttle.Rates{Produce: 8 * mib, Consume: 100 * mib, Requests: 10})
		require.Equal(t, "read 1.1s", <-ended, "and not six seconds")

		begun = time.Now()
		th.HasRead("a", 200*mib)
		wait("read", func() error { _, err := th.WaitRead(t.Context(), "a", 0); return err })
		th.HasRead("b", 200*mib)
		may, err := th.WaitRead(t.Context(), "b", time.Second/2)
		require.NoError(t, err)
		require.False(t, may)
		th.Set(throttle.Rates{})
		require.Equal(t, "read 500ms", <-ended)
		require.NoError(t, th.Message(t.Context(), "a", 100*mib, 0))
		require.NoError(t, th.MayRead("b"))
		waiting.Wait()
	})
}

// Whatever changes at the same time as it is used, nothing is held up for good.
func TestRatesChangeUnderLoad(t *testing.T) {
	th, _ := made(t, throttle.Rates{})
	ctx, cancel := context.WithCancel(t.Context())
	var using sync.WaitGroup
	for i := range 4 {
		using.Go(func() {
			name := fmt.Sprint("p", i%2)
			for ctx.Err() == nil {
				_ = th.Call(name)
				_ = th.Produce(name, mib)
				_ = th.Message(ctx, name, mib, 0)
				_, _ = th.WaitRead(ctx, name, 0)
				th.HasRead(name, mib)
			}
		})
	}
	for i := range 300 {
		th.Set(throttle.Rates{Produce: int64(i%3) * mib, Consume: int64(i%5) * mib, Requests: i % 7})
	}
	th.Set(throttle.Rates{})
	for range 10 {
		require.NoError(t, th.Message(ctx, "p0", 100*mib, 0))
	}
	cancel()
	using.Wait()
}

// A call past a rate is refused, is told when to come again, and is right then.
func TestCallsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th, reg := made(t, throttle.Rates{Produce: 2 * mib, Requests: 10})
		for range 10 {
			require.NoError(t, th.Call("a"))
		}
		require.Equal(t, 100*time.Millisecond, after(t, th.Call("a")))
		require.Equal(t, 100*time.Millisecond, after(t, th.Call("a")), "what was refused is not counted")
		require.NoError(t, th.Call("b"), "others have rates of their own")

		for range 4 {
			require.NoError(t, th.Produce("a", mib), "one store is more than the rate, so that a message fits")
		}
		d := after(t, th.Produce("a", mib))
		require.Equal(t, time.Second/2, d)
		time.Sleep(d - time.Millisecond)
		require.Error(t, th.Produce("a", mib))
		time.Sleep(time.Millisecond)
		require.NoError(t, th.Produce("a", mib))
		require.NoError(t, promtest.GatherAndCompare(reg, strings.NewReader(`
# HELP x_throttled_total Times a principal was past one of its rates, and whether it was made to wait or refused.
# TYPE x_throttled_total counter
x_throttled_total{limit="consume_rate",outcome="refused"} 0
x_throttled_total{limit="consume_rate",outcome="waited"} 0
x_throttled_total{limit="produce_rate",outcome="refused"} 2
x_throttled_total{limit="produce_rate",outcome="waited"} 0
x_throttled_total{limit="request_rate",outcome="refused"} 2
x_throttled_total{limit="request_rate",outcome="waited"} 0
`), "x_throttled_total"))
	})
}

// A stream past a rate waits, for exactly as long as it takes.
func TestStreamsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th, reg := made(t, throttle.Rates{Produce: mib, Requests: 1000})
		begun := time.Now()
		for range 14 {
			require.NoError(t, th.Message(t.Context(), "a", mib, 0))
		}
		require.Equal(t, 10*time.Second, time.Since(begun), "four in store, and then one a second")
		require.NoError(t, th.Message(t.Context(), "b", 4*mib, 0))
		require.Equal(t, 10*time.Second, time.Since(begun), "others have rates of their own")
		m, err := reg.Gather()
		require.NoError(t, err)
		for _, f := range m {
			if f.GetName() == "x_throttled_seconds_total" {
				require.InDelta(t, 10, f.GetMetric()[0].GetCounter().GetValue(), 0.001)
			}
		}
		for range 1000 {
			require.NoError(t, th.Message(t.Context(), "c", 1, 0))
		}
		begun = time.Now()
		for range 1000 {
			require.NoError(t, th.Message(t.Context(), "c", 1, 0))
		}
		require.InDelta(t, time.Second, time.Since(begun), float64(10*time.Millisecond), "a thousand messages a second")
	})
}

// A wait that would be longer than it may, or that is broken off, costs nothing.
func TestWaitsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th, _ := made(t, throttle.Rates{Produce: mib})
		require.NoError(t, th.Message(t.Context(), "a", 4*mib, 0))
		require.Equal(t, time.Second, after(t, th.Message(t.Context(), "a", 2*mib, time.Second)))
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("gone")
		time.AfterFunc(time.Second, func() { cancel(why) })
		require.ErrorIs(t, th.Message(ctx, "a", 4*mib, 0), why)
		begun := time.Now()
		require.NoError(t, th.Message(t.Context(), "a", 2*mib, 0))
		require.Equal(t, time.Second, time.Since(begun), "one second's worth had come")
	})
}

// What is read is counted afterwards; who has read too much waits before the next.
func TestReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th, _ := made(t, throttle.Rates{Consume: mib})
		require.NoError(t, th.MayRead("a"))
		th.HasRead("a", 7*mib) // more than is in store
		require.Equal(t, 3*time.Second, after(t, th.MayRead("a")))
		require.NoError(t, th.MayRead("b"))
		may, err := th.WaitRead(t.Context(), "a", time.Second)
		require.NoError(t, err)
		require.False(t, may)
		require.Equal(t, 2*time.Second, th.UntilRead("a"))
		may, err = th.WaitRead(t.Context(), "a", 0)
		require.NoError(t, err)
		require.True(t, may)
		require.NoError(t, th.MayRead("a"))
	})
}

// However many principals there are, they take a bounded place, and none gets more for
// being forgotten.
func TestPrincipalsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th, reg := made(t, throttle.Rates{Produce: mib})
		known := func() int {
			m, err := reg.Gather()
			require.NoError(t, err)
			for _, f := range m {
				if f.GetName() == "x_throttle_principals" {
					return int(f.GetMetric()[0].GetGauge().GetValue())
				}
			}
			return -1
		}
		require.NoError(t, th.Produce("greedy", 4*mib))
		for i := range 4095 {
			require.NoError(t, th.Produce(fmt.Sprint("p", i), mib))
		}
		require.Equal(t, 4096, known())
		for i := range 4 {
			require.NoError(t, th.Produce(fmt.Sprint("q", i), mib))
		}
		require.Error(t, th.Produce("r", mib), "those without a place share one")
		require.NoError(t, th.Produce("p7", mib))
		require.Equal(t, 4096, known())

		time.Sleep(2 * time.Minute)
		require.NoError(t, th.Produce("greedy", 4*mib))
		require.NoError(t, th.Produce("r", 4*mib))
		require.Equal(t, 2, known(), "all were idle and full, but for one")
		require.Error(t, th.Produce("greedy", mib))
	})
}
