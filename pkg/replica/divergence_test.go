package replica_test

import (
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
)

// unit is a fifth of the time between announcements, which is shorter than usual.
const unit = 200 * time.Millisecond

// diverging runs f over three nodes in virtual time, with something in their
// tables.
func diverging(t *testing.T, conf func(*replica.Config), f func(*sim)) {
	synctest.Test(t, func(t *testing.T) {
		c := boot(t, 3, func(cfg *replica.Config) {
			cfg.Heartbeat, cfg.Announce = 300*time.Millisecond, 5*unit
			if conf != nil {
				conf(cfg)
			}
		})
		s := &sim{cluster: c, rng: rand.New(rand.NewPCG(1, 0)), acked: map[uint64]string{},
			seq: map[[16]byte]uint64{}, sent: map[string]int{}}
		for i := range byte(20) {
			s.put([16]byte{1 + i%3})
		}
		for i := range byte(32) {
			s.key(1 + i)
		}
		f(s)
		c.close()
	})
}

// key puts a record with a request key.
func (s *sim) key(k byte) {
	x, err := s.leader().r.Submit(replica.Batch{Count: 1, Key: [16]byte{k}, Records: framed("keyed")})
	require.NoError(s.t, err)
	_, err = x.Result()
	require.NoError(s.t, err)
}

// work keeps the cluster busy for a while.
func (s *sim) work(d time.Duration) {
	for until := time.Now().Add(d); time.Now().Before(until); time.Sleep(100 * time.Millisecond) {
		s.put([16]byte{1})
	}
}

func (s *sim) follower() *node {
	l := s.leader()
	for _, n := range s.ordered() {
		if n != l {
			return n
		}
	}
	s.t.Fatal("no follower")
	return nil
}

// ended waits for a node's Run and takes the node down.
func (s *sim) ended(n *node, within time.Duration) error {
	select {
	case err := <-n.ended:
		n.ended <- err // for stop
		require.Equal(s.t, err, n.stop())
		return err
	case <-time.After(within):
		return nil
	}
}

// requireDiverged checks that a node ended itself, and stays down.
func (s *sim) requireDiverged(n *node, votes int) {
	s.t.Helper()
	err := s.ended(n, 20*unit)
	var fatal *replica.FatalError
	require.ErrorAs(s.t, err, &fatal, n.id)
	var diverged *replica.DivergenceError
	require.ErrorAs(s.t, err, &diverged)
	require.Equal(s.t, n.id, diverged.Node)
	require.Equal(s.t, votes, diverged.Votes)
	require.Equal(s.t, 3, diverged.Voters)
	require.NotEqual(s.t, diverged.Own, diverged.Majority)
	// Its data is not used again.
	var again *replica.DivergenceError
	_, err = replica.Open(replica.Config{ID: n.id, FS: n.fs, Dir: "data"})
	require.ErrorAs(s.t, err, &again)
	require.Equal(s.t, diverged.Index, again.Index)
}

func TestEqualNodesAgree(t *testing.T) {
	diverging(t, nil, func(s *sim) {
		s.work(30 * unit)
		for _, n := range s.ordered() {
			agree, differ, unknown := n.r.Compared()
			require.GreaterOrEqual(s.t, agree, 4, n.id)
			require.Zero(s.t, differ, n.id)
			require.Zero(s.t, unknown, n.id)
		}
		// Idle, they have nothing to say after what they had.
		time.Sleep(15 * unit)
		last := s.leader().r.Stats().LastIndex
		time.Sleep(20 * unit)
		require.Equal(s.t, last, s.leader().r.Stats().LastIndex)
		agree, _, _ := s.follower().r.Compared()
		s.put([16]byte{1})
		time.Sleep(20 * unit)
		require.Equal(s.t, last+3, s.leader().r.Stats().LastIndex, "a record, and two announcements")
		more, _, _ := s.follower().r.Compared()
		require.Equal(s.t, agree+2, more)
	})
}

// I17: whatever flips in a follower's memory, the follower stops and the others go on.
func TestADivergedFollowerStops(t *testing.T) {
	for _, what := range []string{"hash", "sequence", "window", "owner", "bytes", "key"} {
		t.Run(what, func(t *testing.T) {
			diverging(t, nil, func(s *sim) {
				s.work(6 * unit)
				n := s.follower()
				n.r.Flip(what)
				s.work(11 * unit)
				s.requireDiverged(n, 2)
				s.work(5 * unit)
				s.check()
				require.Len(s.t, s.ordered(), 2)
			})
		})
	}
}

// A leader that diverged hands over and stops.
func TestADivergedLeaderStops(t *testing.T) {
	diverging(t, nil, func(s *sim) {
		s.work(6 * unit)
		l := s.leader()
		term := l.r.View().Term
		l.r.Flip("hash")
		s.put([16]byte{2})
		for begin := time.Now(); len(l.ended) == 0 && time.Since(begin) < 20*unit; {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond) // less than an election would need to begin
		led := false
		for _, n := range s.ordered() {
			led = led || n != l && n.r.View().IsLeader
		}
		require.True(s.t, led, "it handed over before it ended")
		s.requireDiverged(l, 2)
		next := s.leader()
		require.NotEqual(s.t, l, next)
		require.Equal(s.t, term+1, next.r.View().Term, "it handed over, and there was no other election")
		s.work(5 * unit)
		s.check()
	})
}

// Without the detector a diverged node goes on for ever.
func TestWithoutTheDetectorADivergedNodeGoesOn(t *testing.T) {
	diverging(t, func(cfg *replica.Config) { cfg.Announce = -1 }, func(s *sim) {
		s.work(6 * unit)
		n := s.follower()
		n.r.Flip("hash")
		s.work(20 * unit)
		require.NoError(s.t, s.ended(n, 20*unit))
		require.NotEqual(s.t, s.leader().r.Stats().Hash, n.r.Stats().Hash)
	})
}

// Where no two of three agree, nobody can be right, and all stop.
func TestThreeThatDifferAllStop(t *testing.T) {
	diverging(t, nil, func(s *sim) {
		s.work(6 * unit)
		all := s.ordered()
		all[0].r.Flip("hash")
		all[1].r.Flip("other hash")
		time.Sleep(100 * time.Millisecond)
		s.offer(20 * unit)
		for _, n := range all {
			s.requireDiverged(n, 0)
		}
	})
}

// offer submits records for a while and takes what comes of it; what is
// acknowledged counts.
func (s *sim) offer(d time.Duration) (taken, refused int) {
	for until := time.Now().Add(d); time.Now().Before(until); time.Sleep(100 * time.Millisecond) {
		for _, n := range s.ordered() {
			x, err := n.r.Submit(replica.Batch{Count: 1, Records: framed("offered")})
			if err == nil {
				var res replica.Result
				if res, err = x.Wait(s.t.Context()); err == nil {
					s.acked[res.FirstOffset] = "offered"
					taken++
				}
			}
			if errors.Is(err, replica.ErrDraining) {
				refused++
			}
		}
	}
	return taken, refused
}

// A voter that cannot be asked delays the verdict. Until then neither of the two
// that differ takes anything, or says that it is ready.
func TestAPartitionDelaysTheVerdict(t *testing.T) {
	diverging(t, nil, func(s *sim) {
		s.work(6 * unit)
		l, wrong := s.leader(), s.follower()
		var away *node
		for _, n := range s.ordered() {
			if n != l && n != wrong {
				away = n
			}
		}
		s.partition(away)
		s.work(5 * unit)
		wrong.r.Flip("sequence")
		s.offer(11 * unit)
		require.Equal(s.t, l, s.leader())
		require.True(s.t, l.r.Doubted())
		require.True(s.t, wrong.r.Doubted())
		taken, refused := s.offer(30 * unit)
		require.Zero(s.t, taken)
		require.Positive(s.t, refused)
		for _, n := range []*node{l, wrong} {
			require.False(s.t, n.r.View().Ready, n.id)
			require.NoError(s.t, s.ended(n, 0))
		}
		s.heal()
		s.offer(10 * unit)
		s.requireDiverged(wrong, 2)
		require.False(s.t, s.leader().r.Doubted())
		s.work(5 * unit)
		for _, n := range s.ordered() {
			n.await("ready again", func(v replica.View) bool { return v.Ready })
		}
		for off, m := range s.acked {
			if m == "offered" {
				delete(s.acked, off) // told apart by nothing
			}
		}
		s.check()
	})
}

// A node that is restored past an announced entry, from its own checkpoint or
// another's, has nothing to compare there and agrees from then on.
func TestANodeRestoredPastAnAnnouncementSkipsIt(t *testing.T) {
	diverging(t, func(cfg *replica.Config) { cfg.CheckpointEntries = 40 }, func(s *sim) {
		s.work(6 * unit)
		n := s.follower()
		require.NoError(s.t, n.r.Checkpoint())
		require.NoError(s.t, n.stop())
		n.start()
		s.work(12 * unit)
		agree, differ, unknown := n.r.Compared()
		require.Positive(s.t, agree)
		require.Zero(s.t, differ)
		require.Positive(s.t, unknown)

		require.NoError(s.t, n.stop())
		s.work(10 * unit)
		require.NoError(s.t, s.leader().r.SetLowest(s.t.Context(), s.leader().r.Log().Visible()))
		s.work(5 * unit)
		n.start()
		s.work(11 * unit)
		require.NotZero(s.t, n.r.Log().Start().Index, "it took over a checkpoint")
		agree, differ, _ = n.r.Compared()
		require.Positive(s.t, agree)
		require.Zero(s.t, differ)
		require.False(s.t, n.r.Doubted())
		s.check()
	})
}

// What a diverged node has on its disk is found too, also by a node that was
// started with it and has nothing to compare with yet.
func TestADivergedCheckpointIsFound(t *testing.T) {
	diverging(t, nil, func(s *sim) {
		s.work(6 * unit)
		n := s.follower()
		n.r.Flip("sequence")
		require.NoError(s.t, n.r.Checkpoint())
		require.NoError(s.t, n.stop())
		n.start()
		s.work(12 * unit)
		s.requireDiverged(n, 2)
		s.check()
	})
}

// What peers say is weighed: a stranger's word is none, one voter's is no
// majority, and of an entry to come nothing is said.
func TestCompareHash(t *testing.T) {
	diverging(t, nil, func(s *sim) {
		s.work(12 * unit)
		l, other := s.leader(), s.follower()
		last := l.r.Stats().LastIndex
		var behind *replica.BehindError
		_, _, err := l.r.CompareHash("n2", last+100, 1)
		require.ErrorAs(s.t, err, &behind)
		known, _, err := l.r.CompareHash("n2", 1, 1)
		require.NoError(s.t, err)
		require.False(s.t, known)
		var at, digest uint64
		for i := last; i > 0; i-- {
			if known, own, err := l.r.CompareHash("nobody", i, 1); err == nil && known {
				at, digest = i, own
				break
			}
		}
		require.NotZero(s.t, at)
		require.False(s.t, l.r.Doubted(), "a stranger to the configuration")
		known, same, err := l.r.CompareHash(replica.NameOf(other.id), at, digest)
		require.NoError(s.t, err)
		require.True(s.t, known)
		require.Equal(s.t, digest, same)
		require.False(s.t, l.r.Doubted())

		known, _, err = l.r.CompareHash(replica.NameOf(other.id), at, digest+1)
		require.NoError(s.t, err)
		require.False(s.t, known, "a fingerprint of another version")
		require.False(s.t, l.r.Doubted())
		_, _, err = l.r.CompareHash(replica.NameOf(other.id), at, digest+1<<20)
		require.NoError(s.t, err)
		s.work(5 * unit)
		require.False(s.t, l.r.Doubted(), "the third agrees")
		require.Len(s.t, s.ordered(), 3)
	})
}

// noted finds the newest entry at which a node remembers its state.
func (n *node) noted() uint64 {
	n.c.t.Helper()
	for i := n.r.Stats().AppliedIndex; i > 0; i-- {
		if known, _, err := n.r.CompareHash("stranger", i, 1); err == nil && known {
			return i
		}
	}
	n.c.t.Fatalf("%s remembers nothing", n.id)
	return 0
}

// A leader that is doubted at an entry which the voters have forgotten asks again
// at the next it announces. Nobody else's word would end its doubt.
func TestADoubtThatNobodyRemembersEnds(t *testing.T) {
	diverging(t, nil, func(s *sim) {
		s.work(12 * time.Second)
		l, liar := s.leader(), s.follower()
		index := l.noted()
		for _, n := range s.ordered() {
			if n == l {
				continue
			}
			n.visible(l.r.Log().Visible())
			require.NoError(t, n.r.Checkpoint()) // it starts from there, without what it noted
			require.NoError(t, n.stop())
			n.start()
			s.work(3 * time.Second)
		}
		require.Equal(t, l, s.leader())
		known, own, err := l.r.CompareHash(replica.NameOf(liar.id), index, 1<<20|1)
		require.NoError(t, err)
		require.True(t, known)
		require.NotEqual(t, uint64(1<<20|1), own)
		require.True(t, l.r.Doubted())
		time.Sleep(2*replica.DefaultAnnounce + 5*time.Second)
		require.False(t, l.r.Doubted())
		require.True(t, l.r.View().Ready)
		s.work(time.Second)
	})
}

// A doubt whose cause is gone ends though a voter is away, which would have been
// asked about it, and though a leader hears nobody's word but its own.
func TestADoubtEndsWithItsCause(t *testing.T) {
	diverging(t, nil, func(s *sim) {
		s.work(6 * unit)
		l, wrong := s.leader(), s.follower()
		for _, n := range s.ordered() {
			if n != l && n != wrong {
				s.partition(n)
			}
		}
		s.work(5 * unit)
		wrong.r.Flip("owner")
		s.offer(11 * unit)
		require.True(s.t, l.r.Doubted())
		require.True(s.t, wrong.r.Doubted())
		wrong.r.Flip("owner")
		for _, n := range []*node{l, wrong} {
			n.await("ready again", func(v replica.View) bool { return v.Ready })
			require.False(s.t, n.r.Doubted(), n.id)
		}
		require.Equal(s.t, l, s.leader())
		s.heal()
		s.work(5 * unit)
		require.Len(s.t, s.ordered(), 3)
	})
}

// A follower in a doubt that no voter can decide is ready again though nothing is
// written: that it asks makes the leader announce how it stands.
func TestADoubtEndsOnAnIdleLog(t *testing.T) {
	diverging(t, nil, func(s *sim) {
		s.work(6 * unit)
		time.Sleep(40 * unit) // all is said
		n := s.follower()
		last := n.r.Log().Last()
		n.r.Doubt()
		n.await("in doubt", func(v replica.View) bool { return !v.Ready })
		n.await("ready again", func(v replica.View) bool { return v.Ready })
		require.False(s.t, n.r.Doubted())
		time.Sleep(40 * unit)
		require.LessOrEqual(s.t, n.r.Log().Last(), last+4, "and then the log is idle again")
	})
}
