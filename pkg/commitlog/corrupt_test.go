package commitlog_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// contents reads every file of the log.
func contents(t *testing.T, fs vfs.FS) map[string]string {
	t.Helper()
	names, err := fs.List(dir)
	require.NoError(t, err)
	files := map[string]string{}
	for _, n := range names {
		b, err := vfs.ReadFile(fs, dir+"/"+n)
		require.NoError(t, err)
		files[n] = string(b)
	}
	return files
}

// I2: a flipped bit in any frame below the durable end, and in any segment
// header, is reported, and nothing is changed because of it.
func TestFlippedBitIsCorruption(t *testing.T) {
	mem := memfs.New()
	l := open(t, small(mem))
	for i := uint64(1); i <= 12; i++ {
		require.NoError(t, l.Append(entries(i, i, 1, 91)))
	}
	end := l.Stats()
	require.NoError(t, l.Close())
	require.Less(t, 1, end.Segments)
	flipped := 0
	for _, name := range segments(t, mem) {
		b, err := vfs.ReadFile(mem, dir+"/"+name)
		require.NoError(t, err)
		used := len(strings.TrimRight(string(b), "\x00"))
		for place := 0; place < used; place++ {
			if place >= 52 && place < 64 {
				continue // zeros of the header that mean nothing
			}
			fs := mem.Kill()
			require.NoError(t, fs.Corrupt(dir+"/"+name, int64(place), 1<<(place%8)))
			before := contents(t, fs)
			_, err := commitlog.Open(small(fs))
			var corrupt *commitlog.CorruptError
			require.ErrorAs(t, err, &corrupt, "%s at %d", name, place)
			require.NotEmpty(t, corrupt.Path)
			after := contents(t, fs)
			for n, c := range before {
				if strings.HasSuffix(n, ".seg") {
					require.Equal(t, c, after[n], "%s at %d: nothing is cut", name, place)
				}
			}
			flipped++
		}
	}
	require.Greater(t, flipped, 1500)
}

// tail makes a log whose second Append call of count entries is on disk but
// not known to be durable, as after a power loss, and returns the place where
// each of its frames begins.
func tail(t *testing.T, count int) (mem *memfs.FS, path string, places []int64) {
	t.Helper()
	mem = memfs.New()
	o := small(mem)
	o.SegmentBytes = 1 << 16
	l := open(t, o)
	require.NoError(t, l.Append(entries(1, 2, 1, 100)))
	old, err := vfs.ReadFile(mem, dir+"/durable-end")
	require.NoError(t, err)
	require.NoError(t, l.Append(entries(3, uint64(2+count), 1, 100)))
	require.NoError(t, l.Close())
	f, err := mem.OpenReadWrite(dir + "/durable-end")
	require.NoError(t, err)
	_, err = f.WriteAt(old, 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	const frame = 48 + 104
	for i := range count {
		places = append(places, 64+int64(2+i)*frame)
	}
	return mem, dir + "/" + segments(t, mem)[0], places
}

// I3: damage above the durable end in the newest write is a torn tail, also
// where a later frame of the same write is whole; everything before it stays.
func TestTornTailIsCut(t *testing.T) {
	for torn := range 4 {
		for _, within := range []int64{0, 8, 30, 47, 48, 90, 147} {
			mem, path, places := tail(t, 4)
			require.NoError(t, mem.Corrupt(path, places[torn]+within, 0xff))
			o := small(mem)
			o.SegmentBytes = 1 << 16
			l := open(t, o)
			want := entries(1, uint64(2+torn), 1, 100)
			requireEntries(t, l, want)
			// I5: the cut frames behind never come back.
			next := entry(uint64(3+torn), 2, 100, 9)
			require.NoError(t, l.Append([]commitlog.Entry{next}))
			require.NoError(t, l.Close())
			requireEntries(t, open(t, o), append(want, next))
		}
	}
}

// I2: each of the three things that make damage more than a torn tail.
func TestDamageThatIsNoTornTail(t *testing.T) {
	big := func(fs vfs.FS) commitlog.Options {
		o := small(fs)
		o.SegmentBytes = 1 << 16
		return o
	}
	refused := func(t *testing.T, o commitlog.Options, reason string) {
		t.Helper()
		_, err := commitlog.Open(o)
		var corrupt *commitlog.CorruptError
		require.ErrorAs(t, err, &corrupt)
		require.Contains(t, corrupt.Reason, reason)
		require.Equal(t, uint64(3), corrupt.Index)
	}
	t.Run("a later write is whole", func(t *testing.T) {
		mem, path, places := tail(t, 1)
		l := open(t, big(mem))
		require.NoError(t, l.Append(entries(4, 4, 1, 100)))
		require.NoError(t, l.Close())
		require.NoError(t, mem.Remove(dir+"/durable-end"))
		require.NoError(t, mem.Corrupt(path, places[0], 1))
		refused(t, big(mem), "was written after it")
	})
	t.Run("below the durable end", func(t *testing.T) {
		mem, path, places := tail(t, 1)
		require.NoError(t, open(t, big(mem)).Close()) // raises the durable end
		require.NoError(t, mem.Corrupt(path, places[0], 1))
		refused(t, big(mem), "below the durable end")
	})
	t.Run("a checkpoint knows the entry", func(t *testing.T) {
		mem, path, places := tail(t, 1)
		require.NoError(t, mem.Corrupt(path, places[0], 1))
		o := big(mem)
		o.KnownCommit = 3
		refused(t, o, "committed")
	})
	t.Run("the file is gone", func(t *testing.T) {
		mem, path, _ := tail(t, 1)
		require.NoError(t, mem.Remove(path))
		for range 2 { // and again: nothing forgets it
			_, err := commitlog.Open(big(mem))
			var corrupt *commitlog.CorruptError
			require.ErrorAs(t, err, &corrupt)
			require.Contains(t, corrupt.Reason, "was durable")
		}
	})
	t.Run("a segment in the middle is gone", func(t *testing.T) {
		mem := memfs.New()
		l := open(t, small(mem))
		require.NoError(t, l.Append(entries(1, 30, 1, 100)))
		require.NoError(t, l.Close())
		names := segments(t, mem)
		for _, i := range []int{1, len(names) - 1} {
			fs := mem.Kill()
			require.NoError(t, fs.Remove(dir+"/"+names[i]))
			for range 2 {
				_, err := commitlog.Open(small(fs))
				var corrupt *commitlog.CorruptError
				require.ErrorAs(t, err, &corrupt)
			}
		}
	})
}

// I7: what lies at or below the checkpoint is not verified by Open, and is
// never served damaged.
func TestDamageBelowTheCheckpoint(t *testing.T) {
	for name, place := range map[string]int64{"header": 64 + 152 + 9, "payload": 64 + 152 + 60} {
		t.Run(name, func(t *testing.T) {
			mem := memfs.New()
			l := open(t, small(mem))
			es := entries(1, 30, 1, 100)
			require.NoError(t, l.Append(es))
			require.NoError(t, l.Publish(batches(es, 0, 1)))
			require.NoError(t, l.SyncOffsets())
			require.NoError(t, l.Close())
			names := segments(t, mem)
			for _, n := range []string{names[0], names[len(names)-1]} {
				fs := mem.Kill()
				require.NoError(t, fs.Corrupt(dir+"/"+n, place, 4))
				o := small(fs)
				o.VerifiedTo = 30
				l := open(t, o)
				require.NoError(t, l.Rewind(30))
				bad := 0
				for i := uint64(1); i <= 30; i++ {
					var corrupt *commitlog.CorruptError
					got, err := l.Entry(i)
					if err != nil {
						require.ErrorAs(t, err, &corrupt)
						require.Equal(t, i, corrupt.Index)
						_, err = l.Read(i-1, 1)
						require.ErrorAs(t, err, &corrupt)
						bad++
						continue
					}
					require.Equal(t, es[i-1], got)
					batch, err := l.Read(i-1, 1)
					require.NoError(t, err)
					require.Equal(t, es[i-1].Data, batch[0].Records)
				}
				require.Equal(t, 1, bad)
				require.NoError(t, l.Append(entries(31, 31, 1, 100)))
			}
		})
	}
}

// I9: the offset index is never trusted.
func TestDamagedOffsetIndex(t *testing.T) {
	mem := memfs.New()
	l := open(t, small(mem))
	es := entries(1, 10, 1, 60)
	require.NoError(t, l.Append(es))
	require.NoError(t, l.Publish(batches(es, 0, 1)))
	require.NoError(t, l.SyncOffsets())
	require.NoError(t, l.Close())
	for name, body := range contents(t, mem) {
		if !strings.HasSuffix(name, ".off") {
			continue
		}
		for place := range len(body) {
			if within := place % 56; within >= 52 || place < 56 && within >= 28 {
				continue // zeros that mean nothing
			}
			fs := mem.Kill()
			require.NoError(t, fs.Corrupt(dir+"/"+name, int64(place), 0x10))
			l, err := commitlog.Open(small(fs))
			require.NoError(t, err)
			if l.Visible() == 10 {
				// Damage within a sealed file shows when it is read.
				failed := 0
				for off := range uint64(10) {
					got, err := l.Read(off, 1)
					if err != nil {
						var corrupt *commitlog.CorruptError
						require.ErrorAs(t, err, &corrupt)
						failed++
						continue
					}
					require.Equal(t, es[off].Data, got[0].Records)
				}
				require.NotZero(t, failed)
				require.NoError(t, l.Close())
				continue
			}
			var gap *commitlog.OffsetGapError
			require.ErrorAs(t, l.Rewind(10), &gap, "the checkpoint is told")
			require.NoError(t, l.Rewind(0))
			require.NoError(t, l.Publish(batches(es, 0, 1)))
			for off := range uint64(10) {
				got, err := l.Read(off, 1)
				require.NoError(t, err)
				require.Equal(t, es[off].Data, got[0].Records)
			}
			require.NoError(t, l.Close())
		}
	}
}
