package raftstore_test

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/raftstore"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

func free(context.Context, int64) error { return nil }

// Every byte of the term and vote, flipped, is found; Raft gets no answer from
// what is left; and the new term is above all that can be known here.
func TestDamagedVote(t *testing.T) {
	mem := whole(t)
	const name = "data/raft-state"
	file, err := vfs.ReadFile(mem, name)
	require.NoError(t, err)
	for place := range file {
		fs := mem.Kill()
		require.NoError(t, fs.Corrupt(name, int64(place), 1<<(place%8)))
		what := fmt.Sprintf("byte %d", place)
		if place%4096 >= 512 && place%64 > 0 {
			continue // between the slots, some of them
		}
		strict, err := raftstore.Open(raftstore.Options{FS: fs, Dir: "data", SegmentBytes: 2048})
		if place%4096 >= 512 {
			require.NoError(t, err, what)
			require.NoError(t, strict.Close(), what)
			continue
		}
		var corrupt *raftstore.CorruptError
		require.ErrorAs(t, err, &corrupt, what)
		s, err := quarantine(fs)
		require.NoError(t, err, what)
		d := s.Damage()
		require.ErrorAs(t, d.Stable, &corrupt, what)
		require.True(t, d.Blocked, what)
		require.GreaterOrEqual(t, d.TermAtLeast, uint64(2), "the log has entries of it")
		require.True(t, s.HasState(), what)
		require.Error(t, s.RepairStable(d.TermAtLeast), what)
		require.NoError(t, s.RepairStable(40), what)
		require.False(t, s.Damage().Blocked, what)
		require.NoError(t, s.RepairStable(2), "there is nothing to repair any more")
		require.NoError(t, s.Close(), what)
		for seed := range uint64(2) {
			s = open(t, fs.Crash(seed), nil)
			term, err := s.GetUint64([]byte("CurrentTerm"))
			require.NoError(t, err, what)
			require.Equal(t, uint64(40), term, what)
			_, err = s.Get([]byte("LastVoteCand"))
			require.EqualError(t, err, "not found", what)
			require.NoError(t, s.SetUint64([]byte("CurrentTerm"), 41), what)
			require.NoError(t, s.Close(), what)
		}
	}
}

// Raft, started by mistake, does not get a term that nobody knows.
func TestDamagedVoteEndsRaft(t *testing.T) {
	fs := whole(t)
	require.NoError(t, fs.Corrupt("data/raft-state", 20, 1))
	for what, call := range map[string]func(s *raftstore.Store){
		"GetUint64": func(s *raftstore.Store) { _, _ = s.GetUint64([]byte("CurrentTerm")) },
		"Get":       func(s *raftstore.Store) { _, _ = s.Get([]byte("LastVoteCand")) },
		"SetUint64": func(s *raftstore.Store) { _ = s.SetUint64([]byte("CurrentTerm"), 3) },
	} {
		var faults []error
		s, err := raftstore.Open(raftstore.Options{FS: fs.Kill(), Dir: "data", SegmentBytes: 2048, AllowDamage: true,
			OnFatal: func(err error) { faults = append(faults, err) }})
		require.NoError(t, err)
		require.False(t, stray(func() { call(s) }), what)
		require.Len(t, faults, 1)
		var damage *raftstore.DamageError
		require.ErrorAs(t, faults[0], &damage)
		_ = s.Close() // what a failed log says on close does not matter here
	}
}

// A crash anywhere in the repair of the vote leaves damage or the new term.
func TestRepairOfTheVoteSurvivesACrashAnywhere(t *testing.T) {
	fs := whole(t)
	require.NoError(t, fs.Corrupt("data/raft-state", 20, 1))
	fs.Record()
	s, err := quarantine(fs)
	require.NoError(t, err)
	require.NoError(t, s.RepairStable(40))
	require.NoError(t, s.Close())
	repaired := 0
	for n := range fs.Ops() + 1 {
		for seed := range uint64(4) {
			s, err := quarantine(fs.CrashAt(n, seed))
			require.NoError(t, err)
			if s.Damage().Stable == nil {
				repaired++
				term, err := s.GetUint64([]byte("CurrentTerm"))
				require.NoError(t, err)
				require.Equal(t, uint64(40), term)
			}
			require.NoError(t, s.Close())
		}
	}
	require.NotZero(t, repaired)
}

func checkpointFiles(t *testing.T, fs vfs.FS) (names []string) {
	all, err := fs.List("data/checkpoints")
	require.NoError(t, err)
	for _, n := range all {
		names = append(names, path.Join("data/checkpoints", n))
	}
	return names
}

// Every byte of every checkpoint, flipped: the next older one is used, the base
// comes back from its copy, and what is damaged is never restored.
func TestDamagedCheckpoint(t *testing.T) {
	mem := whole(t)
	names := checkpointFiles(t, mem)
	require.Len(t, names, 7) // 10 to 60, the base twice
	for _, name := range names {
		b, err := vfs.ReadFile(mem, name)
		require.NoError(t, err)
		for place := range b {
			what := fmt.Sprintf("%s at %d", name, place)
			fs := mem.Kill()
			require.NoError(t, fs.Corrupt(name, int64(place), 1<<(place%8)))
			s, err := quarantine(fs)
			require.NoError(t, err, what)
			require.False(t, s.Damage().Blocked, what)
			list := indexes(t, s.Snapshots()) // the states are what they were
			require.NoError(t, s.Scrub(t.Context(), 0, free), what)
			switch index := path.Base(name)[18:20]; {
			case index == "10": // there twice
				require.Equal(t, []uint64{60, 50, 40, 30, 20, 10}, list, what)
				now, err := vfs.ReadFile(fs, name)
				require.NoError(t, err, what)
				require.Equal(t, string(b), string(now), what)
			default:
				require.Len(t, list, 5, what)
				require.NotContains(t, fmt.Sprint(list), index, what)
				if _, err := fs.Stat(name); err == nil { // or Open has removed it
					require.Equal(t, []string{path.Base(name)}, s.Damage().Checkpoints, what)
				} else {
					require.Empty(t, s.Damage().Checkpoints, what)
				}
			}
			require.NoError(t, s.Close(), what)
		}
	}
}

// A store whose checkpoints are all damaged takes one from a peer that lies
// within its log, and no other.
func TestNoCheckpointLeft(t *testing.T) {
	fs := whole(t)
	for _, name := range checkpointFiles(t, fs) {
		require.NoError(t, fs.Corrupt(name, 30, 1))
	}
	_, err := raftstore.Open(raftstore.Options{FS: fs, Dir: "data", SegmentBytes: 2048})
	require.Error(t, err)
	s, err := quarantine(fs)
	require.NoError(t, err)
	require.Error(t, s.Damage().Checkpoint)
	require.True(t, s.Damage().Blocked)
	require.Zero(t, reads(t, s, "the log is whole"))
	in := func(index, term, next uint64) raftstore.Installed {
		return raftstore.Installed{Index: index, Term: term, Next: next, Config: config("a"), ConfigIndex: 1, State: fmt.Appendf(nil, "state at %d", index)}
	}
	require.Error(t, s.PutCheckpoint(in(9, 2, 9)), "below the start")
	require.Error(t, s.PutCheckpoint(in(10, 3, 10)), "another start")
	require.Error(t, s.PutCheckpoint(in(25, 3, 25)), "another term")
	require.Error(t, s.PutCheckpoint(in(71, 2, 71)), "above the log")
	require.True(t, s.Damage().Blocked)
	require.NoError(t, s.PutCheckpoint(in(25, 2, 25)))
	require.False(t, s.Damage().Blocked)
	starts(t, s, false, "with a peer's checkpoint")
	require.NoError(t, s.Close())
	s, err = raftstore.Open(raftstore.Options{FS: fs, Dir: "data", SegmentBytes: 2048})
	require.NoError(t, err)
	require.Equal(t, []uint64{25}, indexes(t, s.Snapshots()))
	require.NoError(t, s.Close())
}

// Where the offset index is lost the store offers only checkpoints that it
// reaches, none if need be, and verifies what will be replayed.
func TestLostOffsetIndex(t *testing.T) {
	fs := memfs.New()
	s, err := quarantine(fs)
	require.NoError(t, err)
	for i := uint64(1); i <= 60; i += 2 {
		require.NoError(t, s.StoreLogs(entries(i, i+1, 2)))
		publish(t, s, entries(i, i+1, 2))
	}
	for i := uint64(20); i <= 60; i += 10 {
		checkpoint(t, s.Snapshots(), i, i)
	}
	require.NoError(t, s.Close())
	const header, record = 56, 56
	off := "data/log/" + strings.Repeat("0", 20) + ".off"
	segs, err := fs.List("data/log")
	require.NoError(t, err)
	for _, damaged := range []bool{false, true} {
		for at := range 61 {
			fs := fs.Kill()
			if damaged { // an entry that only a replay needs
				require.NoError(t, fs.Corrupt(path.Join("data/log", segs[1]), 64+50, 1))
			}
			want := []uint64{60, 50, 40, 30, 20}
			if at == 60 {
				require.NoError(t, fs.Remove(off))
				at, want = 0, nil
			} else {
				require.NoError(t, fs.Corrupt(off, int64(header+record*at), 1))
				for len(want) > 0 && want[0] > uint64(at) {
					want = want[1:]
				}
				if len(want) == 0 {
					want = nil
				}
			}
			s, err := quarantine(fs)
			require.NoError(t, err)
			require.Equal(t, want, indexes(t, s.Snapshots()), "record %d", at)
			require.Equal(t, want != nil, s.HasCheckpoint())
			require.True(t, s.HasState())
			require.Equal(t, damaged && want == nil, s.Damage().Blocked, "record %d, %v: entry 1 is replayed only without a checkpoint", at, s.Damage())
			next := uint64(0)
			if want != nil {
				next = want[0]
			}
			for _, d := range s.Damage().Log {
				_, err := s.Repair(stored(d.First, d.Last), 60)
				require.NoError(t, err)
			}
			require.NoError(t, s.Log().Rewind(next))
			publish(t, s, entries(next+1, 60, 2))
			for i := uint64(1); i <= 60; i++ {
				if _, err := s.Log().Read(i-1, 1); err != nil {
					require.True(t, damaged && i == 1)
				}
			}
			require.NoError(t, s.Close())
		}
	}
}

// Raft may ask for a damaged entry that is applied, for a follower: it gets an
// error and lives, and the replica hears of it.
func TestGetLogInsideDamage(t *testing.T) {
	fs := whole(t)
	told := 0
	s, err := raftstore.Open(raftstore.Options{FS: fs, Dir: "data", SegmentBytes: 2048, CacheBytes: 1, AllowDamage: true, OnDamage: func() { told++ }})
	require.NoError(t, err)
	require.NoError(t, s.Log().Rewind(60))
	publish(t, s, entries(61, damageLast, 2))
	segs, err := fs.List("data/log")
	require.NoError(t, err)
	for _, n := range segs {
		if strings.HasPrefix(n, "000000000000000000") && strings.HasSuffix(n, ".seg") {
			b, err := vfs.ReadFile(fs, path.Join("data/log", n))
			require.NoError(t, err)
			require.NoError(t, fs.Corrupt(path.Join("data/log", n), int64(len(b)/2), 1))
			break
		}
	}
	failed := uint64(0)
	for range 2 {
		for i := uint64(damageFirst); i <= damageLast; i++ {
			var l raft.Log
			var err error
			require.True(t, stray(func() { err = s.GetLog(i, &l) }), "it returns to Raft")
			if err != nil {
				var damage *raftstore.DamageError
				require.ErrorAs(t, err, &damage)
				failed = i
			}
		}
	}
	require.NotZero(t, failed)
	require.Equal(t, 1, told, "once")
	d := s.Damage().Log
	require.Len(t, d, 1)
	require.False(t, s.Damage().Blocked, "Raft runs on")
	require.NoError(t, s.StoreLogs(entries(damageLast+1, damageLast+1, 2)))
	_, err = s.Repair(stored(d[0].First, d[0].Last+1), 0)
	require.NoError(t, err)
	var l raft.Log
	require.NoError(t, s.GetLog(failed, &l))
	require.Equal(t, *entries(failed, failed, 2)[0], l)
	require.NoError(t, s.Close())
}

// The scrub of a store in use writes a damaged slot of the vote again, and a
// checkpoint from its copy.
func TestScrubOfAStore(t *testing.T) {
	fs := whole(t)
	s, err := quarantine(fs)
	require.NoError(t, err)
	base := checkpointFiles(t, fs)[0]
	for _, tc := range []struct {
		name  string
		place int64
	}{{"data/raft-state", 3}, {"data/raft-state", 4096 + 30}, {base, 50}, {base + ".copy", 90}} {
		was, err := vfs.ReadFile(fs, tc.name)
		require.NoError(t, err)
		require.NoError(t, fs.Corrupt(tc.name, tc.place, 8))
		require.NoError(t, s.Scrub(t.Context(), 0, free))
		now, err := vfs.ReadFile(fs, tc.name)
		require.NoError(t, err)
		if tc.name != "data/raft-state" {
			require.Equal(t, string(was), string(now), tc.name)
		}
		for seed := range uint64(2) {
			c, err := raftstore.Open(raftstore.Options{FS: fs.Crash(seed), Dir: "data", SegmentBytes: 2048})
			require.NoError(t, err, "%s at %d", tc.name, tc.place)
			term, err := c.GetUint64([]byte("CurrentTerm"))
			require.NoError(t, err)
			require.Equal(t, uint64(damageTerm), term)
			require.NoError(t, c.Close())
		}
	}
	require.NotZero(t, s.Log().Stats().Scrub.Passes)
	require.NoError(t, s.Close())
}

// Checkpoints that go by each other's names are found, and get their own again. A copy
// that is there and does not verify is no copy. What was found damaged is damaged only
// as long as it is there.
func TestMisnamedCheckpoints(t *testing.T) {
	mem := whole(t)
	names := checkpointFiles(t, mem) // 10, its copy, 20 to 60
	read := func(fs vfs.FS, name string) string {
		b, err := vfs.ReadFile(fs, name)
		require.NoError(t, err)
		return string(b)
	}
	for _, pair := range [][2]int{{0, 3}, {1, 4}, {2, 3}, {5, 6}} {
		fs := mem.Kill()
		a, b := names[pair[0]], names[pair[1]]
		require.NoError(t, fs.Rename(a, "data/checkpoints/other"))
		require.NoError(t, fs.Rename(b, a))
		require.NoError(t, fs.Rename("data/checkpoints/other", b))
		s, err := quarantine(fs)
		require.NoError(t, err)
		require.Equal(t, []uint64{60, 50, 40, 30, 20, 10}, indexes(t, s.Snapshots()), pair)
		require.NoError(t, s.Scrub(t.Context(), 0, free))
		require.Equal(t, []uint64{60, 50, 40, 30, 20, 10}, indexes(t, s.Snapshots()), pair)
		require.Empty(t, s.Damage().Checkpoints, pair)
		for _, name := range names {
			require.Equal(t, read(mem, name), read(fs, name), pair)
		}
		require.NoError(t, s.Close())
	}

	fs := mem.Kill()
	s, err := quarantine(fs)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	require.NoError(t, fs.Corrupt(names[1], 80, 1))
	moved, err := s.Retain(0)
	require.NoError(t, err)
	require.False(t, moved)
	require.Equal(t, read(mem, names[1]), read(fs, names[1]))
	require.NoError(t, fs.Corrupt(names[3], 80, 1))
	require.NoError(t, s.Scrub(t.Context(), 0, free))
	require.Equal(t, []string{path.Base(names[3])}, s.Damage().Checkpoints)
	checkpoint(t, s.Snapshots(), 70, 70)
	require.Empty(t, s.Damage().Checkpoints)
	d := s.Damage()
	require.False(t, d.Any())
}

// A log that lost its end, below what a checkpoint shows to be committed, and the
// offset index with it, waits for a repair like any other.
func TestALostEndBesideALostOffsetIndex(t *testing.T) {
	fs := whole(t)
	require.NoError(t, fs.Remove("data/log/durable-end"))
	all, err := fs.List("data/log")
	require.NoError(t, err)
	for _, n := range all {
		first, err := strconv.ParseUint(n[:min(len(n), 20)], 10, 64)
		if err == nil && (strings.HasSuffix(n, ".off") || strings.HasSuffix(n, ".seg") && first > 30) {
			require.NoError(t, fs.Remove(path.Join("data/log", n)))
		}
	}
	_, err = raftstore.Open(raftstore.Options{FS: fs, Dir: "data", SegmentBytes: 2048})
	require.Error(t, err)
	s, err := quarantine(fs)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	d := s.Damage()
	require.True(t, d.Blocked)
	require.NotEmpty(t, d.Log)
	require.Less(t, d.Log[0].First, uint64(60))
}
