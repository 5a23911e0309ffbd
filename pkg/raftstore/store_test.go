package raftstore_test

import (
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/internal/planted"
	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/raftstore"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

func open(t testing.TB, fs vfs.FS, onFatal func(error)) *raftstore.Store {
	s, err := raftstore.Open(raftstore.Options{FS: fs, Dir: "data", SegmentBytes: 1 << 16, OnFatal: onFatal})
	require.NoError(t, err)
	return s
}

func entries(from, to, term uint64) (out []*raft.Log) {
	for i := from; i <= to; i++ {
		out = append(out, &raft.Log{Index: i, Term: term, Type: raft.LogCommand, Data: fmt.Appendf(nil, "entry %d of %d", i, term),
			AppendedAt: time.Unix(0, int64(i))})
	}
	return out
}

// publish makes a record of each entry readable, from offset first-1 on, as
// checkpoint says that they are.
func publish(t testing.TB, s *raftstore.Store, es []*raft.Log) {
	var bs []commitlog.Applied
	for _, e := range es {
		bs = append(bs, commitlog.Applied{FirstOffset: e.Index - 1, Count: 1, Index: e.Index, Len: uint32(len(e.Data))})
	}
	require.NoError(t, s.Log().Publish(bs))
	require.NoError(t, s.Log().SyncOffsets())
}

// stray runs f on a goroutine of its own and says whether it came back.
func stray(f func()) (returned bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
		returned = true
	}()
	<-done
	return returned
}

func TestLogAnswersExactly(t *testing.T) {
	s := open(t, memfs.New(), nil)
	defer s.Close()
	var l raft.Log
	require.Equal(t, raft.ErrLogNotFound, s.GetLog(0, &l))
	require.Equal(t, raft.ErrLogNotFound, s.GetLog(1, &l))
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	require.Equal(t, []uint64{0, 0}, []uint64{first, last})
	require.False(t, s.IsMonotonic())

	es := entries(1, 5, 2)
	require.NoError(t, s.StoreLogs(es))
	for _, e := range es {
		require.NoError(t, s.GetLog(e.Index, &l))
		require.Equal(t, *e, l)
	}
	require.Equal(t, raft.ErrLogNotFound, s.GetLog(6, &l))
	require.NoError(t, s.DeleteRange(4, 5))
	require.Equal(t, raft.ErrLogNotFound, s.GetLog(4, &l))
	require.ErrorIs(t, s.DeleteRange(1, 2), raftstore.ErrPrefix)
	require.NoError(t, s.StoreLogs(entries(4, 4, 3)))
	require.NoError(t, s.GetLog(4, &l))
	require.Equal(t, uint64(3), l.Term)
}

func TestStableStore(t *testing.T) {
	fs := memfs.New()
	s := open(t, fs, nil)
	_, err := s.GetUint64([]byte("CurrentTerm"))
	require.EqualError(t, err, "not found")
	_, err = s.Get([]byte("LastVoteCand"))
	require.EqualError(t, err, "not found")
	require.False(t, s.HasState())
	for i := range uint64(5) {
		require.NoError(t, s.SetUint64([]byte("CurrentTerm"), i))
		require.NoError(t, s.Set([]byte("LastVoteCand"), fmt.Appendf(nil, "n.%08d", i)))
		// Durable on return: whatever a crash leaves, it is there.
		for seed := range uint64(4) {
			c := open(t, fs.Crash(seed), nil)
			term, err := c.GetUint64([]byte("CurrentTerm"))
			require.NoError(t, err)
			require.Equal(t, i, term)
			cand, err := c.Get([]byte("LastVoteCand"))
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("n.%08d", i), string(cand))
			require.NoError(t, c.Close())
		}
	}
	require.True(t, s.HasState())
	require.NoError(t, s.Close())
}

// Every operation a set makes is a place for a crash; the store then has the
// value before or the one after.
func TestStableStoreCrashesAnywhere(t *testing.T) {
	fs := memfs.New()
	s := open(t, fs, nil)
	require.NoError(t, s.SetUint64([]byte("CurrentTerm"), 1))
	fs.Record()
	require.NoError(t, s.SetUint64([]byte("CurrentTerm"), 2))
	for n := range fs.Ops() + 1 {
		for seed := range uint64(8) {
			c := open(t, fs.CrashAt(n, seed), nil)
			term, err := c.GetUint64([]byte("CurrentTerm"))
			require.NoError(t, err)
			require.Contains(t, []uint64{1, 2}, term)
			require.NoError(t, c.Close())
		}
	}
	require.NoError(t, s.Close())
}

// A damaged vote is refused, never forgotten.
func TestStableStoreRefusesDamage(t *testing.T) {
	for _, place := range []int64{10, 4096 + 20} {
		fs := memfs.New()
		s := open(t, fs, nil)
		require.NoError(t, s.SetUint64([]byte("CurrentTerm"), 7))
		require.NoError(t, s.Close())
		require.NoError(t, fs.Corrupt("data/raft-state", place, 1))
		var corrupt *raftstore.CorruptError
		_, err := raftstore.Open(raftstore.Options{FS: fs, Dir: "data"})
		require.ErrorAs(t, err, &corrupt)
		require.Contains(t, corrupt.Path, "raft-state")
	}
}

// After a fatal fault no call returns to Raft, and OnFatal hears of the first.
func TestNothingReturnsAfterAFatalFault(t *testing.T) {
	for name, fault := range map[string]func(s *raftstore.Store){
		"a gap":                    func(s *raftstore.Store) { _ = s.StoreLogs(entries(9, 9, 2)) },
		"extensions":               func(s *raftstore.Store) { _ = s.StoreLog(&raft.Log{Index: 4, Term: 2, Extensions: []byte{1}}) },
		"truncation of the commit": func(s *raftstore.Store) { s.Log().SetCommitted(3); _ = s.DeleteRange(3, 3) },
		"divergence":               func(s *raftstore.Store) { s.Fail(fmt.Errorf("diverged")) },
	} {
		t.Run(name, func(t *testing.T) {
			var faults []error
			s := open(t, memfs.New(), func(err error) { faults = append(faults, err) })
			require.NoError(t, s.StoreLogs(entries(1, 3, 2)))
			require.False(t, stray(func() { fault(s) }))
			require.Len(t, faults, 1)
			var l raft.Log
			for what, call := range map[string]func(){
				"GetLog":     func() { _ = s.GetLog(1, &l) },
				"StoreLogs":  func() { _ = s.StoreLogs(entries(4, 4, 2)) },
				"LastIndex":  func() { _, _ = s.LastIndex() },
				"Set":        func() { _ = s.Set([]byte("k"), nil) },
				"GetUint64":  func() { _, _ = s.GetUint64([]byte("k")) },
				"List":       func() { _, _ = s.Snapshots().List() },
				"DeleteRang": func() { _ = s.DeleteRange(3, 3) },
			} {
				require.False(t, stray(call), what)
			}
			require.Len(t, faults, 1)
			_ = s.Close() // what a failed log says on close does not matter here
		})
	}
}

func TestCallsAfterCloseDoNotReturn(t *testing.T) {
	s := open(t, memfs.New(), nil)
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	require.False(t, stray(func() { _, _ = s.LastIndex() }))
}

func checkpoint(t testing.TB, v *raftstore.Snapshots, index, next uint64) {
	sink, err := v.Create(1, index, 2, config("a"), 1, nil)
	require.NoError(t, err)
	sink.(*raftstore.Sink).Cover(next, index*1000)
	_, err = fmt.Fprintf(sink, "state at %d", index)
	require.NoError(t, err)
	require.NoError(t, sink.Close())
	require.NoError(t, sink.Close(), "Raft closes what its state machine may have closed")
}

func config(ids ...string) (c raft.Configuration) {
	for _, id := range ids {
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	return c
}

func indexes(t testing.TB, v *raftstore.Snapshots) (out []uint64) {
	metas, err := v.List()
	require.NoError(t, err)
	for _, m := range metas {
		out = append(out, m.Index)
		meta, r, err := v.Open(m.ID)
		require.NoError(t, err)
		state, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, int64(len(state)), meta.Size)
		require.Equal(t, fmt.Sprintf("state at %d", m.Index), string(state))
		require.Equal(t, config("a"), meta.Configuration)
	}
	return out
}

func TestCheckpointsListFlipAndRetain(t *testing.T) {
	fs := memfs.New()
	s := open(t, fs, nil)
	require.NoError(t, s.StoreLogs(entries(1, 100, 2)))
	publish(t, s, entries(1, 100, 2))
	v := s.Snapshots()
	for i := uint64(10); i <= 50; i += 10 {
		checkpoint(t, v, i, i)
	}
	require.Equal(t, []uint64{50, 40, 30, 20, 10}, indexes(t, v), "newest first while Raft starts")
	v.Flip()
	require.Equal(t, []uint64{10}, indexes(t, v), "the oldest once it runs")
	require.Equal(t, []uint64{50, 40, 30, 20, 10}, indexes(t, s.Snapshots()), "another run begins unflipped")

	moved, err := s.Retain(9)
	require.NoError(t, err)
	require.False(t, moved)
	moved, err = s.Retain(35)
	require.NoError(t, err)
	require.True(t, moved)
	require.Equal(t, []uint64{30}, indexes(t, v))
	require.Equal(t, uint64(31), s.Log().First())
	var l raft.Log
	require.NoError(t, s.GetLog(30, &l))
	require.Equal(t, raft.Log{Index: 30, Term: 2, Type: raft.LogNoop}, l)
	require.Equal(t, raft.ErrLogNotFound, s.GetLog(29, &l))
	require.NoError(t, s.Close())

	// The checkpoint at the start is there twice.
	s = open(t, fs, nil)
	require.Equal(t, []uint64{50, 40, 30}, indexes(t, s.Snapshots()))
	require.NoError(t, s.Close())
	require.NoError(t, fs.Corrupt("data/checkpoints/00000000000000000030-2.ckp", 90, 1))
	s = open(t, fs, nil)
	require.Equal(t, []uint64{50, 40, 30}, indexes(t, s.Snapshots()))
	require.NoError(t, s.Close())
	require.NoError(t, fs.Corrupt("data/checkpoints/00000000000000000030-2.ckp", 9, 1))
	s = open(t, fs, nil)
	require.Equal(t, []uint64{50, 40, 30}, indexes(t, s.Snapshots()))
	require.NoError(t, s.Close())
	// A damaged newest one is passed over.
	require.NoError(t, fs.Corrupt("data/checkpoints/00000000000000000050-2.ckp", 90, 1))
	s = open(t, fs, nil)
	require.Equal(t, []uint64{40, 30}, indexes(t, s.Snapshots()))
	require.NoError(t, s.Close())
}

func TestManyCheckpointsAreThinned(t *testing.T) {
	s := open(t, memfs.New(), nil)
	defer s.Close()
	require.NoError(t, s.StoreLogs(entries(1, 400, 2)))
	publish(t, s, entries(1, 400, 2))
	v := s.Snapshots()
	for i := uint64(1); i <= 400; i++ {
		checkpoint(t, v, i, i)
	}
	got := indexes(t, v)
	require.LessOrEqual(t, len(got), 70)
	require.Equal(t, []uint64{400, 399, 398}, got[:3])
	require.Equal(t, uint64(1), got[len(got)-1])
	for i := 3; i+1 < len(got); i++ {
		require.LessOrEqual(t, got[i]-got[i+1], uint64(2*400/32), "no wide gap at %d", got[i])
	}
}

// I7: at every operation of an install, and whatever a crash leaves of it, Open
// finds the log as it was or as the checkpoint says; never something between.
func TestInstallSurvivesACrashAnywhere(t *testing.T) {
	fs := memfs.New()
	s := open(t, fs, nil)
	require.NoError(t, s.StoreLogs(entries(1, 20, 2)))
	publish(t, s, entries(1, 20, 2))
	checkpoint(t, s.Snapshots(), 5, 5)
	fs.Record()
	in := raftstore.Installed{Index: 50, Term: 3, Next: 40, Config: config("a"), ConfigIndex: 1, State: []byte("state at 50")}
	require.NoError(t, s.Install(in))
	require.Equal(t, []uint64{50}, indexes(t, s.Snapshots()))
	require.NoError(t, s.StoreLogs(entries(51, 52, 3)))
	require.NoError(t, s.Close())
	old, installed := 0, 0
	for n := range fs.Ops() + 1 {
		for seed := range uint64(4) {
			c := open(t, fs.CrashAt(n, seed), nil)
			first, last := c.Log().First(), c.Log().Last()
			switch {
			case first == 1:
				old++
				require.Equal(t, uint64(20), last)
				require.Equal(t, []uint64{5}, indexes(t, c.Snapshots()))
			default:
				installed++
				require.Equal(t, uint64(51), first)
				require.LessOrEqual(t, last, uint64(52))
				require.Equal(t, []uint64{50}, indexes(t, c.Snapshots()))
				require.Equal(t, uint64(40), c.Log().Start().Offset)
			}
			require.NoError(t, c.Close())
		}
	}
	require.NotZero(t, old)
	require.NotZero(t, installed)
}

// Retention moves the start durably before anything below it goes.
func TestRetainSurvivesACrashAnywhere(t *testing.T) {
	fs := memfs.New()
	s, err := raftstore.Open(raftstore.Options{FS: fs, Dir: "data", SegmentBytes: 512})
	require.NoError(t, err)
	require.NoError(t, s.StoreLogs(entries(1, 40, 2)))
	publish(t, s, entries(1, 40, 2))
	v := s.Snapshots()
	for i := uint64(10); i <= 30; i += 10 {
		checkpoint(t, v, i, i)
	}
	fs.Record()
	_, err = s.Retain(20)
	require.NoError(t, err)
	require.Positive(t, s.Log().Stats().Going)
	for s.Sweep() {
	}
	require.Zero(t, s.Log().Stats().Going)
	require.NoError(t, s.Close())
	for n := range fs.Ops() + 1 {
		for seed := range uint64(4) {
			c := open(t, fs.CrashAt(n, seed), nil)
			require.Contains(t, []uint64{1, 21}, c.Log().First())
			require.Equal(t, uint64(40), c.Log().Last())
			got := indexes(t, c.Snapshots())
			if c.Log().First() == 21 {
				require.Equal(t, []uint64{30, 20}, got)
			}
			require.NoError(t, c.Close())
		}
	}
}

func TestHolds(t *testing.T) {
	s := open(t, memfs.New(), nil)
	defer s.Close()
	require.NoError(t, s.StoreLogs(entries(1, 40, 2)))
	publish(t, s, entries(1, 40, 2))
	checkpoint(t, s.Snapshots(), 10, 10)
	_, err := s.Retain(10)
	require.NoError(t, err)
	for _, tc := range []struct {
		index, term  uint64
		holds, below bool
	}{{9, 2, false, true}, {10, 2, true, false}, {10, 3, false, false}, {11, 2, true, false}, {40, 2, true, false}, {40, 1, false, false}, {41, 2, false, false}} {
		holds, below, err := s.Holds(tc.index, tc.term)
		require.NoError(t, err)
		require.Equal(t, []bool{tc.holds, tc.below}, []bool{holds, below}, "%+v", tc)
	}
}

// What a crash inside raft.BootstrapCluster leaves is not state, and can be
// undone; anything more is state.
func TestInterruptedBootstrap(t *testing.T) {
	s := open(t, memfs.New(), nil)
	defer s.Close()
	require.NoError(t, s.SetUint64([]byte("CurrentTerm"), 1))
	require.False(t, s.HasState())
	require.NoError(t, s.ForgetBootstrap())
	has, err := raft.HasExistingState(s, s, s.Snapshots())
	require.NoError(t, err)
	require.False(t, has)
	require.NoError(t, s.SetUint64([]byte("CurrentTerm"), 2))
	require.True(t, s.HasState())
	require.NoError(t, s.ForgetBootstrap())
	term, err := s.GetUint64([]byte("CurrentTerm"))
	require.NoError(t, err)
	require.Equal(t, uint64(2), term)
}

func FuzzDecodeConfiguration(f *testing.F) {
	f.Add(raft.EncodeConfiguration(config("a", "b")))
	f.Add([]byte{0xc1})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = raftstore.DecodeConfiguration(b) // must not panic
	})
}

// A start that can read no checkpoint is fatal: told that there is none, Raft
// would look for entry 1, and panic where the log starts later.
func TestNoReadableCheckpointIsFatal(t *testing.T) {
	fs := memfs.New()
	s := open(t, fs, nil)
	require.NoError(t, s.StoreLogs(entries(1, 20, 1)))
	require.NoError(t, s.Install(raftstore.Installed{Index: 30, Term: 2, State: []byte("state")}))
	require.NoError(t, s.Close())

	var failing faultfs.Switch
	sick := faultfs.Wrap(fs, faultfs.When(faultfs.All(failing.On, faultfs.Is(faultfs.Open, faultfs.Read)), faultfs.Fail(syscall.EIO)))
	var fatal error
	s = open(t, sick, func(err error) { fatal = err })
	failing.Set(true)
	require.False(t, stray(func() { _, _ = s.Snapshots().List() }))
	require.ErrorIs(t, fatal, syscall.EIO)
	_ = s.Close()
}

// Entries that are known to be committed are not cut: better to stop than to
// diverge. A planted bug cuts them, and the node goes on without what it said it
// has.
func TestCommittedEntriesAreNotCut(t *testing.T) {
	for _, bug := range []bool{false, true} {
		t.Run(fmt.Sprint("planted ", bug), func(t *testing.T) {
			var fatal error
			s, err := raftstore.Open(raftstore.Options{
				FS: memfs.New(), Dir: "data", SegmentBytes: 1 << 16, OnFatal: func(err error) { fatal = err },
				Planted: planted.Storage{CutCommitted: bug},
			})
			require.NoError(t, err)
			require.NoError(t, s.StoreLogs(entries(1, 10, 1)))
			s.Log().SetCommitted(8)
			returned := stray(func() { _ = s.DeleteRange(5, 10) })
			if bug {
				require.True(t, returned)
				require.NoError(t, fatal)
				require.Equal(t, uint64(4), s.Log().Last(), "this is what the guard prevents")
			} else {
				var committed *commitlog.CommittedError
				require.False(t, returned)
				require.ErrorAs(t, fatal, &committed)
			}
			_ = s.Close()
		})
	}
}
