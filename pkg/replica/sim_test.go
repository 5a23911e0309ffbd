package replica_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
)

// simSeed lets a failing run be repeated: LOGD_SIM_SEED=<n> go test -run Sim.
func simSeed(t *testing.T) int64 {
	seed := int64(1)
	if s := os.Getenv("LOGD_SIM_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseInt(s, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("seed %d", seed)
	return seed
}

// sim is a cluster in virtual time with producers that never give up, and a
// nemesis that kills, cuts and takes the power from its nodes.
type sim struct {
	*cluster
	rng   *rand.Rand
	acked map[uint64]string // offset → record, of everything acknowledged
	seq   map[[16]byte]uint64
	sent  map[string]int // how often each record was sent
}

// put sends the producer's next record until its outcome is known, or the
// virtual deadline passes, which is a failure: somebody must lead again.
func (s *sim) put(p [16]byte) {
	msg := fmt.Sprintf("%d/%d", p[0], s.seq[p])
	b := replica.Batch{Producer: p, Owner: 1, FirstSeq: s.seq[p], Count: 1, Records: framed(msg), Timestamp: time.Now().UnixNano()}
	deadline := time.Now().Add(2 * time.Minute)
	for time.Now().Before(deadline) {
		for _, n := range s.ordered() {
			if n.r.View().State != replica.StateLeader {
				continue
			}
			s.sent[msg]++
			pending, err := n.r.Submit(b)
			if err != nil {
				continue
			}
			res, err := pending.Result()
			if err == nil {
				other, known := s.acked[res.FirstOffset]
				require.False(s.t, known && other != msg, "offset %d is %q and %q", res.FirstOffset, other, msg)
				s.acked[res.FirstOffset] = msg
				s.seq[p]++
				return
			}
			var gap *replica.GapError
			require.False(s.t, errors.As(err, &gap), "a record acknowledged before is gone: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.t.Fatalf("%s was not acknowledged in two minutes", msg)
}

// ordered gives the running nodes in a fixed order, so that a seed repeats.
func (s *sim) ordered() (up []*node) {
	for i := 1; i <= 3; i++ {
		if n := s.node(nodeID(i)); n.r != nil {
			up = append(up, n)
		}
	}
	return up
}

// check compares every running node with what was acknowledged.
func (s *sim) check() {
	s.equal()
	for _, n := range s.ordered() {
		lowest, msgs := n.read()
		times := map[string]int{}
		for i, m := range msgs {
			times[m]++
			if want, ok := s.acked[lowest+uint64(i)]; ok {
				require.Equal(s.t, want, m, "%s, offset %d", n.id, lowest+uint64(i))
			}
		}
		for off, m := range s.acked {
			if off >= lowest {
				require.Equal(s.t, 1, times[m], "%s: %q, acknowledged at %d and sent %d times", n.id, m, off, s.sent[m])
			}
		}
	}
}

// simulate runs rounds of trouble and checks after each.
func simulate(t *testing.T, seed int64, rounds int, off ...replica.Switch) (virtual time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		c := boot(t, 3, func(cfg *replica.Config) {
			cfg.Heartbeat = 300 * time.Millisecond
			cfg.CheckpointEntries = 16
			cfg.SegmentBytes, cfg.CacheBytes = 4096, 2048
		}, off...)
		s := &sim{cluster: c, rng: rand.New(rand.NewPCG(uint64(seed), 0)), acked: map[uint64]string{},
			seq: map[[16]byte]uint64{}, sent: map[string]int{}}
		producers := [][16]byte{{1}, {2}, {3}}
		s.put(producers[0]) // before that only the initiator knows the cluster
		for round := range rounds {
			n := s.node(nodeID(1 + s.rng.IntN(3)))
			for i := 1; i <= 3; i++ {
				if x := s.node(nodeID(i)); x.r == nil {
					n = x // one at a time, or nobody could lead
				}
			}
			switch kind := s.rng.IntN(5); kind {
			case 0: // a kill, and the node stays away for a while
				_ = n.stop()
			case 1: // power loss of one
				n.lose(uint64(s.rng.Int64()))
			case 2: // power loss of all
				for _, x := range s.ordered() {
					x.lose(uint64(s.rng.Int64()))
				}
				for i := 1; i <= 3; i++ {
					if x := s.node(nodeID(i)); x.r == nil {
						x.start()
					}
				}
			case 3: // a partition: existing connections die, new ones are refused
				s.partition(n)
			case 4: // retention
				l := s.leader()
				_ = l.r.SetLowest(t.Context(), max(l.r.Log().Visible(), 5)-5)
			}
			for range 5 + s.rng.IntN(40) {
				s.put(producers[s.rng.IntN(len(producers))])
			}
			s.heal()
			for i := 1; i <= 3; i++ {
				if x := s.node(nodeID(i)); x.r == nil && s.rng.IntN(3) == 0 {
					x.start() // or it lags on, perhaps behind everyone's start
				}
			}
			s.put(producers[round%len(producers)])
			s.check()
		}
		virtual = time.Since(begin)
		c.close()
	})
	return virtual
}

// partition cuts a node off from the others.
func (s *sim) partition(n *node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.nodes {
		if id != n.id {
			s.cut[[2]string{n.id, id}] = true
		}
	}
	for pair, conns := range s.live {
		if s.cut[pair] || s.cut[[2]string{pair[1], pair[0]}] {
			for _, conn := range conns {
				_ = conn.Close()
			}
			delete(s.live, pair)
		}
	}
}

func (s *sim) heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.cut)
}

func TestSimulation(t *testing.T) {
	seed := simSeed(t)
	begin := time.Now()
	var off []replica.Switch
	if s := os.Getenv("LOGD_SIM_WITHOUT"); s != "" {
		off = append(off, replica.Switch(s)) // to see the simulation find the bug
	}
	virtual := simulate(t, seed, 60, off...)
	t.Logf("%v of cluster time in %v", virtual.Round(time.Second), time.Since(begin).Round(time.Millisecond))
}
