package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
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
)

// fate is what a client was told of a record.
type fate struct {
	offset uint64
	acked  bool
	absent bool // NOT_SENT, or another refusal: it must never be in the log
}

// ledger is what all clients were told, by record.
type ledger struct {
	mu      sync.Mutex
	fates   map[uint64]fate
	reasons map[string]int
	wrong   []error
}

func (l *ledger) note(n uint64, offset uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		if f := l.fates[n]; f.acked && f.offset != offset {
			l.wrong = append(l.wrong, fmt.Errorf("record %d was told at %d and at %d", n, f.offset, offset))
		}
		l.fates[n] = fate{offset: offset, acked: true}
		l.reasons["acknowledged"]++
		return
	}
	reason := apierr.ReasonOf(err)
	switch reason {
	case apierr.ReasonNotSent, apierr.ReasonOverloaded:
		l.fates[n] = fate{absent: true}
	case apierr.ReasonOutcomeUnknown:
		l.fates[n] = fate{}
	case "":
		switch status.Code(err) {
		case codes.DeadlineExceeded, codes.Canceled:
		default:
			l.wrong = append(l.wrong, fmt.Errorf("record %d: %w", n, err))
		}
		l.fates[n] = fate{}
		reason = apierr.Reason(status.Code(err).String())
	default:
		l.wrong = append(l.wrong, fmt.Errorf("record %d: %w", n, err))
	}
	l.reasons[string(reason)]++
}

// TestHeldTooLong takes the majority away again and again for longer than proxies
// hold. Clients then hear errors, and every one of them has to be true: what was
// NOT_SENT is never in the log, what was acknowledged is there once, whatever else
// at most once. A record that is repeated with its request id, through whichever
// proxy, is there once.
func TestHeldTooLong(t *testing.T) {
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
	var clients []logv1.LogClient
	for i := range 8 {
		conn, err := harness.Naive(proxies[i%2].Addr)
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		clients = append(clients, logv1.NewLogClient(conn))
	}

	l := &ledger{fates: map[uint64]fate{}, reasons: map[string]int{}}
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
			resp, err := clients[p%len(clients)].Produce(call, record(n))
			l.note(n, resp.GetOffset(), err)
		})
	}
	for p := 100; p < 108; p++ {
		begin(p, func(n uint64) { // until it is in, by whichever way
			for try := 0; w.ctx.Err() == nil; try++ {
				call, cancel := context.WithTimeout(w.ctx, 20*time.Millisecond+rand.N(900*time.Millisecond))
				call = metadata.AppendToOutgoingContext(call, "logd-request-id", fmt.Sprint(n))
				resp, err := clients[(p+try)%len(clients)].Produce(call, record(n))
				cancel()
				if err == nil {
					l.note(n, resp.GetOffset(), nil)
					if try%2 == 0 { // and once more, as if the answer had been lost
						resp, err = clients[(p+try+1)%len(clients)].Produce(metadata.AppendToOutgoingContext(w.ctx, "logd-request-id", fmt.Sprint(n)), record(n))
						if err == nil {
							l.note(n, resp.GetOffset(), nil)
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
	require.NotZero(t, l.reasons["acknowledged"])
	require.NotZero(t, l.reasons[string(apierr.ReasonNotSent)], "nothing was held for too long")

	// What is frozen in a proxy may still be on its way: the logs must be the same
	// at a position that comes after everything of these clients.
	var next uint64
	for i := range proxies {
		resp, err := clients[i].Produce(w.ctx, record(1<<60+uint64(i)))
		require.NoError(t, err)
		next = max(next, resp.GetOffset()+1)
	}
	for _, n := range w.Nodes {
		at := map[uint64]uint64{}
		require.NoError(t, harness.Tail(w.ctx, w.dial("client", n), 0, func(rec *logv1.Record) bool {
			num, err := harness.Number(rec.GetValue())
			require.NoError(t, err)
			first, twice := at[num]
			require.False(t, twice, "%s: record %d at %d and at %d", n.Name, num, first, rec.GetOffset())
			at[num] = rec.GetOffset()
			return rec.GetOffset()+1 < next
		}))
		for num, f := range l.fates {
			off, there := at[num]
			switch {
			case f.acked:
				require.True(t, there, "%s: record %d of producer %d was acknowledged and is not there", n.Name, uint32(num), num>>32)
				require.Equal(t, f.offset, off)
			case f.absent:
				require.False(t, there, "%s: record %d of producer %d was said not to be sent and is at %d", n.Name, uint32(num), num>>32, off)
			}
		}
	}
}

// produceStream sends until the stream fails or soon is over, and notes what it
// heard: answers in order, and the one error for the record after them. What comes
// behind that one fails too, and may not be in the log if it was NOT_SENT.
func produceStream(ctx, soon context.Context, client logv1.LogClient, l *ledger, first uint64) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := client.ProduceStream(ctx)
	if err != nil {
		return
	}
	var sending sync.WaitGroup
	var end atomic.Uint64 // the first that was not sent
	sending.Go(func() {
		for n := first; soon.Err() == nil; n++ {
			end.Store(n + 1)
			if s.Send(&logv1.ProduceRequest{Record: &logv1.Record{Value: harness.Value(n, nil)}}) != nil {
				return
			}
			rest(soon, rand.N(2*time.Millisecond))
		}
		_ = s.CloseSend()
	})
	for n := first; ; n++ {
		resp, err := s.Recv()
		if err != nil {
			sending.Wait()
			if errors.Is(err, io.EOF) {
				return
			}
			l.note(n, 0, err)
			for absent := apierr.ReasonOf(err) == apierr.ReasonNotSent; absent && n+1 < end.Load(); {
				n++
				l.note(n, 0, err)
			}
			return
		}
		l.note(n, resp.GetOffset(), nil)
	}
}
