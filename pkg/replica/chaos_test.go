package replica_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
)

// chaos is a cluster in virtual time whose disks take time to sync, so that
// trouble comes in the middle of writes, with producers that keep a window of
// batches in flight.
type chaos struct {
	*sim
	dark atomic.Bool // a power loss is being staged: nobody hears of anything

	ackMu sync.Mutex
	got   map[uint64]string // offset → record, of everything acknowledged; guarded by ackMu
	again int               // acknowledgements of repeats; guarded by ackMu
	kinds [8]int            // of trouble; of nemesis
}

// lose takes the power from nodes. They are cut off first, so that nobody hears
// of what a disk did after the moment its node is thrown back to.
func (s *chaos) lose(nodes []*node, seed uint64) {
	s.dark.Store(true)
	for _, n := range nodes {
		s.partition(n)
	}
	for i, n := range nodes {
		n.lose(seed + uint64(i))
	}
	s.heal()
	s.dark.Store(false)
}

// leading gives a replica that takes itself for the leader, nil when none does.
func (s *chaos) leading() *replica.Replica {
	for _, n := range s.up() {
		s.mu.Lock()
		r := n.r
		s.mu.Unlock()
		if r != nil && r.View().State == replica.StateLeader {
			return r
		}
	}
	return nil
}

// windowed produces batches of a producer, up to five in flight, and sends all
// that are not acknowledged again, oldest first, after any failure.
func (s *chaos) windowed(id byte, batches int, rng *rand.Rand) {
	p := [16]byte{id}
	var open []replica.Batch
	name := func(seq uint64) string { return fmt.Sprintf("%d/%d", id, seq) }
	seq := uint64(0)
	resend := false
	var pending []*replica.Pending
	for made := 0; made < batches || len(open) > 0; {
		time.Sleep(time.Duration(rng.IntN(30)) * time.Millisecond)
		r := s.leading()
		if r == nil {
			continue
		}
		if resend {
			pending, resend = pending[:0], false
			for _, b := range open {
				b.Records = append([]byte(nil), b.Records...)
				x, err := r.Submit(b)
				if err != nil {
					resend = true
					break
				}
				pending = append(pending, x)
			}
		}
		for !resend && made < batches && len(open) < 5 && rng.IntN(4) > 0 {
			count := uint32(1 + rng.IntN(3))
			var msgs []string
			for i := range uint64(count) {
				msgs = append(msgs, name(seq+i))
			}
			b := replica.Batch{Producer: p, Owner: 7, FirstSeq: seq, Count: count, Records: framed(msgs...), Timestamp: time.Now().UnixNano()}
			open = append(open, b)
			seq += uint64(count)
			made++
			x, err := r.Submit(b)
			if err != nil {
				resend = true
				break
			}
			pending = append(pending, x)
		}
		for n := 1 + rng.IntN(5); n > 0 && len(pending) > 0; n-- {
			res, err := pending[0].Result()
			if s.dark.Load() {
				resend = true
				break
			}
			var unknown *replica.UnknownProducerError
			var gap *replica.GapError
			if errors.As(err, &unknown) || errors.As(err, &gap) && gap.Want > open[0].FirstSeq {
				s.t.Errorf("producer %d, sequence %d: %v", id, open[0].FirstSeq, err)
				return
			}
			if err != nil {
				resend = true
				break
			}
			s.ack(res, open[0].FirstSeq, name)
			open, pending = open[1:], pending[1:]
		}
	}
}

// keyed sends records with a request key, each until it is known, some again
// after it.
func (s *chaos) keyed(id byte, records int, rng *rand.Rand) {
	for i := range records {
		msg := fmt.Sprintf("%d/%d", id, i)
		for again := 1 + rng.IntN(2); again > 0; {
			time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
			r := s.leading()
			if r == nil {
				continue
			}
			x, err := r.Submit(replica.Batch{Count: 1, Key: [16]byte{id, byte(i), byte(i >> 8)}, Records: framed(msg), Timestamp: 1})
			if err != nil {
				continue
			}
			if res, err := x.Result(); err == nil && !s.dark.Load() {
				s.ack(res, 0, func(uint64) string { return msg })
				again--
			}
		}
	}
}

func (s *chaos) ack(res replica.Result, seq uint64, name func(uint64) string) {
	s.ackMu.Lock()
	defer s.ackMu.Unlock()
	if res.Duplicate {
		s.again++
	}
	for i := range uint64(res.Count) {
		msg := name(seq + i)
		if was, ok := s.got[res.FirstOffset+i]; ok && was != msg {
			s.t.Errorf("offset %d is %q and %q", res.FirstOffset+i, was, msg)
		}
		s.got[res.FirstOffset+i] = msg
	}
}

func (s *chaos) nemesis(rng *rand.Rand, stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(50+rng.IntN(1500)) * time.Millisecond):
		}
		up := s.ordered()
		n := up[rng.IntN(len(up))]
		kind := rng.IntN(8)
		s.kinds[kind]++
		switch {
		case kind < 3:
			s.lose(up, rng.Uint64())
		case kind == 3:
			s.lose([]*node{n}, rng.Uint64())
		case kind == 4:
			_ = n.stop()
		case kind == 5:
			s.partition(n)
			time.Sleep(time.Duration(rng.IntN(2000)) * time.Millisecond)
			s.heal()
		case kind == 6:
			if r := s.leading(); r != nil {
				_ = r.Transfer(s.t.Context(), "")
			}
		default:
			_ = n.r.Checkpoint() // may be refused, or cut short
		}
		for i := 1; i <= 3; i++ {
			if x := s.node(nodeID(i)); x.r == nil {
				x.start()
			}
		}
	}
}

// I4, I10: with trouble at any moment of any write, everything acknowledged is
// there, once, in order, where it was said to be.
func runChaos(t *testing.T, seed uint64, batches int) {
	synctest.Test(t, func(t *testing.T) {
		latency := rand.New(rand.NewPCG(seed, 99))
		var mu sync.Mutex
		slow := func(faultfs.Op) (int, error) {
			mu.Lock()
			d := time.Duration(latency.IntN(4000)) * time.Microsecond
			mu.Unlock()
			time.Sleep(d)
			return -1, nil
		}
		c := boot(t, 3, func(cfg *replica.Config) {
			cfg.Heartbeat = 300 * time.Millisecond
			cfg.CheckpointEntries = 24
			cfg.SegmentBytes, cfg.CacheBytes = 4096, 2048
			cfg.FS = faultfs.Wrap(cfg.FS, faultfs.When(faultfs.Is(faultfs.Sync, faultfs.SyncDir), slow))
		})
		rng := rand.New(rand.NewPCG(seed, 0))
		s := &chaos{sim: &sim{cluster: c, rng: rng}, got: map[uint64]string{}}
		c.leader()
		begin := time.Now()
		stop := make(chan struct{})
		var trouble, load sync.WaitGroup
		trouble.Go(func() { s.nemesis(rand.New(rand.NewPCG(seed, 1)), stop) })
		for i := range byte(3) {
			load.Go(func() { s.windowed(1+i, batches, rand.New(rand.NewPCG(seed, uint64(10+i)))) })
		}
		load.Go(func() { s.keyed(9, batches/4, rand.New(rand.NewPCG(seed, 20))) })
		load.Wait()
		close(stop)
		trouble.Wait()
		s.heal()
		c.produce([16]byte{42}, 0, "the end")
		for _, n := range c.up() {
			end := c.leader().r.Log().Visible()
			n.visible(end)
			lowest, msgs := n.read()
			require.Zero(t, lowest)
			seen := map[string]bool{}
			next := map[string]int{}
			for off, m := range msgs {
				require.False(t, seen[m], "%s: %q twice, at %d", n.id, m, off)
				seen[m] = true
				var p, q int
				if k, _ := fmt.Sscanf(m, "%d/%d", &p, &q); k == 2 {
					require.Equal(t, next[fmt.Sprint(p)], q, "%s: order of producer %d at %d", n.id, p, off)
					next[fmt.Sprint(p)]++
				}
			}
			for off, m := range s.got {
				require.Less(t, off, uint64(len(msgs)), "%s lost %q", n.id, m)
				require.Equal(t, m, msgs[off], "%s at %d", n.id, off)
			}
		}
		t.Logf("%d acknowledged, %d times as repeats, in %v; trouble %v, term %d", len(s.got), s.again,
			time.Since(begin).Round(time.Second), s.kinds, c.leader().r.View().Term)
		c.close()
	})
}

func TestChaos(t *testing.T) {
	seed := simSeed(t)
	runChaos(t, uint64(seed), 800)
}
