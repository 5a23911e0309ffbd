package raftstore_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/raftstore"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

var (
	damageRounds = flag.Int("damage.rounds", 300, "damages that TestEveryKindOfDamage makes")
	damageSeed   = flag.Uint64("damage.seed", 1, "its seed")
)

const (
	damageFirst, damageLast = 11, 70
	damageTerm              = 9
)

// quarantine opens a store over whatever is there.
func quarantine(fs vfs.FS) (*raftstore.Store, error) {
	return raftstore.Open(raftstore.Options{FS: fs, Dir: "data", SegmentBytes: 2048, AllowDamage: true})
}

// whole makes a store with a start that has moved, checkpoints, a vote.
func whole(t *testing.T) *memfs.FS {
	fs := memfs.New()
	s, err := quarantine(fs)
	require.NoError(t, err)
	for i := uint64(1); i <= damageLast; i += 2 {
		require.NoError(t, s.StoreLogs(entries(i, i+1, 2)))
		publish(t, s, entries(i, i+1, 2))
	}
	for i := uint64(10); i <= 60; i += 10 {
		checkpoint(t, s.Snapshots(), i, i)
	}
	moved, err := s.Retain(10)
	require.NoError(t, err)
	require.True(t, moved)
	require.NoError(t, s.SetUint64([]byte("CurrentTerm"), damageTerm))
	require.NoError(t, s.SetUint64([]byte("LastVoteTerm"), damageTerm))
	require.NoError(t, s.Set([]byte("LastVoteCand"), []byte("b.00000002")))
	require.NoError(t, s.Close())
	s, err = quarantine(fs) // what lies below the start goes
	require.NoError(t, err)
	d := s.Damage()
	require.False(t, d.Any())
	require.NoError(t, s.Close())
	return fs
}

// stored gives entries as a peer would.
func stored(from, to uint64) (out []commitlog.Entry) {
	for _, e := range entries(max(from, 1), min(to, damageLast), 2) {
		out = append(out, commitlog.Entry{Index: e.Index, Term: e.Term, Type: uint8(e.Type), AppendedAt: e.AppendedAt.UnixNano(), Data: e.Data})
	}
	return out
}

// heal does what a replica does with its peers' help, and says what it found.
func heal(t *testing.T, s *raftstore.Store, what string) (stable, base bool) {
	t.Helper()
	d := s.Damage()
	if d.Stable != nil {
		stable = true
		require.Error(t, s.RepairStable(d.TermAtLeast), what)
		require.NoError(t, s.RepairStable(damageTerm+1), what)
		require.NoError(t, s.Damage().Stable, what)
	}
	if d.Checkpoint != nil {
		base = true
		in := raftstore.Installed{Index: 25, Term: 2, Next: 25, Bytes: 25000, Config: config("a"), ConfigIndex: 1, State: []byte("state at 25")}
		require.NoError(t, s.PutCheckpoint(in), what)
		require.NoError(t, s.Damage().Checkpoint, what)
	}
	for range 100 {
		d = s.Damage()
		if len(d.Log) == 0 {
			break
		}
		g := d.Log[0]
		_, err := s.Repair(stored(g.First, g.Last+1), damageLast)
		require.NoError(t, err, what)
	}
	require.False(t, s.Damage().Blocked, what)
	require.Empty(t, s.Damage().Log, what)
	return stable, base
}

// starts does what NewRaft and the state machine do with a store, and checks
// that they find all of it.
func starts(t *testing.T, s *raftstore.Store, stable bool, what string) {
	t.Helper()
	term, err := s.GetUint64([]byte("CurrentTerm"))
	require.NoError(t, err, what)
	if stable {
		require.Equal(t, uint64(damageTerm+1), term, what)
		_, err = s.Get([]byte("LastVoteCand"))
		require.Error(t, err, what)
	} else {
		require.Equal(t, uint64(damageTerm), term, what)
		cand, err := s.Get([]byte("LastVoteCand"))
		require.NoError(t, err, what)
		require.Equal(t, "b.00000002", string(cand), what)
	}
	require.True(t, s.HasCheckpoint(), what)
	metas, err := s.Snapshots().List()
	require.NoError(t, err, what)
	require.NotEmpty(t, metas, what)
	at := metas[0].Index
	_, r, err := s.Snapshots().Open(metas[0].ID)
	require.NoError(t, err, what)
	state := make([]byte, metas[0].Size)
	_, err = r.Read(state)
	require.NoError(t, err, what)
	require.Equal(t, fmt.Sprintf("state at %d", at), string(state), what)
	log := s.Log()
	require.NoError(t, log.Rewind(at), what)
	require.Equal(t, []uint64{damageFirst, damageLast}, []uint64{log.First(), log.Last()}, what)
	for i := at + 1; i <= damageLast; i++ {
		var l raft.Log
		require.True(t, stray(func() { err = s.GetLog(i, &l) }), "%s: entry %d", what, i)
		require.NoError(t, err, what)
		require.Equal(t, *entries(i, i, 2)[0], l, what)
		publish(t, s, entries(i, i, 2))
	}
}

// reads checks that nothing wrong is read, and returns what is refused.
func reads(t *testing.T, s *raftstore.Store, what string) (bad int) {
	t.Helper()
	for i := uint64(damageFirst); i <= damageLast; i++ {
		want := entries(i, i, 2)[0]
		var corrupt *commitlog.CorruptError
		e, err := s.Log().Entry(i)
		if err != nil {
			require.ErrorAs(t, err, &corrupt, what)
			bad++
		} else {
			require.Equal(t, want.Data, e.Data, what)
		}
		if i > s.Log().Visible() {
			continue
		}
		b, err := s.Log().Read(i-1, 1)
		if err != nil {
			require.ErrorAs(t, err, &corrupt, what)
			bad++
			continue
		}
		require.Equal(t, i-1, b[0].FirstOffset, what)
		require.Equal(t, string(want.Data), string(b[0].Records), what)
	}
	return bad
}

// P6: whatever happens to one file of a store, it is harmless or found, never
// served, and repaired with what the peers have; and the store is then what it
// was.
func TestEveryKindOfDamage(t *testing.T) {
	mem := whole(t)
	var files []string
	for _, dir := range []string{"data", "data/log", "data/checkpoints"} {
		names, err := mem.List(dir)
		require.NoError(t, err)
		for _, n := range names {
			if info, err := mem.Stat(path.Join(dir, n)); err == nil && !info.IsDir && !strings.HasSuffix(n, ".free") && n != "lock" {
				files = append(files, path.Join(dir, n))
			}
		}
	}
	rng := rand.New(rand.NewPCG(*damageSeed, 3))
	seen := map[string]int{}
	for round := range *damageRounds {
		fs := mem.Kill()
		name := files[rng.IntN(len(files))]
		b, err := vfs.ReadFile(fs, name)
		require.NoError(t, err)
		used := len(strings.TrimRight(string(b), "\x00"))
		place := rng.IntN(min(len(b), used+64))
		if name == "data/raft-state" { // between its slots there is nothing
			place = 4096*rng.IntN(2) + rng.IntN(120)
		}
		kind := []string{"flip", "flip", "flip", "zeros", "cut", "noise", "gone"}[rng.IntN(7)]
		end := min(len(b), place+1+rng.IntN(600))
		switch kind {
		case "flip":
			require.NoError(t, fs.Corrupt(name, int64(place), 1<<rng.IntN(8)))
		case "zeros":
			clear(b[place:end])
		case "noise":
			for i := place; i < end; i++ {
				b[i] = byte(rng.Uint32())
			}
		case "cut":
			b = b[:place]
		case "gone":
			require.NoError(t, fs.Remove(name))
		}
		if kind == "zeros" || kind == "noise" || kind == "cut" {
			require.NoError(t, vfs.WriteFileAtomic(fs, name, b))
		}
		what := fmt.Sprintf("seed %d, round %d: %s at %d of %s", *damageSeed, round, kind, place, name)

		s, err := quarantine(fs)
		require.NoError(t, err, what)
		bad := reads(t, s, what)
		d := s.Damage()
		if d.Any() || bad > 0 {
			require.NotEqual(t, "data/log/durable-end", name, what)
			seen[kind+" "+path.Ext(strings.TrimSuffix(name, ".copy"))]++
		}
		stable, _ := heal(t, s, what)
		starts(t, s, stable, what)
		require.Zero(t, reads(t, s, what), what)
		require.NoError(t, s.Scrub(t.Context(), 0, func(context.Context, int64) error { return nil }), what)
		require.Empty(t, s.Damage().Log, what)
		require.Empty(t, s.Damage().Offsets, what)
		require.NoError(t, s.Close(), what)

		s, err = raftstore.Open(raftstore.Options{FS: fs, Dir: "data", SegmentBytes: 2048})
		require.NoError(t, err, what)
		starts(t, s, stable, what)
		require.Zero(t, reads(t, s, what), what)
		require.NoError(t, s.Close(), what)
	}
	t.Log(seen)
	votes := 0
	for _, kind := range []string{"flip", "zeros", "cut", "noise", "gone"} {
		require.NotZero(t, seen[kind+" .seg"])
		votes += seen[kind+" "]
	}
	require.NotZero(t, votes, "damage to the term and vote")
}
