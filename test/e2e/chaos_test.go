package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/test/harness"
)

// How many of whom there are in the chaos.
const (
	chaosUnary   = 64
	chaosStreams = 4
	chaosReaders = 4
	chaosTails   = 3
)

// TestChaos kills, pauses, restarts and deposes nodes at random under naive
// clients of every kind, who must notice nothing: no error, every acknowledged
// record once and at its offset, every producer's records in its order, no gap in
// any stream, and nobody who does not find what he has just written.
//
// LOGD_CHAOS=5m makes it as long; LOGD_CHAOS_SEED repeats a run's order of events.
func TestChaos(t *testing.T) {
	length := 15 * time.Second
	if v := os.Getenv("LOGD_CHAOS"); v != "" {
		var err error
		length, err = time.ParseDuration(v)
		require.NoError(t, err)
	}
	seed := uint64(time.Now().UnixNano())
	if v := os.Getenv("LOGD_CHAOS_SEED"); v != "" {
		var err error
		seed, err = strconv.ParseUint(v, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("LOGD_CHAOS_SEED=%d", seed)

	w := prepareFor(t, nil, length+4*time.Minute)
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))
	c := newCrowd(w)
	c.start()
	w.storm(rand.New(rand.NewPCG(seed, 1)), length, c.failed)
	c.finish()
}

// storm does one bad thing after another, and waits after each until all nodes
// are well: what is promised is promised for the loss of one, and for a majority
// that is away for less than produces are held.
func (w *world) storm(rng *rand.Rand, length time.Duration, failed <-chan struct{}) {
	t := w.t
	names := []string{"kill", "kill and start at once", "stop", "term", "transfer", "kill two", "stop two", "stop the proxy"}
	for end := time.Now().Add(length); time.Now().Before(end) && w.ctx.Err() == nil; {
		select {
		case <-failed:
			return
		default:
		}
		n, who := w.leader(), "leader"
		if rng.IntN(3) == 0 {
			n, who = w.Nodes[rng.IntN(len(w.Nodes))], "node"
		}
		other := w.Nodes[rng.IntN(len(w.Nodes))]
		down := time.Duration(rng.IntN(2500)) * time.Millisecond
		what := rng.IntN(len(names))
		t.Logf("%s: %s %s, %s", names[what], who, n.Name, down)
		switch what {
		case 0:
			require.NoError(t, n.Kill())
			w.pause(down)
			require.NoError(t, n.Process.Start())
		case 1:
			require.NoError(t, n.Kill())
			require.NoError(t, n.Process.Start())
		case 2:
			w.stopped(down, n.Process)
		case 3:
			ctx, cancel := context.WithTimeout(w.ctx, patience)
			require.NoError(t, n.Stop(ctx))
			cancel()
			require.NoError(t, n.Process.Start())
		case 4:
			w.depose(rng)
		case 5:
			require.NoError(t, n.Kill())
			if other != n {
				require.NoError(t, other.Kill())
			}
			w.pause(down / 2)
			require.NoError(t, w.Start())
		case 6:
			w.stopped(down, n.Process, other.Process)
		case 7:
			w.stopped(down, w.proxy.Process)
		}
		for _, n := range w.Nodes {
			ctx, cancel := context.WithTimeout(w.ctx, patience)
			require.NoError(t, w.NodeReady(ctx, n))
			cancel()
		}
		w.pause(time.Duration(rng.IntN(1000)) * time.Millisecond)
	}
}

// stopped lets processes stand still for d.
func (w *world) stopped(d time.Duration, ps ...*harness.Process) {
	w.t.Helper()
	for _, p := range ps {
		require.NoError(w.t, p.Signal(syscall.SIGSTOP))
	}
	w.pause(d)
	for _, p := range ps {
		require.NoError(w.t, p.Signal(syscall.SIGCONT))
	}
}

// depose hands leadership to some other node. That it fails is no fault: the
// leader may have lost it meanwhile.
func (w *world) depose(rng *rand.Rand) {
	st := w.stats(w.leader())
	target := st.GetPeers()[rng.IntN(len(st.GetPeers()))].GetId()
	conn, err := w.Dial("admin", w.leader())
	require.NoError(w.t, err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
	defer cancel()
	if _, err := nodev1.NewNodeClient(conn).TransferLeadership(ctx, &nodev1.TransferLeadershipRequest{TargetId: target}); err != nil {
		w.t.Logf("transfer to %s: %v", target, err)
	}
}

func (w *world) pause(d time.Duration) { rest(w.ctx, d) }

// rest waits for d or the end of ctx.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// crowd is naive clients of every kind, and what they were told.
type crowd struct {
	w      *world
	ctx    context.Context
	cancel context.CancelFunc
	stop   chan struct{} // closed when nothing new is to be begun
	wg     sync.WaitGroup

	longest atomic.Int64 // of one call, in nanoseconds
	reads   atomic.Uint64

	mu     sync.Mutex
	acked  [][]uint64 // by producer, the offsets of its records in their order; guarded by mu
	sent   []int      // by producer; guarded by mu
	errs   []error    // guarded by mu
	failed chan struct{}
	once   sync.Once

	tails   []*atomic.Uint64 // the offset after the last one each has read
	tailing sync.WaitGroup
}

func newCrowd(w *world) *crowd {
	c := &crowd{w: w, stop: make(chan struct{}), failed: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancel(w.ctx)
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
	case <-c.stop:
		return true
	case <-c.failed:
		return true
	case <-c.ctx.Done():
		return true
	default:
		return false
	}
}

// producer is one more producer's number.
func (c *crowd) producer() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acked, c.sent = append(c.acked, nil), append(c.sent, 0)
	return len(c.acked) - 1
}

// value is record i of producer p.
func value(p, i int) []byte { return harness.Value(uint64(p)<<32|uint64(i), nil) }

func (c *crowd) told(p int, offset uint64, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.acked[p]); n > 0 && c.acked[p][n-1] >= offset {
		c.errs = append(c.errs, fmt.Errorf("producer %d: offset %d after %d", p, offset, c.acked[p][n-1]))
	}
	c.acked[p] = append(c.acked[p], offset)
	c.longest.Store(max(c.longest.Load(), int64(took)))
}

func (c *crowd) start() {
	var conns []*grpc.ClientConn
	for range 8 {
		conns = append(conns, c.w.naive())
	}
	for i := range chaosUnary {
		p := c.producer()
		c.wg.Go(func() { c.unary(p, logv1.NewLogClient(conns[i%len(conns)])) })
	}
	for i := range chaosStreams {
		p := c.producer()
		c.wg.Go(func() { c.stream(p, logv1.NewLogClient(conns[i%len(conns)])) })
	}
	for i := range chaosReaders {
		p := c.producer()
		c.wg.Go(func() { c.reader(p, logv1.NewLogClient(conns[i%len(conns)])) })
	}
	for range chaosTails {
		conn, at := c.w.naive(), new(atomic.Uint64)
		c.tails = append(c.tails, at)
		c.tailing.Go(func() {
			err := harness.Tail(c.ctx, conn, 0, func(rec *logv1.Record) bool {
				at.Store(rec.GetOffset() + 1)
				return true
			})
			c.fail(fmt.Errorf("tail: %w", err))
		})
	}
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
	c.mu.Lock()
	c.sent[p]++
	c.mu.Unlock()
	begun := time.Now()
	resp, err := client.Produce(c.ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: value(p, i)}})
	took := time.Since(begun)
	if err != nil {
		c.fail(fmt.Errorf("producer %d, record %d, after %s: %w", p, i, took, err))
		return 0, false
	}
	c.told(p, resp.GetOffset(), took)
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
	sending.Go(func() {
		for i := 0; !c.stopped(); i++ {
			c.mu.Lock()
			c.sent[p]++
			c.mu.Unlock()
			if s.Send(&logv1.ProduceRequest{Record: &logv1.Record{Value: value(p, i)}}) != nil {
				return // the receiver hears why
			}
			rest(c.ctx, rand.N(10*time.Millisecond))
		}
		_ = s.CloseSend()
	})
	defer sending.Wait()
	for i := 0; ; i++ {
		resp, err := s.Recv()
		if err != nil {
			c.mu.Lock()
			all := i == c.sent[p]
			c.mu.Unlock()
			if !c.stopped() || !all {
				c.fail(fmt.Errorf("produce stream %d after %d answers: %w", p, i, err))
			}
			return
		}
		c.told(p, resp.GetOffset(), 0)
	}
}

// reader reads at once what it has written, and asks where the log ends.
func (c *crowd) reader(p int, client logv1.LogClient) {
	end := uint64(0)
	for i := 0; !c.stopped(); i++ {
		offset, ok := c.produce(p, i, client)
		if !ok {
			return
		}
		resp, err := client.Consume(c.ctx, &logv1.ConsumeRequest{Offset: offset})
		switch {
		case err != nil:
			c.fail(fmt.Errorf("reader %d at %d: %w", p, offset, err))
			return
		case string(resp.GetRecord().GetValue()) != string(value(p, i)) || resp.GetRecord().GetOffset() != offset:
			c.fail(fmt.Errorf("reader %d at %d got %v", p, offset, resp.GetRecord()))
			return
		}
		got, err := client.GetOffsets(c.ctx, &logv1.GetOffsetsRequest{})
		switch {
		case err != nil:
			c.fail(fmt.Errorf("reader %d asks for the end: %w", p, err))
			return
		case got.GetNext() <= offset || got.GetNext() < end:
			c.fail(fmt.Errorf("reader %d: the log ends at %d, it wrote %d and knew of %d", p, got.GetNext(), offset, end))
			return
		}
		end = got.GetNext()
		c.reads.Add(1)
		rest(c.ctx, rand.N(20*time.Millisecond))
	}
}

// finish ends the crowd and holds every node's log against what it was told.
func (c *crowd) finish() {
	t, w := c.w.t, c.w
	t.Helper()
	close(c.stop)
	c.wg.Wait()
	c.mu.Lock()
	require.NoError(t, errors.Join(c.errs...))
	c.mu.Unlock()

	next := w.stats(w.leader()).GetVisible()
	acks := 0
	for p, offsets := range c.acked {
		require.Len(t, offsets, c.sent[p], "producer %d", p)
		acks += len(offsets)
	}
	require.EqualValues(t, acks, next, "records in the log")
	for _, n := range w.Nodes {
		c.checkNode(n, next)
	}
	w.until("the tails", func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if err := errors.Join(c.errs...); err != nil {
			return harness.Ended(err)
		}
		for i, at := range c.tails {
			if at.Load() < next {
				return fmt.Errorf("tail %d has read %d of %d", i, at.Load(), next)
			}
		}
		return nil
	})
	t.Logf("%d records acknowledged, %d read back at once, longest call %s", acks, c.reads.Load(), time.Duration(c.longest.Load()).Round(time.Millisecond))
}

// checkNode requires that n's log is exactly what was acknowledged: as many
// records as answers, each at the offset its producer was told.
func (c *crowd) checkNode(n *harness.Node, next uint64) {
	t := c.w.t
	t.Helper()
	conn := c.w.dial("client", n)
	err := harness.Tail(c.w.ctx, conn, 0, func(rec *logv1.Record) bool {
		num, err := harness.Number(rec.GetValue())
		require.NoError(t, err, n.Name)
		p, i := int(num>>32), int(uint32(num))
		require.Equal(t, c.acked[p][i], rec.GetOffset(), "%s: record %d of producer %d", n.Name, i, p)
		return rec.GetOffset()+1 < next
	})
	require.NoError(t, err, n.Name)
}
