package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/harness"
	"github.com/logd-io/logd/test/history"
	"github.com/logd-io/logd/test/history/plant"
)

// How many of whom there are in a crowd.
const (
	crowdUnary   = 64
	crowdStreams = 4
	crowdReaders = 4
	crowdTails   = 3
	crowdMovers  = 4 // when there is a second proxy
)

// crowd is naive clients of every kind, all of whose calls are recorded.
type crowd struct {
	w      *world
	record *history.Recorder
	ctx    context.Context
	cancel context.CancelFunc
	ending context.Context // over when nothing new is to be begun, or ctx is
	end    context.CancelFunc
	wg     sync.WaitGroup

	appended atomic.Uint64 // records acknowledged, each once
	moves    atomic.Uint64 // of movers from one proxy to another

	mu     sync.Mutex
	errs   []error // guarded by mu
	failed chan struct{}
	once   sync.Once

	tails   []*atomic.Uint64 // the offset after the last one each has read
	tailing sync.WaitGroup
}

func newCrowd(w *world) *crowd {
	c := &crowd{w: w, record: history.NewRecorder(), failed: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancel(w.ctx)
	c.ending, c.end = context.WithCancel(c.ctx)
	w.t.Cleanup(func() { c.cancel(); c.wg.Wait(); c.tailing.Wait() })
	return c
}

func (c *crowd) fail(err error) {
	if c.ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	c.errs = append(c.errs, fmt.Errorf("%s: %w", time.Now().Format("15:04:05.000"), err))
	c.mu.Unlock()
	c.once.Do(func() { close(c.failed) })
}

func (c *crowd) stopped() bool {
	select {
	case <-c.ending.Done():
		return true
	case <-c.failed:
		return true
	default:
		return false
	}
}

func (c *crowd) start() {
	client := func(kind string, i int) logv1.LogClient {
		return logv1.NewLogClient(c.w.recorded(c.record, fmt.Sprint(kind, " ", i), c.w.proxy, app))
	}
	for i := range crowdUnary {
		unary := client("unary", i)
		c.wg.Go(func() { c.unary(i, unary) })
	}
	for i := range crowdStreams {
		stream := client("stream", i)
		c.wg.Go(func() { c.stream(100+i, stream) })
	}
	for i := range crowdReaders {
		reader := client("reader", i)
		c.wg.Go(func() { c.reader(200+i, reader) })
	}
	for i := range crowdTails {
		conn, at := c.w.recorded(c.record, fmt.Sprint("tail ", i), c.w.proxy, app), new(atomic.Uint64)
		c.tails = append(c.tails, at)
		c.tailing.Go(func() {
			err := harness.Tail(c.ctx, conn, 0, func(rec *logv1.Record) bool {
				at.Store(rec.GetOffset() + 1)
				return true
			})
			c.fail(fmt.Errorf("tail: %w", err))
		})
	}
	if len(c.w.Proxy) > 1 {
		for i := range crowdMovers {
			m := c.newMover(i, c.w.Proxy...)
			c.wg.Go(func() { m.run(300 + i) })
		}
	}
}

// numbered is record i of producer p.
func numbered(p, i int) *logv1.ProduceRequest {
	return &logv1.ProduceRequest{Record: &logv1.Record{Value: harness.Value(uint64(p)<<32|uint64(i), nil)}}
}

// unary writes one record at a time.
func (c *crowd) unary(p int, client logv1.LogClient) {
	for i := 0; !c.stopped(); i++ {
		if _, ok := c.produce(p, i, client); !ok {
			return
		}
		rest(c.ctx, rand.N(60*time.Millisecond))
	}
}

func (c *crowd) produce(p, i int, client logv1.LogClient) (offset uint64, ok bool) {
	begun := time.Now()
	resp, err := client.Produce(c.ctx, numbered(p, i))
	if err != nil {
		c.fail(fmt.Errorf("producer %d, record %d, after %s: %w", p, i, time.Since(begun), err))
		return 0, false
	}
	c.appended.Add(1)
	return resp.GetOffset(), true
}

// stream writes without waiting for each answer.
func (c *crowd) stream(p int, client logv1.LogClient) {
	s, err := client.ProduceStream(c.ctx)
	if err != nil {
		c.fail(err)
		return
	}
	var sending sync.WaitGroup
	var sent atomic.Int64
	sending.Go(func() {
		for i := 0; !c.stopped(); i++ {
			sent.Add(1)
			if s.Send(numbered(p, i)) != nil {
				return // the receiver hears why
			}
			rest(c.ctx, rand.N(10*time.Millisecond))
		}
		_ = s.CloseSend()
	})
	defer sending.Wait()
	for i := int64(0); ; i++ {
		if _, err := s.Recv(); err != nil {
			if !c.stopped() || i != sent.Load() {
				c.fail(fmt.Errorf("produce stream %d after %d answers: %w", p, i, err))
			}
			return
		}
		c.appended.Add(1)
	}
}

// reader reads at once what it has written, and asks where the log ends.
func (c *crowd) reader(p int, client logv1.LogClient) {
	for i := 0; !c.stopped(); i++ {
		offset, ok := c.produce(p, i, client)
		if !ok {
			return
		}
		if _, err := client.Consume(c.ctx, &logv1.ConsumeRequest{Offset: offset}); err != nil {
			c.fail(fmt.Errorf("reader %d at %d: %w", p, offset, err))
			return
		}
		if _, err := client.GetOffsets(c.ctx, &logv1.GetOffsetsRequest{}); err != nil {
			c.fail(fmt.Errorf("reader %d asks for the end: %w", p, err))
			return
		}
		rest(c.ctx, rand.N(20*time.Millisecond))
	}
}

// finish ends the crowd and holds what it was told against every node's log, also
// when somebody was told of an error.
func (c *crowd) finish() *history.History {
	t, w := c.w.t, c.w
	t.Helper()
	c.end()
	c.wg.Wait()
	next := w.logEnd("client")
	if err := c.err(); err != nil {
		h, _ := w.verify(c.record, 0, next)
		t.Fatalf("nothing is wrong with what was told, but clients saw errors (kept: %s):\n%v", w.keep(h, historyFolder()), err)
	}

	require.Equal(t, c.appended.Load(), next, "records in the log")
	w.until("the tails", func() error {
		if err := c.err(); err != nil {
			return harness.Ended(err)
		}
		for i, at := range c.tails {
			if at.Load() < next {
				return fmt.Errorf("tail %d has read %d of %d", i, at.Load(), next)
			}
		}
		return nil
	})
	h, _ := w.verify(c.record, 0, next)
	longest := time.Duration(0)
	for i := range h.Events {
		e := &h.Events[i]
		if e.Op != history.Produce || e.Key != 0 { // a mover's proxy may be killed
			continue
		}
		require.Equal(t, history.OK, e.Outcome, h.Format(e))
		if e.Stream == 0 {
			longest = max(longest, time.Duration(e.End-e.Start))
		}
	}
	t.Logf("longest call %s, %d moves between proxies", longest.Round(time.Millisecond), c.moves.Load())
	return h
}

// err joins what clients saw of errors.
func (c *crowd) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.errs...)
}

// plantsAreFound requires that the checker would have found every kind of violation
// in this very history.
func (c *crowd) plantsAreFound(h *history.History) {
	t := c.w.t
	t.Helper()
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	begun := time.Now()
	for _, p := range plant.All {
		planted := h.Clone()
		require.True(t, p.Into(planted, rng), "seed %d: no place for: %s", seed, p.Name)
		report := history.Check(planted)
		require.NotZero(t, report.Count[p.Rule], "seed %d: %s: %v", seed, p.Name, report.Err())
	}
	t.Logf("%d kinds of violation planted and found in %s", len(plant.All), time.Since(begun).Round(time.Millisecond))
}
