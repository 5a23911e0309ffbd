package commitlog_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

var (
	damageRounds = flag.Int("damage.rounds", 300, "damages that TestRandomDamageIsRepaired makes")
	damageSeed   = flag.Uint64("damage.seed", 1, "its seed")
)

// put replaces the contents of a file, durably.
func put(t testing.TB, fs vfs.FS, name string, b []byte) {
	t.Helper()
	require.NoError(t, vfs.WriteFileAtomic(fs, name, b))
}

func get(t testing.TB, fs vfs.FS, name string) []byte {
	t.Helper()
	b, err := vfs.ReadFile(fs, name)
	require.NoError(t, err)
	return b
}

// zeroed is b without what is in [from, to).
func zeroed(b []byte, from, to int) []byte {
	c := append([]byte(nil), b...)
	clear(c[max(from, 0):min(to, len(c))])
	return c
}

// Every way in which one segment can be damaged as a whole, at the beginning,
// in the middle and at the end of the log.
func TestDamagedSegmentIsRepaired(t *testing.T) {
	mem, m := build(t, 40, 60)
	names := segments(t, mem)
	last := len(names) - 1
	require.Greater(t, last, 3)
	used := func(b []byte) int { return len(strings.TrimRight(string(b), "\x00")) }
	kinds := map[string]func(fs *memfs.FS, name string){
		"missing": func(fs *memfs.FS, name string) { require.NoError(t, fs.Remove(name)) },
		"renamed": func(fs *memfs.FS, name string) { require.NoError(t, fs.Rename(name, path.Dir(name)+"/somewhere")) },
		"renamed, still a segment": func(fs *memfs.FS, name string) {
			require.NoError(t, fs.Rename(name, path.Dir(name)+"/x.seg"))
		},
		"empty":           func(fs *memfs.FS, name string) { put(t, fs, name, nil) },
		"zeros":           func(fs *memfs.FS, name string) { put(t, fs, name, make([]byte, len(get(t, fs, name)))) },
		"header zeroed":   func(fs *memfs.FS, name string) { put(t, fs, name, zeroed(get(t, fs, name), 0, 64)) },
		"first page lost": func(fs *memfs.FS, name string) { put(t, fs, name, zeroed(get(t, fs, name), 0, 512)) },
		"page in the middle lost": func(fs *memfs.FS, name string) {
			b := get(t, fs, name)
			put(t, fs, name, zeroed(b, used(b)/2, used(b)/2+256))
		},
		"last page lost": func(fs *memfs.FS, name string) {
			b := get(t, fs, name)
			put(t, fs, name, zeroed(b, used(b)-200, len(b)))
		},
		"cut in the header":     func(fs *memfs.FS, name string) { put(t, fs, name, get(t, fs, name)[:40]) },
		"cut behind the header": func(fs *memfs.FS, name string) { put(t, fs, name, get(t, fs, name)[:64]) },
		"cut in a frame": func(fs *memfs.FS, name string) {
			b := get(t, fs, name)
			put(t, fs, name, b[:used(b)/2])
		},
		"cut between frames": func(fs *memfs.FS, name string) {
			put(t, fs, name, get(t, fs, name)[:64+48+72]) // entries of 60 bytes and more
		},
		"cut by a byte": func(fs *memfs.FS, name string) { b := get(t, fs, name); put(t, fs, name, b[:used(b)-1]) },
		"longer":        func(fs *memfs.FS, name string) { put(t, fs, name, append(get(t, fs, name), make([]byte, 100)...)) },
		"garbage behind": func(fs *memfs.FS, name string) {
			put(t, fs, name, append(get(t, fs, name), []byte(strings.Repeat("x", 100))...))
		},
		"another one's bytes": func(fs *memfs.FS, name string) {
			for _, n := range names {
				if dir+"/"+n != name {
					put(t, fs, name, get(t, fs, dir+"/"+n))
					return
				}
			}
		},
	}
	for kind, spoil := range kinds {
		for i, name := range names {
			for _, c := range []struct{ verified, committed uint64 }{{0, 0}, {m.last() / 2, m.last()}, {m.last(), 0}} {
				what := fmt.Sprintf("%s, segment %d of %d, checkpoint at %d, committed %d", kind, i, last, c.verified, c.committed)
				fs := mem.Kill()
				spoil(fs, dir+"/"+name)
				m.repaired(t, fs, c.verified, c.committed, what)
			}
		}
	}
	for i := range names {
		for j := range i {
			fs := mem.Kill()
			a, b := dir+"/"+names[i], dir+"/"+names[j]
			require.NoError(t, fs.Rename(a, dir+"/z"))
			require.NoError(t, fs.Rename(b, a))
			require.NoError(t, fs.Rename(dir+"/z", b))
			l, err := damaged(fs, 0)
			require.NoError(t, err)
			require.Empty(t, l.Damage(), "segments %d and %d swapped: their headers tell", i, j)
			m.is(t, l, fs, fmt.Sprintf("segments %d and %d swapped", i, j))
		}
	}
}

// repaired opens a log that was spoilt, checks that it serves nothing wrong,
// repairs it, and checks that it is what it was.
func (m *model) repaired(t *testing.T, fs *memfs.FS, verified, proof uint64, what string) {
	t.Helper()
	l, err := damaged(fs, verified)
	require.NoError(t, err, what)
	require.Equal(t, m.last(), l.Last(), what)
	_, err = m.serves(l)
	require.NoError(t, err, what)
	if !l.Quarantined() && verified == 0 {
		bad, err := m.serves(l)
		require.NoError(t, err, what)
		require.Zero(t, bad, what)
	}
	require.NoError(t, m.mend(l, proof), what)
	m.is(t, l, fs, what)
}

// Damage of any kind, anywhere in a log, with and without a checkpoint above it,
// a wrong entry is never read, and all of them are there after the repair.
func TestRandomDamageIsRepaired(t *testing.T) {
	mem, m := build(t, 60, 40)
	names := append(segments(t, mem), "durable-end")
	rng := rand.New(rand.NewPCG(*damageSeed, 2))
	for round := range *damageRounds {
		fs := mem.Kill()
		what := fmt.Sprintf("seed %d, round %d:", *damageSeed, round)
		count := []int{1, 1, 2, 3}[rng.IntN(4)]
		for range count {
			n := len(names)
			if count > 1 {
				n-- // without the durable end a lost tail is lost
			}
			name := dir + "/" + names[rng.IntN(n)]
			b := get(t, fs, name)
			at := rng.IntN(len(b) + 1)
			kind := rng.IntN(6)
			switch kind {
			case 0, 1, 2:
				require.NoError(t, fs.Corrupt(name, int64(at), 1<<rng.IntN(8)))
			case 3:
				put(t, fs, name, zeroed(b, at, at+1+rng.IntN(600)))
			case 4:
				put(t, fs, name, b[:at])
			case 5:
				c := append([]byte(nil), b...)
				for i := at; i < min(len(c), at+1+rng.IntN(300)); i++ {
					c[i] = byte(rng.Uint32())
				}
				put(t, fs, name, c)
			}
			what += fmt.Sprintf(" kind %d at %d of %s;", kind, at, name)
		}
		proof := []uint64{0, m.last()}[rng.IntN(2)]
		if rng.IntN(3) > 0 {
			m.repaired(t, fs, []uint64{0, 0, rng.Uint64N(m.last() + 1)}[rng.IntN(3)], proof, what)
			continue
		}
		// A checkpoint in the middle: what is damaged below does not keep the log
		// from going on, and is found when it is read.
		l, err := damaged(fs, m.last()/2)
		require.NoError(t, err, what)
		_, err = m.serves(l)
		require.NoError(t, err, what)
		require.NoError(t, m.mend(l, proof), what)
		bad, err := m.serves(l)
		require.NoError(t, err, what)
		require.Zero(t, bad, what)
		require.Equal(t, m.last(), l.Last(), what)
		require.NoError(t, l.Append([]commitlog.Entry{entry(m.last()+1, 1<<30, 9, 1)}), what)
		require.NoError(t, l.Close(), what)
	}
}

// A crash anywhere in a repair leaves the damage, or less of it, or none; and
// the repair goes on from there.
func TestCrashDuringRepair(t *testing.T) {
	mem, m := build(t, 40, 60)
	names := segments(t, mem)
	states, halves := 0, 0
	for kind, spoil := range map[string]func(fs *memfs.FS){
		"payload": func(fs *memfs.FS) { require.NoError(t, fs.Corrupt(dir+"/"+names[1], 64+60, 1)) },
		"header":  func(fs *memfs.FS) { require.NoError(t, fs.Corrupt(dir+"/"+names[1], 64+9, 1)) },
		"header at the end": func(fs *memfs.FS) {
			b := get(t, fs, dir+"/"+names[len(names)-1])
			require.NoError(t, fs.Corrupt(dir+"/"+names[len(names)-1], int64(len(strings.TrimRight(string(b), "\x00"))-80), 1))
		},
		"first page":       func(fs *memfs.FS) { n := dir + "/" + names[2]; put(t, fs, n, zeroed(get(t, fs, n), 0, 512)) },
		"cut":              func(fs *memfs.FS) { n := dir + "/" + names[2]; put(t, fs, n, get(t, fs, n)[:300]) },
		"empty":            func(fs *memfs.FS) { put(t, fs, dir+"/"+names[0], nil) },
		"missing":          func(fs *memfs.FS) { require.NoError(t, fs.Remove(dir+"/"+names[2])) },
		"first is missing": func(fs *memfs.FS) { require.NoError(t, fs.Remove(dir+"/"+names[0])) },
		"last is missing":  func(fs *memfs.FS) { require.NoError(t, fs.Remove(dir+"/"+names[len(names)-1])) },
		"all are missing": func(fs *memfs.FS) {
			for _, n := range names {
				require.NoError(t, fs.Remove(dir+"/"+n))
			}
		},
		"swapped": func(fs *memfs.FS) {
			require.NoError(t, fs.Rename(dir+"/"+names[1], dir+"/z"))
			require.NoError(t, fs.Rename(dir+"/"+names[3], dir+"/"+names[1]))
			require.NoError(t, fs.Rename(dir+"/z", dir+"/"+names[3]))
		},
	} {
		fs := mem.Kill()
		spoil(fs)
		put(t, fs, dir+"/durable-end", get(t, fs, dir+"/durable-end")) // a power loss is not to make it old as well
		require.NoError(t, fs.SyncDir(dir))
		fs.Record()
		l, err := damaged(fs, 0)
		require.NoError(t, err, kind)
		was := entriesOf(l.Damage())
		require.NoError(t, m.mend(l, m.last()), kind)
		require.NoError(t, l.Close(), kind)
		for n := range fs.Ops() + 1 {
			for seed := range uint64(3) {
				what := fmt.Sprintf("%s, crash after operation %d of %d, seed %d", kind, n, fs.Ops(), seed)
				c := fs.CrashAt(n, seed)
				l, err := damaged(c, 0)
				require.NoError(t, err, what)
				require.Equal(t, m.last(), l.Last(), what)
				left := entriesOf(l.Damage())
				require.LessOrEqual(t, left, was, what)
				if n == fs.Ops() {
					require.Zero(t, left, "%s: what was repaired stays", what)
				}
				if left > 0 && left < was {
					halves++
				}
				_, err = m.serves(l)
				require.NoError(t, err, what)
				require.NoError(t, m.mend(l, m.last()), what)
				m.is(t, l, c, what)
				states++
			}
		}
	}
	require.NotZero(t, halves)
	t.Logf("%d states, %d of them half repaired", states, halves)
}

func entriesOf(list []commitlog.Damage) (n uint64) {
	for _, d := range list {
		n += d.Entries()
	}
	return n
}
