package replica_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
)

// simSeed lets a failing run be repeated: LOGD_SIM_SEED=<n> go test -run <test>.
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

// sim is a cluster in virtual time with producers that never give up, for tests
// of one kind of trouble. All kinds together are in simulation_test.go.
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
