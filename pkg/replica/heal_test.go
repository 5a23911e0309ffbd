package replica_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs"
)

// flipAt flips a bit of an entry's data in a node's segments, and leaves its frame
// header alone; header says to flip one of that instead.
func (n *node) flipAt(data []byte, header bool) {
	n.c.t.Helper()
	for _, name := range files(n.c.t, n.fs, ".seg") {
		b, err := vfs.ReadFile(n.fs, name)
		require.NoError(n.c.t, err)
		if at := bytes.Index(b, data); at >= 0 {
			if header {
				at -= 40 // into the index
			}
			require.NoError(n.c.t, n.fs.Corrupt(name, int64(at), 4))
			return
		}
	}
	require.Fail(n.c.t, "no such entry")
}

// filled is a small cluster with some records, everywhere.
func filled(t *testing.T, records int, conf func(*replica.Config), off ...replica.Switch) *sim {
	c := boot(t, 3, conf, off...)
	s := &sim{cluster: c, rng: rand.New(rand.NewPCG(1, 0)), acked: map[uint64]string{}, seq: map[[16]byte]uint64{}, sent: map[string]int{}}
	for range records {
		s.put([16]byte{1})
	}
	s.equal()
	return s
}

// followers gives the nodes that do not lead.
func (s *sim) followers() (f []*node) {
	l := s.leader()
	for _, n := range s.ordered() {
		if n != l {
			f = append(f, n)
		}
	}
	return f
}

// A leader that reads a damaged record hands leadership on before it repairs, says
// DataLoss and nothing else for the record until then, and serves the rest.
func TestADamagedLeaderStepsDownAndRepairs(t *testing.T) {
	for _, header := range []bool{false, true} {
		t.Run(fmt.Sprintf("header %t", header), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := filled(t, 150, small)
				l := s.leader()
				e, err := l.r.Log().Entry(20)
				require.NoError(t, err)
				l.flipAt(e.Data, header)
				_, err = l.r.Log().Entry(20)
				var corrupt *commitlog.CorruptError
				require.ErrorAs(t, err, &corrupt, "what is damaged is not served")
				lowest, visible := l.r.Log().Lowest(), l.r.Log().Visible()
				served := 0
				for off := lowest; off < visible; off++ {
					if b, err := l.r.Log().Read(off, 1); err == nil {
						require.Equal(t, s.acked[off], split(t, b[0])[off-b[0].FirstOffset])
						served++
					}
				}
				require.Greater(t, served, int(visible-lowest)-20, "the rest is served")
				l.await("another leads", func(v replica.View) bool { return v.LeaderID != "" && v.LeaderID != l.id })
				l.healed()
				s.put([16]byte{2})
				s.check()
				require.Equal(t, s.leader().raw(), l.raw())
				s.close()
			})
		})
	}
}

// A leader whose follower needs an entry that is damaged there neither dies nor
// leaves the follower behind.
func TestALeaderLacksWhatAFollowerNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := filled(t, 20, small)
		behind := s.followers()[0]
		_ = behind.stop()
		for range 150 {
			s.put([16]byte{1})
		}
		l := s.leader()
		e, err := l.r.Log().Entry(40)
		require.NoError(t, err)
		l.flipAt(e.Data, false)
		behind.start()
		behind.visible(l.r.Log().Visible())
		l.provoke()
		l.healed()
		s.check()
		s.close()
	})
}

// Two nodes with damage in different places heal each other, with the third away.
func TestDamagedNodesHealEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := filled(t, 150, func(cfg *replica.Config) {
			small(cfg)
			cfg.CheckpointEntries = 1 << 20 // so that all of it is above
		})
		first, second := s.followers()[0], s.followers()[1]
		third := s.leader()
		for _, n := range []*node{third, first, second} {
			_ = n.stop()
		}
		rng := rand.New(rand.NewPCG(7, 7))
		segs := files(t, first.fs, ".seg")
		ruin(t, first.fs, segs[0], "truncate", rng)
		segs = files(t, second.fs, ".seg")
		ruin(t, second.fs, segs[len(segs)-1], "zero", rng)
		require.NoError(t, second.fs.Remove(segs[len(segs)-2]))
		require.NoError(t, second.fs.SyncDir("data/log"))
		first.start()
		time.Sleep(5 * time.Second)
		require.Equal(t, replica.StateIdle, first.r.View().State, "alone it takes no part")
		require.NotEmpty(t, first.r.WaitsFor())
		second.start()
		first.healed()
		second.healed()
		s.put([16]byte{2})
		third.start()
		s.check()
		s.close()
	})
}

// stale is a peer that answers for everything it is asked with entries of its own
// making, of which it knows nothing to be committed.
type stale struct{ peers }

func (p stale) Entries(ctx context.Context, id string, first, last uint64, take func(replica.Extract) error) error {
	return p.peers.Entries(ctx, id, first, last, func(x replica.Extract) error {
		x.Commit = 0
		for i := range x.Entries {
			d := bytes.Clone(x.Entries[i].Data)
			if len(d) > 0 {
				d[len(d)-1] ^= 1
			}
			x.Entries[i].Data = d
		}
		if len(x.Entries) > 1 {
			x.Entries = x.Entries[:len(x.Entries)-1] // and it ends before ours goes on
		}
		if err := take(x); err != nil {
			return err
		}
		return fmt.Errorf("that is all")
	})
}

// Entries of a peer are taken when they are proved. Believing whoever answers
// first would put into the log what nobody ever committed.
func TestEntriesAreTakenOnlyWithProof(t *testing.T) {
	run := func(t *testing.T, off ...replica.Switch) (equal bool) {
		synctest.Test(t, func(t *testing.T) {
			s := filled(t, 150, small, off...)
			n, liar := s.followers()[0], s.followers()[1]
			want := s.leader().raw()
			_ = n.stop()
			e, err := liar.r.Log().Entry(20)
			require.NoError(t, err)
			n.flipAt(e.Data, true) // its header: nothing here pins the entry
			s.conf = func(cfg *replica.Config) {
				small(cfg)
				cfg.Source = firstStale{peers: peers{c: s.cluster, id: n.id}, stale: liar.id}
			}
			n.start()
			n.provoke()
			n.healed()
			got := n.raw()
			equal = true
			for i := range want {
				equal = equal && bytes.Equal(want[i].Data, got[i].Data)
			}
			s.close()
		})
		return equal
	}
	require.True(t, run(t))
	require.False(t, run(t, replica.NoProof), "without the rule the test must see it")
}

// firstStale answers as stale in the place of every peer, the first few times.
type firstStale struct {
	peers
	stale string
}

func (p firstStale) Entries(ctx context.Context, id string, first, last uint64, take func(replica.Extract) error) error {
	if id != p.stale {
		// The honest ones are asked after it.
		if err := (stale{p.peers}).Entries(ctx, p.stale, first, last, take); err != nil && ctx.Err() != nil {
			return err
		}
	}
	return p.peers.Entries(ctx, id, first, last, take)
}

// The end of the log that an old leader wrote alone is damaged: it goes, once the
// others have shown that nobody else has it, and not before.
func TestAnEndThatNobodyCommittedIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := filled(t, 50, small)
		old := s.leader()
		s.partition(old)
		var pending []*replica.Pending
		for i := range 4 {
			p, err := old.r.Submit(replica.Batch{Count: 1, Records: framed(fmt.Sprintf("nobody else has %d", i)), Timestamp: 1})
			if err == nil {
				pending = append(pending, p)
			}
			time.Sleep(5 * time.Millisecond)
		}
		require.NotEmpty(t, pending)
		last := old.r.Log().Last()
		data, err := old.r.Log().Entry(last - 1)
		require.NoError(t, err)
		_ = old.stop()
		old.flipAt(data.Data, true)
		for range 30 {
			s.put([16]byte{2})
		}
		f := s.followers()[0]
		// One of the others is not enough.
		s.heal()
		s.mu.Lock()
		s.cut[[2]string{old.id, f.id}] = true
		s.cut[[2]string{old.id, s.leaderOf(f).id}] = true
		s.mu.Unlock()
		old.start()
		time.Sleep(10 * time.Second)
		require.Equal(t, replica.StateIdle, old.r.View().State)
		s.heal()
		old.healed()
		s.put([16]byte{2})
		s.check()
		_, msgs := old.read()
		for _, m := range msgs {
			require.False(t, strings.HasPrefix(m, "nobody"), m)
		}
		s.close()
	})
}

// leaderOf is the running node that leads, as another sees it.
func (s *sim) leaderOf(n *node) *node { return s.nodes[n.r.View().LeaderID] }

// A node that lost its term and vote takes no part until the others have told
// theirs, and then goes on above them all.
func TestAForgottenVote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := filled(t, 50, small)
		n := s.followers()[0]
		_ = n.stop()
		ruin(t, n.fs, "data/raft-state", "truncate", rand.New(rand.NewPCG(1, 1)))
		away := s.followers()[0]
		s.mu.Lock()
		s.cut[[2]string{n.id, away.id}] = true
		s.mu.Unlock()
		n.start()
		time.Sleep(30 * time.Second)
		require.Equal(t, replica.StateIdle, n.r.View().State, "one of two others is too few")
		require.Contains(t, n.r.WaitsFor(), "too few")
		term := s.leader().r.Stats().Term
		s.heal()
		n.healed()
		require.Greater(t, n.r.Stats().Term, term)
		s.put([16]byte{1})
		s.check()
		s.close()
	})
}

// There is nobody to ask: the node says so and ends.
func TestDamageOfASingleNode(t *testing.T) {
	c := boot(t, 1, small)
	n := c.node(nodeID(1))
	for i := range 30 {
		c.produce([16]byte{1}, uint64(i), fmt.Sprint(i))
	}
	require.NoError(t, n.stop())
	ruin(t, n.fs, "data/raft-state", "zero", rand.New(rand.NewPCG(1, 1)))
	r := n.open()
	err := r.Run(t.Context())
	require.ErrorContains(t, err, "backup")
	require.ErrorContains(t, err, path.Base("data/raft-state"))
	require.NoError(t, r.Close())
}

// A node that found damage leaves leading to others for two election timeouts, and
// no longer. Rarely the others need more: a vote that was split, once in some hundreds.
func TestADamagedNodeDelaysItsCandidacy(t *testing.T) {
	twice := func(t *testing.T, times int, off ...replica.Switch) bool {
		damaged := 0
		for seed := 0; seed < times && damaged < 2; seed++ {
			synctest.Test(t, func(t *testing.T) {
				s := filled(t, 100+seed, small, off...)
				n, l := s.followers()[0], s.leader()
				e, err := n.r.Log().Entry(20)
				require.NoError(t, err)
				n.flipAt(e.Data, false)
				_, err = n.r.Log().Entry(20)
				require.Error(t, err)
				_ = l.stop()
				if s.leader() == n {
					damaged++
				}
				n.healed() // from the one that is left
				s.close()
			})
		}
		return damaged == 2
	}
	require.False(t, twice(t, 6))
	require.True(t, twice(t, 40, replica.NoShy), "without the rule it leads some of the times")
}

// When nobody else can lead, the delay ends.
func TestACandidacyIsDelayedOnlySoLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := filled(t, 100, small)
		n, l := s.followers()[0], s.leader()
		for range 3 { // found again and again
			e, err := n.r.Log().Entry(20)
			require.NoError(t, err)
			n.flipAt(e.Data, false)
			_, err = n.r.Log().Entry(20)
			require.Error(t, err)
			n.healed()
		}
		_ = s.followers()[1].stop()
		_ = l.stop()
		l.start() // it has no lead on the damaged one
		begin := time.Now()
		s.leader()
		require.Less(t, time.Since(begin), 10*time.Second)
		s.close()
	})
}
