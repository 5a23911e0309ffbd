package history_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/history"
	"github.com/logd-io/logd/test/history/linear"
	"github.com/logd-io/logd/test/history/plant"
)

// live runs clients of every kind through real connections to a log that tells a lie,
// and returns what they were told.
func live(t *testing.T, what lie) *history.History {
	t.Helper()
	log := &liarLog{keys: map[string]uint64{}, grew: make(chan struct{})}
	first := serve(t, &liar{lie: what, liarLog: log})
	second := serve(t, &liar{lie: what, liarLog: log, second: true})
	r := history.NewRecorder()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	record := func(who string, i int) *logv1.ProduceRequest {
		return &logv1.ProduceRequest{Record: &logv1.Record{Value: fmt.Appendf(nil, "%s %d", who, i), Key: []byte(who)}}
	}
	const each = 60
	var wg sync.WaitGroup
	client := func(who string, session string, do func(who string, a, b logv1.LogClient)) {
		w := history.Who{Name: who, Session: session, Principal: "app"}
		other := w
		other.Name += ", elsewhere"
		a, b := logv1.NewLogClient(r.Conn(first, w)), logv1.NewLogClient(r.Conn(second, other))
		wg.Go(func() { do(who, a, b) })
	}
	for i := range 4 { // writers, who hear errors from liars and go on
		client(fmt.Sprint("writer ", i), "first proxy", func(who string, a, _ logv1.LogClient) {
			for i := range each {
				_, _ = a.Produce(ctx, record(who, i))
			}
		})
	}
	client("careful", "careful", func(who string, a, b logv1.LogClient) {
		for i := range each {
			ctx := metadata.AppendToOutgoingContext(ctx, "logd-request-id", fmt.Sprint(i))
			_, _ = a.Produce(ctx, record(who, i))
			_, _ = b.Produce(ctx, record(who, i))
		}
	})
	for i := range 2 {
		client(fmt.Sprint("producer ", i), "first proxy", func(who string, a, _ logv1.LogClient) { produceAll(ctx, a, each, who, record) })
	}
	for i := range 2 {
		who := fmt.Sprint("reader ", i)
		client(who, who, func(who string, a, b logv1.LogClient) {
			for i := range each {
				resp, err := a.Produce(ctx, record(who, i))
				if err != nil {
					continue
				}
				_, _ = a.Consume(ctx, &logv1.ConsumeRequest{Offset: resp.GetOffset()})
				_, _ = b.Consume(ctx, &logv1.ConsumeRequest{Offset: resp.GetOffset(), Linearizable: true})
				_, _ = a.GetOffsets(ctx, &logv1.GetOffsetsRequest{})
				_, _ = b.GetOffsets(ctx, &logv1.GetOffsetsRequest{})
				_, _ = a.Consume(ctx, &logv1.ConsumeRequest{Offset: resp.GetOffset() + 5, Linearizable: i%2 == 0})
			}
		})
	}
	tailing, stop := context.WithCancel(ctx)
	defer stop()
	var tails sync.WaitGroup
	reach := make(chan uint64) // closed without a value when the tails may end
	for i := range 2 {
		who := fmt.Sprint("tail ", i)
		conn := r.Conn(first, history.Who{Name: who, Session: "first proxy"})
		tails.Go(func() { tail(tailing, conn, reach) })
	}
	wg.Wait()
	log.mu.Lock()
	l := history.Log{Node: "memory"}
	for _, rec := range log.records {
		require.NoError(t, l.Add(rec))
	}
	log.mu.Unlock()
	close(reach)
	tails.Wait()
	r.AddLog(l)
	copied := l
	copied.Node, copied.Records = "copy", append([]history.Record(nil), l.Records...)
	r.AddLog(copied)
	return r.History()
}

// tail reads a stream until stop is closed; records that nobody reads are no loss here.
func tail(ctx context.Context, conn grpc.ClientConnInterface, stop <-chan uint64) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := logv1.NewLogClient(conn).ConsumeStream(ctx, &logv1.ConsumeRequest{})
	if err != nil {
		return
	}
	var ends sync.WaitGroup
	defer ends.Wait()
	over := make(chan struct{})
	defer close(over)
	ends.Go(func() {
		select {
		case <-stop:
			cancel()
		case <-over:
		}
	})
	for {
		if _, err := s.Recv(); err != nil {
			return
		}
	}
}

// produceAll sends n records on streams, with a new one where one ends early.
func produceAll(ctx context.Context, client logv1.LogClient, n int, who string, record func(string, int) *logv1.ProduceRequest) {
	for i := 0; i < n; {
		s, err := client.ProduceStream(ctx)
		if err != nil {
			return
		}
		sent := 0
		for ; i < n && sent < 20; i++ {
			if s.Send(record(who, i)) != nil {
				break
			}
			sent++
		}
		_ = s.CloseSend()
		for {
			if _, err := s.Recv(); err != nil {
				break
			}
		}
		if sent == 0 {
			i++
		}
	}
}

// TestLiarsAreCaught runs real clients through a server that tells one lie, and each
// is found by the rule it breaks.
func TestLiarsAreCaught(t *testing.T) {
	for what, rule := range map[lie]history.Rule{
		losesAcked: history.SameOffset, appendsTwice: history.Once, repeatsOffset: history.SameOffset,
		changesContent: history.Acknowledged, turnsStream: history.Producer, dropsFromStream: history.Producer,
		turnsTime: history.RealTime, skips: history.Stream, repeats: history.Stream,
		forgetsWrites: history.ReadYourWrites, goesBack: history.MonotonicReads, appendsNotSent: history.NotSent,
		showsDifferent: history.Content, staleLinears: history.Linearizable, deniesWrite: history.ReadYourWrites,
		forgetsRequest: history.Once, showsVanishing: history.Unseen, refusesExisting: history.Range,
	} {
		t.Run(string(what), func(t *testing.T) {
			report := history.Check(live(t, what))
			require.NotZero(t, report.Count[rule], "%s\n%v", report, report.Err())
			t.Log(report.Count)
		})
	}
}

// TestHonestLogIsClean: nothing is found where nothing is wrong, also after a history
// has been to a file and back, and Porcupine finds nothing either.
func TestHonestLogIsClean(t *testing.T) {
	for range 5 {
		h := live(t, honest)
		report := history.Check(h)
		require.NoError(t, report.Err())
		t.Log(report)
		var file bytes.Buffer
		require.NoError(t, h.Write(&file))
		back, err := history.Read(&file)
		require.NoError(t, err)
		require.Equal(t, h, back)
		s, err := linear.Sample(h, rand.New(rand.NewPCG(1, 2)), 20, 40, 30*time.Second)
		require.NoError(t, err)
		require.Zero(t, s.Unknown)
		t.Logf("Porcupine: %+v", s)
	}
}

// TestPlantsAreFound puts every kind of violation into a clean history of real
// clients, and each is found by the rule it breaks.
func TestPlantsAreFound(t *testing.T) {
	plantsAreFound(t, live(t, honest))
}

func plantsAreFound(t *testing.T, clean *history.History) {
	t.Helper()
	require.NoError(t, history.Check(clean).Err())
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	for _, p := range plant.All {
		for range 5 {
			h := clean.Clone()
			require.True(t, p.Into(h, rng), "there is no place for: %s", p.Name)
			report := history.Check(h)
			require.NotZero(t, report.Count[p.Rule], "seed %d: %s: %v", seed, p.Name, report.Err())
		}
		require.NoError(t, history.Check(clean).Err(), "a plant got into the clean history: %s", p.Name)
	}
}
