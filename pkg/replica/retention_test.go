package replica_test

import (
	"context"
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
	"github.com/logd-io/logd/pkg/vfs/faultfs"
)

// retaining is a simulated cluster whose nodes keep a bounded log, in segments
// of different sizes and with checkpoints at different places.
type retaining struct {
	*sim
	stop chan struct{}
	wg   sync.WaitGroup

	skewMu sync.Mutex
	skew   map[string]time.Duration // of a node's clock; guarded by skewMu
}

// sizes are a node's segment size and its distance between checkpoints.
var sizes = map[string]struct {
	segment int64
	entries uint64
}{
	nodeID(1): {2048, 16}, nodeID(2): {4096, 5}, nodeID(3): {3000, 33}, nodeID(4): {5000, 21},
}

// retention runs f over a cluster that keeps what retain says.
func retention(t *testing.T, seed int64, retain replica.Retain, conf func(*replica.Config), off []replica.Switch, f func(*retaining)) {
	synctest.Test(t, func(t *testing.T) {
		s := &retaining{stop: make(chan struct{}), skew: map[string]time.Duration{}}
		c := boot(t, 3, func(cfg *replica.Config) {
			cfg.Heartbeat = 300 * time.Millisecond
			cfg.SegmentBytes, cfg.CheckpointEntries = sizes[cfg.ID].segment, sizes[cfg.ID].entries
			cfg.CacheBytes = 1024
			cfg.Retain = retain
			id := cfg.ID
			cfg.Clock = func() time.Time { return s.clock(id) }
			if conf != nil {
				conf(cfg)
			}
		}, off...)
		s.sim = &sim{cluster: c, rng: rand.New(rand.NewPCG(uint64(seed), 0)), acked: map[uint64]string{},
			seq: map[[16]byte]uint64{}, sent: map[string]int{}}
		s.wg.Go(s.watchClocks)
		defer func() {
			close(s.stop)
			s.wg.Wait()
			c.close()
		}()
		s.put([16]byte{1})
		f(s)
	})
}

func (s *retaining) clock(id string) time.Time {
	s.skewMu.Lock()
	defer s.skewMu.Unlock()
	return time.Now().Add(s.skew[id])
}

func (s *retaining) skewed(id string, by time.Duration) {
	s.skewMu.Lock()
	defer s.skewMu.Unlock()
	s.skew[id] = by
}

// watchClocks asks the nodes for their clocks, as autopilot does.
func (s *retaining) watchClocks() {
	for {
		select {
		case <-s.stop:
			return
		case <-time.After(500 * time.Millisecond):
		}
		s.mu.Lock()
		for _, n := range s.nodes {
			for id, other := range s.nodes {
				if n.r == nil || other.r == nil || id == n.id || s.cut[[2]string{id, n.id}] || s.cut[[2]string{n.id, id}] {
					continue
				}
				n.r.NoteClock(id, s.clock(id), time.Now(), time.Now())
			}
		}
		s.mu.Unlock()
	}
}

// reader reads the log from whichever node runs, each record once, and goes on
// from the lowest offset when it is told that it was too slow.
type reader struct {
	seen    map[uint64]string
	skipped int
	at      uint64
}

func (s *retaining) read(r *reader, n *node, limit int) {
	for range limit {
		log := n.r.Log()
		if r.at >= log.Visible() {
			return // a session never goes back
		}
		batches, err := log.Read(r.at, 200)
		var outOf *commitlog.OutOfRangeError
		if errors.As(err, &outOf) {
			require.Less(s.t, r.at, outOf.Lowest, "offset %d is readable", r.at)
			r.skipped++
			r.at = outOf.Lowest
			continue
		}
		require.NoError(s.t, err)
		for _, b := range batches {
			for i, m := range split(s.t, b) {
				if off := b.FirstOffset + uint64(i); off >= r.at {
					r.seen[off] = m
					r.at = off + 1
				}
			}
		}
	}
}

// agrees checks what a reader saw against what was acknowledged.
func (s *retaining) agrees(r *reader) {
	for off, m := range r.seen {
		if want, ok := s.acked[off]; ok {
			require.Equal(s.t, want, m, "read at %d", off)
		}
	}
}

// The bound of DESIGN.md: what is kept by size, a segment that lies across the
// start and the newest one, and two steps between kept checkpoints.
func bound(id string, retain replica.Retain) int64 {
	const entry = 200 // bytes of a frame here, at most
	steps := max(2*retain.Bytes/32, 0) + 2*int64(sizes[id].entries+64)*entry
	return retain.Bytes + 3*sizes[id].segment + steps
}

// I18: retention by size, with followers that are slow or cut off, and leaders that die.
func TestRetentionUnderTrouble(t *testing.T) {
	seed := simSeed(t)
	retain := replica.Retain{Bytes: 24 << 10}
	retention(t, seed, retain, nil, nil, func(s *retaining) {
		producers := [][16]byte{{1}, {2}, {3}}
		tailing, slow := &reader{seen: map[uint64]string{}}, &reader{seen: map[uint64]string{}}
		var lowest uint64
		joined := false
		for round := range 26 {
			n := s.node(nodeID(1 + s.rng.IntN(3)))
			for i := 1; i <= 3; i++ {
				if x := s.node(nodeID(i)); x.r == nil {
					n = x // one at a time, or nobody could lead
				}
			}
			switch s.rng.IntN(6) {
			case 0:
				_ = n.stop()
			case 1:
				n.lose(uint64(s.rng.Int64()))
			case 2:
				for _, x := range s.ordered() {
					x.lose(uint64(s.rng.Int64()))
				}
				for i := 1; i <= 3; i++ {
					if x := s.node(nodeID(i)); x.r == nil {
						x.start()
					}
				}
			case 3:
				s.partition(n)
			case 4:
				_ = s.leader().r.Transfer(s.t.Context(), "")
			}
			for range 10 + s.rng.IntN(60) {
				s.put(producers[s.rng.IntN(len(producers))])
				up := s.ordered()
				x := up[s.rng.IntN(len(up))]
				s.read(tailing, x, 20)
				if s.rng.IntN(40) == 0 && round%10 < 3 { // it sleeps for long
					s.read(slow, x, 3)
				}
				if s.rng.IntN(10) == 0 {
					time.Sleep(time.Duration(s.rng.IntN(1500)) * time.Millisecond)
				}
			}
			s.heal()
			if round == 13 {
				fresh := s.add(nodeID(4))
				fresh.start()
				require.NoError(s.t, fresh.r.Bind(testCluster))
				for s.leader().r.AddNonvoter(s.t.Context(), fresh.id) != nil {
					time.Sleep(100 * time.Millisecond)
				}
				joined = true
			}
			for i := 1; i <= 3; i++ {
				if x := s.node(nodeID(i)); x.r == nil && s.rng.IntN(3) == 0 {
					x.start()
				}
			}
			s.put(producers[round%len(producers)])
			s.check()
			l := s.leader().r.Log()
			require.GreaterOrEqual(s.t, l.Lowest(), lowest, "the lowest offset fell")
			lowest = l.Lowest()
		}
		for i := 1; i <= 3; i++ {
			if x := s.node(nodeID(i)); x.r == nil {
				x.start()
			}
		}
		s.put(producers[0])
		time.Sleep(time.Minute) // for what goes slowly
		s.check()
		require.NotZero(s.t, lowest)
		for _, n := range s.up() {
			st, log := n.r.Stats(), n.r.Log()
			require.Equal(s.t, s.leader().r.Log().Lowest(), log.Lowest(), n.id)
			require.LessOrEqual(s.t, log.Start().Offset, log.Lowest(), n.id)
			require.NotZero(s.t, log.Start().Index, n.id)
			require.LessOrEqual(s.t, st.LogBytes, bound(n.id, retain), n.id)
			require.Zero(s.t, log.Stats().GoingBytes, n.id)
			s.t.Logf("%s: [%d, %d) in %d bytes, %d segments, start %+v", n.id, log.Lowest(), log.Visible(), st.LogBytes, st.Segments, log.Start())
		}
		require.True(s.t, joined)
		fresh := s.node(nodeID(4))
		_, got := fresh.read()
		_, want := s.leader().read()
		require.Equal(s.t, want, got, "the node that joined later")
		s.read(slow, fresh, 1000)
		s.agrees(tailing)
		s.agrees(slow)
		require.NotZero(s.t, slow.skipped, "the slow reader was overtaken")
		s.t.Logf("%d acknowledged; the tailing reader saw %d, the slow one %d and was overtaken %d times",
			len(s.acked), len(tailing.seen), len(slow.seen), slow.skipped)
	})
}

// What is kept can be changed while the log is in use, and back.
func TestWhatIsKeptChanges(t *testing.T) {
	retention(t, 1, replica.Retain{}, nil, nil, func(s *retaining) {
		fill := func() {
			for range 150 {
				s.put([16]byte{1})
			}
			time.Sleep(5 * time.Second)
		}
		keep := func(retain replica.Retain) {
			for _, n := range s.up() {
				n.r.Retain(retain)
			}
		}
		lowest := func() uint64 { return s.leader().r.Log().Lowest() }
		fill()
		require.Zero(s.t, lowest(), "all of it")

		// How much goes can be told before.
		loss := func(to replica.Retain) replica.Loss {
			l, err := s.leader().r.Loss(to)
			require.NoError(s.t, err)
			return l
		}
		require.Zero(s.t, loss(replica.Retain{Age: time.Hour, Bytes: 1 << 30}).Records())
		told := loss(replica.Retain{Bytes: 8 << 10})
		before := s.leader().r.Log().Stats().Bytes
		all := loss(replica.Retain{Age: time.Second})
		require.Equal(s.t, replica.Loss{To: s.leader().r.Log().Visible(), Bytes: all.Bytes}, all)
		require.Greater(s.t, all.Bytes, told.Bytes)

		keep(replica.Retain{Bytes: 8 << 10})
		time.Sleep(10 * time.Second)
		less := lowest()
		require.NotZero(s.t, less, "with no record and no election in between")
		require.Equal(s.t, less, told.To)
		require.Zero(s.t, told.From)
		require.Equal(s.t, s.leader().r.Log().Visible()-less, told.Left)
		require.Positive(s.t, told.Bytes)
		require.LessOrEqual(s.t, told.Bytes, before)
		require.Zero(s.t, loss(replica.Retain{Bytes: 8 << 10}).Records(), "it has gone")

		keep(replica.Retain{})
		fill()
		require.Equal(s.t, less, lowest(), "nothing more goes")

		keep(replica.Retain{Age: 20 * time.Second})
		time.Sleep(time.Minute)
		require.Greater(s.t, lowest(), less)
		s.check()
	})
}

// A follower whose disk is slow is overtaken again and again while it is sent
// entries, and comes up all the same once it can.
func TestRetentionOvertakesASlowFollower(t *testing.T) {
	var mu sync.Mutex
	pause := time.Duration(0)
	installs := func(n *node) uint64 { return n.r.Log().Start().Index }
	retain := replica.Retain{Bytes: 16 << 10}
	retention(t, 1, retain, func(cfg *replica.Config) {
		if cfg.ID == nodeID(3) {
			cfg.FS = faultfs.Wrap(cfg.FS, faultfs.When(faultfs.Is(faultfs.Sync), func(faultfs.Op) (int, error) {
				mu.Lock()
				d := pause
				mu.Unlock()
				time.Sleep(d)
				return -1, nil
			}))
		}
	}, nil, func(s *retaining) {
		slow := s.node(nodeID(3))
		for s.leader() == slow {
			_ = slow.r.Transfer(s.t.Context(), "")
		}
		mu.Lock()
		pause = 500 * time.Millisecond
		mu.Unlock()
		var starts []uint64
		for range 6 {
			for range 400 {
				s.put([16]byte{1})
				time.Sleep(time.Millisecond)
			}
			time.Sleep(2 * time.Second)
			if at := installs(slow); len(starts) == 0 || starts[len(starts)-1] != at {
				starts = append(starts, at)
			}
		}
		s.t.Logf("the slow follower began at entries %v, leader's log begins at %d", starts, s.leader().r.Log().Start().Index)
		require.Greater(s.t, len(starts), 2, "it was overtaken more than once")
		mu.Lock()
		pause = 0
		mu.Unlock()
		s.put([16]byte{1})
		s.check()
		_, got := slow.read()
		_, want := s.leader().read()
		require.Equal(s.t, want, got)
	})
}

// By age, on an idle cluster too: records go after their time, whoever leads,
// and the next offset goes on counting.
func TestRetentionByAge(t *testing.T) {
	retain := replica.Retain{Age: 90 * time.Second}
	quiet := func(cfg *replica.Config) { cfg.Announce = -1 }
	retention(t, 1, retain, quiet, nil, func(s *retaining) {
		for range 200 {
			s.put([16]byte{1})
		}
		time.Sleep(60 * time.Second)
		s.put([16]byte{2})
		require.Zero(s.t, s.leader().r.Log().Lowest())
		time.Sleep(40 * time.Second)
		s.equal()
		require.Equal(s.t, uint64(201), s.leader().r.Log().Lowest())
		require.NoError(s.t, s.leader().r.Transfer(s.t.Context(), ""))
		time.Sleep(90 * time.Second)
		s.equal()
		for _, n := range s.up() {
			log := n.r.Log()
			require.Equal(s.t, []uint64{202, 202}, []uint64{log.Lowest(), log.Visible()}, n.id)
			require.Equal(s.t, uint64(202), log.Start().Offset, "an idle log is emptied as well: a checkpoint was taken for it")
			require.LessOrEqual(s.t, log.Stats().Segments, 2)
		}
		s.put([16]byte{2})
		require.Contains(s.t, s.acked, uint64(202))
		for _, n := range s.up() {
			s.lose1(n)
		}
		s.put([16]byte{2})
		s.check()
		// Every entry of retention has its price: while nothing expires there is none.
		before := s.leader().r.Stats().LastIndex
		time.Sleep(30 * time.Second)
		require.Equal(s.t, before, s.leader().r.Stats().LastIndex)
	})
}

func (s *retaining) lose1(n *node) {
	n.lose(uint64(s.rng.Int64()))
	n.start()
}

// A leader whose clock is wrong lets nothing age; with the check off it gives
// all away.
func testSkewedLeader(t *testing.T, off ...replica.Switch) (lowest uint64) {
	retain := replica.Retain{Age: 90 * time.Second}
	retention(t, 1, retain, nil, off, func(s *retaining) {
		for range 100 {
			s.put([16]byte{1})
		}
		l := s.leader()
		s.skewed(l.id, 48*time.Hour)
		time.Sleep(40 * time.Second)
		require.Equal(s.t, l, s.leader())
		lowest = l.r.Log().Lowest()
		if len(off) > 0 {
			return
		}
		// What it stamped meanwhile is kept with its neighbours, and then goes.
		s.putAs(l, [16]byte{2})
		s.skewed(l.id, 0)
		for range 10 {
			s.put([16]byte{1})
		}
		time.Sleep(30 * time.Second)
		require.Zero(s.t, s.leader().r.Log().Lowest())
		time.Sleep(65 * time.Second)
		s.equal()
		require.Equal(s.t, s.leader().r.Log().Visible(), s.leader().r.Log().Lowest(), "nothing is pinned")
		// A follower whose clock is wrong changes nothing.
		for _, n := range s.ordered() {
			if n != s.leader() {
				s.skewed(n.id, -72*time.Hour)
				break
			}
		}
		s.put([16]byte{1})
		time.Sleep(95 * time.Second)
		require.Equal(s.t, s.leader().r.Log().Visible(), s.leader().r.Log().Lowest())
	})
	return lowest
}

// putAs is put with the stamp of a node's clock.
func (s *retaining) putAs(n *node, p [16]byte) {
	pending, err := n.r.Submit(replica.Batch{Producer: p, Owner: 1, FirstSeq: s.seq[p], Count: 1,
		Records: framed("stamped"), Timestamp: s.clock(n.id).UnixNano()})
	require.NoError(s.t, err)
	res, err := pending.Result()
	require.NoError(s.t, err)
	s.seq[p]++
	s.acked[res.FirstOffset] = "stamped"
	s.sent["stamped"]++
}

func TestRetentionPausesWhenTheClockIsWrong(t *testing.T) {
	require.Zero(t, testSkewedLeader(t))
}

func TestWithoutTheClockCheckEverythingGoes(t *testing.T) {
	require.Equal(t, uint64(101), testSkewedLeader(t, replica.Trusting))
}

// Retention never reaches beyond the end, whoever asks for it.
func TestLowestIsNeverBeyondTheEnd(t *testing.T) {
	t.Parallel()
	c := boot(t, 3, nil)
	for i := range 5 {
		c.produce([16]byte{1}, uint64(i), fmt.Sprintf("record %d", i))
	}
	require.NoError(t, c.leader().r.SetLowest(context.Background(), 1<<40))
	c.equal()
	for _, n := range c.up() {
		require.Equal(t, uint64(5), n.r.Log().Lowest())
	}
	require.Equal(t, uint64(5), c.produce([16]byte{1}, 5, "record 5").FirstOffset)
	require.NoError(t, c.leader().r.SetLowest(context.Background(), 2))
	c.equal()
	for _, n := range c.up() {
		lowest, msgs := n.read()
		require.Equal(t, uint64(5), lowest)
		require.Equal(t, []string{"record 5"}, msgs)
	}
}
