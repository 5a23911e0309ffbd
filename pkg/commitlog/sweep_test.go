package commitlog_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// sweepAll removes all that SetStart took out of the log.
func sweepAll(t *testing.T, l *commitlog.Log) {
	t.Helper()
	for more := true; more; {
		var err error
		more, err = l.Sweep()
		require.NoError(t, err)
	}
}

func offsetFiles(t *testing.T, fs vfs.FS) (names []string) {
	t.Helper()
	all, err := fs.List(dir)
	require.NoError(t, err)
	for _, n := range all {
		if strings.HasSuffix(n, ".off") {
			names = append(names, n)
		}
	}
	return names
}

// I13: a start that moves far removes nothing by itself; each Sweep removes one
// segment, the oldest.
func TestSweepRemovesOneSegmentAtATime(t *testing.T) {
	fs := memfs.New()
	l := open(t, small(fs))
	es := entries(1, 60, 1, 100)
	require.NoError(t, l.Append(es))
	require.NoError(t, l.Publish(batches(es, 0, 2)))
	before, index := segments(t, fs), offsetFiles(t, fs)
	require.NoError(t, l.SetStart(commitlog.Start{Index: 50, Term: 1, Offset: 100}))
	require.Equal(t, before, segments(t, fs))
	st := l.Stats()
	require.Positive(t, st.Going)
	require.Positive(t, st.GoingBytes)
	require.Less(t, st.Segments, len(before))
	for left := before; ; {
		more, err := l.Sweep()
		require.NoError(t, err)
		if now := segments(t, fs); len(now) < len(left) {
			require.Equal(t, left[1:], now, "the oldest, and only that")
			left = now
		}
		if !more {
			break
		}
	}
	require.Len(t, segments(t, fs), st.Segments)
	require.Less(t, len(offsetFiles(t, fs)), len(index))
	require.Zero(t, l.Stats().Going)
	require.Zero(t, l.Stats().GoingBytes)
	more, err := l.Sweep()
	require.NoError(t, err)
	require.False(t, more)
	requireEntries(t, l, es[50:])
}

// What the process did not come to remove, the next one removes.
func TestOpenRemovesWhatWasNotSwept(t *testing.T) {
	fs := memfs.New()
	l := open(t, small(fs))
	es := entries(1, 60, 1, 100)
	require.NoError(t, l.Append(es))
	require.NoError(t, l.SetStart(commitlog.Start{Index: 50, Term: 1, Offset: 100}))
	more, err := l.Sweep()
	require.NoError(t, err)
	require.True(t, more)
	keep := l.Stats().Segments
	require.NoError(t, l.Close())
	l = open(t, small(fs))
	require.Len(t, segments(t, fs), keep)
	requireEntries(t, l, es[50:])
	require.NoError(t, l.Close())
	_, err = l.Sweep()
	require.ErrorIs(t, err, commitlog.ErrClosed)
}

// Whoever is in the middle of a file that goes reads on, and is told then that
// the log begins later.
func TestReadersOutliveTheirFiles(t *testing.T) {
	fs := memfs.New()
	var l *commitlog.Log
	es := entries(1, 60, 1, 100)
	armed, met := false, false
	// The start moves, and everything below it goes, between a reader's finding
	// its segment and its reading from it.
	o := small(nil)
	o.CacheBytes = 1
	o.FS = faultfs.Wrap(fs, faultfs.When(faultfs.All(faultfs.Is(faultfs.Read), faultfs.Not(faultfs.Name("*.off"))), func(faultfs.Op) (int, error) {
		if armed {
			armed, met = false, true
			require.NoError(t, l.SetStart(commitlog.Start{Index: 50, Term: 1, Offset: 100}))
			sweepAll(t, l)
		}
		return -1, nil
	}))
	l = open(t, o)
	require.NoError(t, l.Append(es))
	require.NoError(t, l.Publish(batches(es, 0, 2)))
	armed = true
	got, err := l.Read(6, 1)
	require.True(t, met)
	require.NoError(t, err)
	require.Equal(t, es[3].Data, got[0].Records)
	var outOf *commitlog.OutOfRangeError
	_, err = l.Read(8, 1)
	require.ErrorAs(t, err, &outOf)
	require.Equal(t, commitlog.OutOfRangeError{Offset: 8, Lowest: 100, Next: 120}, *outOf)
}

// A failed removal is fatal: what is durable is not known any more.
func TestFailedSweepIsFatal(t *testing.T) {
	fs := faultfs.Wrap(memfs.New(), faultfs.When(faultfs.All(faultfs.Is(faultfs.Remove), faultfs.Name("*.seg")), faultfs.Fail(syscall.EIO)))
	l := open(t, small(fs))
	require.NoError(t, l.Append(entries(1, 60, 1, 100)))
	require.NoError(t, l.SetStart(commitlog.Start{Index: 50, Term: 1, Offset: 50}))
	var fatal *commitlog.FatalError
	_, err := l.Sweep()
	require.ErrorAs(t, err, &fatal)
	require.ErrorAs(t, l.Append(entries(61, 61, 1, 1)), &fatal)
}

// OffsetWithin and BytesBelow agree with a count of the files, wherever batches and segments
// begin.
func TestOffsetWithin(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 30 {
		fs := memfs.New()
		l := open(t, small(fs))
		require.Zero(t, l.OffsetWithin(1))
		index := map[uint64]uint64{} // entry → its first offset
		entry := map[uint64]uint64{} // first offset → the entry with the record
		next, at := uint64(1), uint64(0)
		for range 5 + rng.IntN(60) {
			es := entries(next, next+uint64(rng.IntN(3)), 1, rng.IntN(300)+1)
			require.NoError(t, l.Append(es))
			for _, e := range es {
				index[e.Index] = at
				if rng.IntN(4) > 0 { // some entries have no records
					require.NoError(t, l.Publish([]commitlog.Applied{{FirstOffset: at, Count: 2, Index: e.Index, Len: 1}}))
					entry[at] = e.Index
					at += 2
				}
			}
			next += uint64(len(es))
		}
		if rng.IntN(2) == 0 {
			i := 1 + rng.Uint64N(next-1)
			require.NoError(t, l.SetStart(commitlog.Start{Index: i, Term: 1, Offset: index[i]}))
			sweepAll(t, l)
		}
		var first []uint64 // entry that each segment begins with
		var size []int64
		for _, n := range segments(t, fs) {
			info, err := fs.Stat(dir + "/" + n)
			require.NoError(t, err)
			var f, id uint64
			_, err = fmt.Sscanf(n, "%d-%x.seg", &f, &id)
			require.NoError(t, err)
			first, size = append(first, f), append(size, info.Size)
		}
		for limit := int64(0); limit < 20_000; limit += 97 {
			k, sum := len(size)-1, size[len(size)-1]
			for k > 0 && sum+size[k-1] <= limit {
				k--
				sum += size[k]
			}
			want := l.Lowest()
			if k > 0 {
				want = max(want, index[first[k]])
			}
			require.Equal(t, want, l.OffsetWithin(limit), "within %d", limit)
			going := int64(0)
			for i := range size[1:] {
				if e, ok := entry[want]; !ok || first[i+1] <= e {
					going += size[i]
				}
			}
			require.Equal(t, going, l.BytesBelow(want), "below %d", want)
		}
		require.NoError(t, l.Close())
	}
}

// Batches age in the order of the log. Stamps from the future, of a leader whose
// clock was wrong, neither keep what is before them nor take what is after.
func TestExpired(t *testing.T) {
	const cutoff, future = 100, 200
	for name, tc := range map[string]struct {
		stamps []int64
		below  uint64 // batches that are old
	}{
		"nothing there":                         {nil, 0},
		"all young":                             {[]int64{100, 120, 200}, 0},
		"all old":                               {[]int64{1, 2, 3, 99}, 4},
		"some old":                              {[]int64{1, 50, 100, 130}, 2},
		"an old stamp among young":              {[]int64{1, 150, 2, 3, 160}, 1},
		"a clock that jumped and came back":     {[]int64{1, 2, 9999, 9999, 3, 4, 120}, 6},
		"a jump after the old":                  {[]int64{1, 2, 9999, 9999, 150}, 2},
		"a jump at the end":                     {[]int64{1, 2, 9999, 9999}, 2},
		"a jump at the beginning":               {[]int64{9999, 9999, 1, 2, 150}, 4},
		"nothing but stamps from the future":    {[]int64{9999, 9999}, 0},
		"several jumps":                         {[]int64{1, 9999, 2, 9999, 3, 9999, 150, 9999, 4}, 5},
		"young before a jump, old stamps after": {[]int64{1, 150, 9999, 2}, 1},
		"stamps before 1970":                    {[]int64{-5, -4, 150}, 2},
		"exactly at the cutoff":                 {[]int64{99, 100}, 1},
		"exactly at the limit of the future":    {[]int64{99, 200, 201}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			for _, perFile := range []int{1, 2, 100} {
				o := small(memfs.New())
				o.OffsetBatches = perFile
				l := open(t, o)
				for i, ts := range tc.stamps {
					es := entries(uint64(i+1), uint64(i+1), 1, 10)
					require.NoError(t, l.Append(es))
					require.NoError(t, l.Publish([]commitlog.Applied{{FirstOffset: uint64(2 * i), Count: 2, Index: uint64(i + 1), Len: 10, Timestamp: ts}}))
				}
				got, err := l.Expired(cutoff, future, commitlog.Expiry{})
				require.NoError(t, err)
				require.Equal(t, 2*tc.below, got.Below)
				again, err := l.Expired(cutoff, future, got)
				require.NoError(t, err)
				require.Equal(t, got, again, "asked again it says the same")
				if len(tc.stamps) > 0 {
					ts, ok := l.TimeAt(1)
					require.True(t, ok)
					require.Equal(t, tc.stamps[0], ts)
				}
				_, ok := l.TimeAt(uint64(2 * len(tc.stamps)))
				require.False(t, ok)
				require.NoError(t, l.Close())
			}
		})
	}
}

// A long stretch of stamps from the future is looked at once, a part at a time.
func TestExpiredIsBounded(t *testing.T) {
	o := small(memfs.New())
	o.OffsetBatches = 4
	l := open(t, o)
	const n = 400
	es := entries(1, n+1, 1, 10)
	require.NoError(t, l.Append(es))
	var bs []commitlog.Applied
	for i := range uint64(n + 1) {
		b := commitlog.Applied{FirstOffset: i, Count: 1, Index: i + 1, Len: 10, Timestamp: 9999}
		if i == n {
			b.Timestamp = 1
		}
		bs = append(bs, b)
	}
	require.NoError(t, l.Publish(bs))
	var e commitlog.Expiry
	calls := 0
	for e.Scanned <= n {
		was := e
		var err error
		e, err = l.Expired(100, 200, e)
		require.NoError(t, err)
		require.Greater(t, e.Scanned, was.Scanned)
		require.LessOrEqual(t, e.Scanned-was.Scanned, uint64(100))
		calls++
	}
	require.Greater(t, calls, 3)
	require.Equal(t, uint64(n+1), e.Below)
}
