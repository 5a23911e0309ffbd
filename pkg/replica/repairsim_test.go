package replica_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/replica"
)

// ruiner damages one node at a time, running or not, and lets the cluster suffer
// other things meanwhile.
type ruiner struct {
	*sim
	rng  *rand.Rand
	done map[string]int // what was damaged, how often

	ackMu sync.Mutex
	got   map[uint64]string // offset → record, of everything acknowledged; guarded by ackMu
}

// leading gives a replica that takes itself for the leader, nil when none does.
func (s *ruiner) leading() *replica.Replica {
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
func (s *ruiner) windowed(id byte, batches int, rng *rand.Rand) {
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

func (s *ruiner) ack(res replica.Result, seq uint64, name func(uint64) string) {
	s.ackMu.Lock()
	defer s.ackMu.Unlock()
	for i := range uint64(res.Count) {
		msg := name(seq + i)
		if was, ok := s.got[res.FirstOffset+i]; ok && was != msg {
			s.t.Errorf("offset %d is %q and %q", res.FirstOffset+i, was, msg)
		}
		s.got[res.FirstOffset+i] = msg
	}
}

// round damages one node, in whatever state, and waits until it is whole.
func (s *ruiner) round(t *testing.T) {
	up := s.ordered()
	n := up[s.rng.IntN(len(up))]
	kinds := []string{"sealed", "sealed", "tail", "offsets", "checkpoint", "all checkpoints", "stable"}
	hows := []string{"flip", "flip", "zero", "truncate", "swap", "remove"}
	kind, how := kinds[s.rng.IntN(len(kinds))], hows[s.rng.IntN(len(hows))]
	running := s.rng.IntN(2) == 0
	if !running {
		_ = n.stop()
		time.Sleep(time.Duration(s.rng.IntN(2000)) * time.Millisecond)
	}
	did := damage(t, n, kind, how, s.rng)
	if did != "" {
		s.done[kind+" "+how]++
	}
	switch s.rng.IntN(4) {
	case 0: // the leader goes, damaged or not
		if r := s.leading(); r != nil {
			_ = r.Transfer(t.Context(), "")
		}
	case 1: // another node is killed, and comes back
		for _, x := range s.ordered() {
			if x != n {
				_ = x.stop()
				time.Sleep(time.Duration(s.rng.IntN(2000)) * time.Millisecond)
				x.start()
				break
			}
		}
	case 2: // the damaged one is killed, again or for the first time
		if running {
			_ = n.stop()
		}
	}
	if n.r == nil {
		n.start()
	}
	n.provoke()
	n.healed()
}

// reader reads records anywhere and holds them against what was acknowledged: a
// node may refuse, or be away, but never answer with something else.
func (s *ruiner) reader(stop chan struct{}, rng *rand.Rand) (read, refused int) {
	for {
		select {
		case <-stop:
			return read, refused
		case <-time.After(7 * time.Millisecond):
		}
		s.mu.Lock()
		r := s.nodes[nodeID(1+rng.IntN(3))].r
		s.mu.Unlock()
		if r == nil || r.Log().Visible() == 0 {
			continue
		}
		off := rng.Uint64N(r.Log().Visible())
		got, err := r.Log().Read(off, 1)
		var corrupt *commitlog.CorruptError
		if err != nil {
			if errors.As(err, &corrupt) {
				refused++
			}
			continue
		}
		read++
		msg := split(s.t, got[0])[off-got[0].FirstOffset]
		s.ackMu.Lock()
		want, ok := s.got[off]
		s.ackMu.Unlock()
		if ok && want != msg {
			s.t.Errorf("offset %d is %q, and was read as %q", off, want, msg)
			return read, refused
		}
	}
}

// P1, P2, P3, P6: whatever happens to the files of one node at a time, under load
// and with nodes and leaders going, everything acknowledged is there, once, where
// it was said to be, on every node, and nothing else was ever read.
func runRepairs(t *testing.T, seed uint64, rounds int) {
	synctest.Test(t, func(t *testing.T) {
		c := boot(t, 3, func(cfg *replica.Config) {
			small(cfg)
			cfg.ScrubRate = 1 << 20
		})
		s := &ruiner{sim: &sim{cluster: c}, rng: rand.New(rand.NewPCG(seed, 1)), done: map[string]int{}, got: map[uint64]string{}}
		c.leader()
		stop := make(chan struct{})
		var load, readers sync.WaitGroup
		for i := range byte(3) {
			load.Go(func() { s.windowed(1+i, 40*rounds, rand.New(rand.NewPCG(seed, uint64(10+i)))) })
		}
		var read, refused int
		readers.Go(func() { read, refused = s.reader(stop, rand.New(rand.NewPCG(seed, 30))) })
		time.Sleep(3 * time.Second) // so that there is something to damage
		begin := time.Now()
		for range rounds {
			s.round(t)
		}
		took := time.Since(begin)
		load.Wait()
		close(stop)
		readers.Wait()
		c.produce([16]byte{42}, 0, "the end")
		for _, n := range c.up() {
			n.provoke() // what was in memory when it was last read may be damaged on disk
			n.healed()
		}
		want := c.leader().raw()
		for _, n := range c.up() {
			n.visible(c.leader().r.Log().Visible())
			_, msgs := n.read()
			seen := map[string]bool{}
			for off, m := range msgs {
				require.False(t, seen[m], "%s: %q twice, at %d", n.id, m, off)
				seen[m] = true
			}
			for off, m := range s.got {
				require.Less(t, off, uint64(len(msgs)), "%s lost %q", n.id, m)
				require.Equal(t, m, msgs[off], "%s at %d", n.id, off)
			}
			got := n.raw()
			require.Equal(t, want[:min(len(want), len(got))], got[:min(len(want), len(got))], n.id)
		}
		t.Logf("%d acknowledged; %d reads, %d of them refused; %v in %v", len(s.got), read, refused, s.done, took.Round(time.Second))
		c.close()
	})
}

func TestRepairSimulation(t *testing.T) {
	for i := range uint64(3) {
		seed := uint64(simSeed(t)) + i
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { runRepairs(t, seed, 25) })
	}
}
