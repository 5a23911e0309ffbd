package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/test/harness"
	"github.com/logd-io/logd/test/history"
)

// ledger counts what clients were told, and keeps what none of them should be.
type ledger struct {
	mu      sync.Mutex
	reasons map[apierr.Reason]int
	wrong   []error
}

func newLedger() *ledger { return &ledger{reasons: map[apierr.Reason]int{}} }

// acknowledged counts answers without an error.
const acknowledged apierr.Reason = "acknowledged"

func (l *ledger) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	reason := apierr.ReasonOf(err)
	switch {
	case err == nil:
		reason = acknowledged
	case reason == apierr.ReasonNotSent, reason == apierr.ReasonOverloaded, reason == apierr.ReasonOutcomeUnknown:
	case reason == "" && (status.Code(err) == codes.DeadlineExceeded || status.Code(err) == codes.Canceled):
		reason = apierr.Reason(status.Code(err).String())
	default:
		l.wrong = append(l.wrong, err)
	}
	l.reasons[reason]++
}

func (l *ledger) count(reason apierr.Reason) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reasons[reason]
}

// TestHeldTooLong takes the majority away again and again for longer than proxies
// hold. Clients then hear errors, and every one of them has to be true: what was
// NOT_SENT is never in the log, what was acknowledged is there once, whatever else
// at most once. A record that is repeated with its request id, through whichever
// proxy, is there once.
func TestHeldTooLong(t *testing.T) {
	t.Parallel()
	w := prepare(t, nil)
	hold := "principal = \"app\"\nproduce {\n  hold_timeout = \"700ms\"\n}\n"
	var proxies []*harness.Proxy
	for range 2 {
		p, err := w.AddProxy(hold)
		require.NoError(t, err)
		proxies = append(proxies, p)
	}
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))
	r := history.NewRecorder()
	var clients []logv1.LogClient
	for i := range 8 {
		clients = append(clients, logv1.NewLogClient(w.recorded(r, fmt.Sprint("client ", i), proxies[i%2], app)))
	}

	l := newLedger()
	ctx, stop := context.WithCancel(w.ctx)
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	begin := func(p int, one func(n uint64)) {
		wg.Go(func() {
			for i := uint64(0); ctx.Err() == nil; i++ {
				one(uint64(p)<<32 | i)
				rest(ctx, rand.N(10*time.Millisecond))
			}
		})
	}
	record := func(n uint64) *logv1.ProduceRequest {
		return &logv1.ProduceRequest{Record: &logv1.Record{Value: harness.Value(n, nil)}}
	}
	for p := range 24 {
		begin(p, func(n uint64) { // some with a deadline of their own, some give up in between
			call, cancel := w.ctx, context.CancelFunc(func() {})
			switch p % 3 {
			case 1:
				call, cancel = context.WithTimeout(call, 50*time.Millisecond+rand.N(600*time.Millisecond))
			case 2:
				call, cancel = context.WithCancel(call)
				timer := time.AfterFunc(rand.N(300*time.Millisecond), cancel)
				defer timer.Stop()
			}
			defer cancel()
			_, err := clients[p%len(clients)].Produce(call, record(n))
			l.note(err)
		})
	}
	for p := 100; p < 108; p++ {
		begin(p, func(n uint64) { // until it is in, by whichever way
			for try := 0; w.ctx.Err() == nil; try++ {
				call, cancel := context.WithTimeout(w.ctx, 20*time.Millisecond+rand.N(900*time.Millisecond))
				call = metadata.AppendToOutgoingContext(call, "logd-request-id", fmt.Sprint(n))
				_, err := clients[(p+try)%len(clients)].Produce(call, record(n))
				cancel()
				if err == nil {
					l.note(nil)
					if try%2 == 0 { // and once more, as if the answer had been lost
						_, err = clients[(p+try+1)%len(clients)].Produce(metadata.AppendToOutgoingContext(w.ctx, "logd-request-id", fmt.Sprint(n)), record(n))
						if err == nil {
							l.note(nil)
						}
					}
					return
				}
			}
		})
	}
	for p := 200; p < 204; p++ {
		streams := uint64(0)
		wg.Go(func() {
			for ctx.Err() == nil {
				streams++
				produceStream(w.ctx, ctx, clients[p%len(clients)], l, uint64(p)<<32|streams<<20)
			}
		})
	}

	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 2))
	for range 5 {
		w.pause(time.Duration(500+rng.IntN(1000)) * time.Millisecond)
		spared := rng.IntN(3)
		for i, n := range w.Nodes {
			if i != spared {
				require.NoError(t, n.Signal(syscall.SIGSTOP))
			}
		}
		w.pause(time.Duration(1000+rng.IntN(2000)) * time.Millisecond)
		for i, n := range w.Nodes {
			if i != spared {
				require.NoError(t, n.Signal(syscall.SIGCONT))
			}
		}
		w.leader()
	}
	w.pause(time.Second)
	stop()
	wg.Wait()
	require.NoError(t, errors.Join(l.wrong...))
	t.Log(l.reasons)
	require.NotZero(t, l.reasons[acknowledged])
	require.NotZero(t, l.reasons[apierr.ReasonNotSent], "nothing was held for too long")

	// What is frozen in a proxy may still be on its way: the logs must be the same
	// at a position that comes after everything of these clients.
	var next uint64
	for i := range proxies {
		n := uint64(1<<60) + uint64(i)
		w.until("a record comes after everything", func() error { // it may be held for too long as well
			resp, err := clients[i].Produce(w.ctx, record(n))
			l.note(err)
			next = max(next, resp.GetOffset()+1)
			n += uint64(len(proxies)) // another one, since what has become of this may not be known
			return err
		})
	}
	require.NoError(t, errors.Join(l.wrong...))
	_, report := w.verify(r, 0, next)
	require.NotZero(t, report.Refused)
	require.NotZero(t, report.Unknown)
}

// produceStream sends until the stream fails or soon is over. What comes behind the
// record that failed is not in the log either; the checker looks for it.
func produceStream(ctx, soon context.Context, client logv1.LogClient, l *ledger, first uint64) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := client.ProduceStream(ctx)
	if err != nil {
		return
	}
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() {
		for n := first; soon.Err() == nil; n++ {
			if s.Send(&logv1.ProduceRequest{Record: &logv1.Record{Value: harness.Value(n, nil)}}) != nil {
				return
			}
			rest(soon, rand.N(2*time.Millisecond))
		}
		_ = s.CloseSend()
	})
	for {
		_, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return
		}
		l.note(err)
		if err != nil {
			return
		}
	}
}
