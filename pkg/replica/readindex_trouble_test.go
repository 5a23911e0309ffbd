package replica_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
)

// lateNet is a network on which what a node is answered may come late, and on which
// a node can be cut off; what was under way then arrives when it is healed.
type lateNet struct {
	mu      sync.Mutex
	rng     *rand.Rand               // guarded by mu
	slow    map[string]time.Duration // at most so late are a node's answers; guarded by mu
	cut     string                   // the node that is cut off; guarded by mu
	changed chan struct{}            // closed and replaced, under mu, when cut changes
}

func (l *lateNet) isolate(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = id
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *lateNet) delay(id string, most time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slow[id] = most
}

type lateConn struct {
	net.Conn
	l        *lateNet
	from, to string
	once     sync.Once
	closed   chan struct{}
}

func (c *lateConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// Read gives what has come; that of a cut does not keep back what had left before.
func (c *lateConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.l.mu.Lock()
	var late time.Duration
	if most := c.l.slow[c.from]; most > 0 {
		late = time.Duration(c.l.rng.Int64N(int64(most)))
	}
	c.l.mu.Unlock()
	if late > 0 {
		timer := time.NewTimer(late)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.closed:
		}
	}
	return n, err
}

func (c *lateConn) Write(b []byte) (int, error) {
	for {
		c.l.mu.Lock()
		wait, changed := c.l.cut == c.from || c.l.cut == c.to, c.l.changed
		c.l.mu.Unlock()
		if !wait {
			return c.Conn.Write(b)
		}
		select {
		case <-changed:
		case <-c.closed:
			return 0, net.ErrClosed
		}
	}
}

// troubledReads has leaders cut off again and again while old answers to them are
// still on their way. It counts the linearizable reads, and those that missed what
// had been acknowledged before they began.
func troubledReads(t *testing.T, seed uint64, rounds int, off ...replica.Switch) (reads, stale int) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		l := &lateNet{rng: rand.New(rand.NewPCG(seed, 0)), slow: map[string]time.Duration{}, changed: make(chan struct{})}
		c := newCluster(t, func(cfg *replica.Config) {
			cfg.Heartbeat = 300 * time.Millisecond
			if cfg.ID == nodeID(1) {
				cfg.Heartbeat = 3 * time.Second // it takes itself for the leader for long
			}
		}, off...)
		defer c.close()
		c.wrap = func(from, to string, conn net.Conn) net.Conn {
			return &lateConn{Conn: conn, l: l, from: from, to: to, closed: make(chan struct{})}
		}
		ids := []string{nodeID(1), nodeID(2), nodeID(3)}
		for _, id := range ids {
			c.add(id).start()
		}
		require.NoError(t, c.node(ids[0]).r.Bootstrap(ctx, testCluster, ids))
		for _, id := range ids[1:] {
			require.NoError(t, c.node(id).r.Bind(testCluster))
		}
		c.produce([16]byte{1}, 0, "first")

		var mu sync.Mutex
		acked := uint64(1) // guarded by mu, as reads and stale are
		stop := make(chan struct{})
		stopped := func() bool {
			select {
			case <-stop:
				return true
			default:
				return false
			}
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			for seq := uint64(1); !stopped(); {
				for _, id := range ids {
					r := c.node(id).r
					if r.View().State != replica.StateLeader {
						continue
					}
					p, err := r.Submit(sequenced(1, 0, seq, fmt.Sprint(seq)))
					if err != nil {
						continue
					}
					bounded, cancel := context.WithTimeout(ctx, 400*time.Millisecond)
					res, err := p.Wait(bounded)
					cancel()
					if err == nil {
						mu.Lock()
						acked = max(acked, res.FirstOffset+1)
						mu.Unlock()
						seq++
						break
					}
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
		for _, id := range ids {
			wg.Go(func() {
				for !stopped() {
					mu.Lock()
					want := acked
					mu.Unlock()
					bounded, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
					at, err := c.node(id).r.ReadIndex(bounded)
					cancel()
					if err == nil {
						mu.Lock()
						reads++
						if at < want {
							stale++
						}
						mu.Unlock()
					}
					time.Sleep(7 * time.Millisecond)
				}
			})
		}
		for range rounds {
			old := c.leader()
			if first := c.node(ids[0]); old != first {
				if old.r.Transfer(ctx, first.id) != nil {
					time.Sleep(100 * time.Millisecond)
					continue
				}
				time.Sleep(500 * time.Millisecond)
				old = first
			}
			l.delay(old.id, 3*time.Second)
			time.Sleep(50 * time.Millisecond)
			l.isolate(old.id)
			time.Sleep(4 * time.Second)
			l.delay(old.id, 0)
			l.isolate("")
			time.Sleep(time.Second)
		}
		close(stop)
		wg.Wait()
		require.Greater(t, acked, uint64(rounds), "produces went on")
	})
	return reads, stale
}

// Whatever happens to leaders, no linearizable read misses what was acknowledged
// before it began. With answers to older requests counted, some do.
func TestNoStaleReadsInTrouble(t *testing.T) {
	seed := uint64(simSeed(t))
	reads, stale := troubledReads(t, seed, 20)
	t.Logf("%d reads", reads)
	require.Greater(t, reads, 1000)
	require.Zero(t, stale)
	reads, stale = troubledReads(t, seed, 20, replica.OlderAnswers)
	t.Logf("counting older answers: %d of %d reads are stale", stale, reads)
	require.Positive(t, stale, "this is what the rule is for")
}
