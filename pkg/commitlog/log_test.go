package commitlog_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

func TestAppendThenReopen(t *testing.T) {
	for name, sizes := range map[string][]int{
		"one entry":                     {1},
		"one call within a segment":     {5},
		"calls across segments":         {3, 9, 1, 1, 17},
		"one call across many segments": {64},
	} {
		t.Run(name, func(t *testing.T) {
			fs := memfs.New()
			l := open(t, small(fs))
			var want []commitlog.Entry
			for _, n := range sizes {
				es := entries(uint64(len(want)+1), uint64(len(want)+n), 1, 100)
				require.NoError(t, l.Append(es))
				want = append(want, es...)
				requireEntries(t, l, want)
			}
			require.NoError(t, l.Close())
			l = open(t, small(fs))
			requireEntries(t, l, want)
			require.NoError(t, l.Append(entries(uint64(len(want)+1), uint64(len(want)+1), 2, 10)))
		})
	}
}

func TestAppendRefusesAndChangesNothing(t *testing.T) {
	fs := memfs.New()
	l := open(t, small(fs))
	want := entries(1, 3, 5, 50)
	require.NoError(t, l.Append(want))
	before := fs.Ops()
	var gap *commitlog.GapError
	require.ErrorAs(t, l.Append(entries(5, 5, 5, 1)), &gap)
	require.Equal(t, commitlog.GapError{Want: 4, Got: 5}, *gap)
	require.ErrorAs(t, l.Append(append(entries(4, 4, 5, 1), entries(6, 6, 5, 1)...)), &gap)
	var term *commitlog.TermError
	require.ErrorAs(t, l.Append(entries(4, 4, 4, 1)), &term)
	var large *commitlog.TooLargeError
	require.ErrorAs(t, l.Append([]commitlog.Entry{{Index: 4, Term: 5, Data: make([]byte, commitlog.MaxEntryBytes+1)}}), &large)
	require.NoError(t, l.Append(nil))
	require.Equal(t, before, fs.Ops(), "nothing was written")
	requireEntries(t, l, want)
}

// I1: one write and one sync a call.
func TestAppendIsOneWriteAndOneSync(t *testing.T) {
	fs := memfs.New()
	o := small(fs)
	o.SegmentBytes = 1 << 20
	l := open(t, o)
	require.NoError(t, l.Append(entries(1, 1, 1, 10)))
	ops, syncs := fs.Ops(), fs.Syncs()
	require.NoError(t, l.Append(entries(2, 65, 1, 100)))
	require.Equal(t, 1, fs.Syncs()-syncs)
	require.Equal(t, 3, fs.Ops()-ops, "the frames, their sync, the durable end")
}

func TestEntryLargerThanASegment(t *testing.T) {
	fs := memfs.New()
	l := open(t, small(fs))
	want := append(entries(1, 1, 1, 10), append(entries(2, 2, 1, 5000), entries(3, 3, 1, 10)...)...)
	require.NoError(t, l.Append(want))
	require.NoError(t, l.Close())
	requireEntries(t, open(t, small(fs)), want)
}

func TestTruncateSuffix(t *testing.T) {
	for name, from := range map[string]uint64{
		"the last entry":             30,
		"within the last segment":    28,
		"at a segment's first entry": 22,
		"several segments":           9,
		"everything":                 1,
		"nothing":                    31,
	} {
		t.Run(name, func(t *testing.T) {
			fs := memfs.New()
			l := open(t, small(fs))
			want := entries(1, 30, 1, 100)
			require.NoError(t, l.Append(want))
			require.NoError(t, l.TruncateSuffix(from))
			want = want[:from-1]
			requireEntries(t, l, want)
			// I5: what replaces the cut entries is what is read.
			again := []commitlog.Entry{entry(from, 2, 100, 7), entry(from+1, 2, 100, 7)}
			if from <= 30 {
				require.NoError(t, l.Append(again))
				want = append(want[:from-1:from-1], again...)
			}
			requireEntries(t, l, want)
			require.NoError(t, l.Close())
			requireEntries(t, open(t, small(fs)), want)
		})
	}
}

// I6: a committed entry is never cut.
func TestTruncateRefusesCommitted(t *testing.T) {
	fs := memfs.New()
	l := open(t, small(fs))
	want := entries(1, 6, 1, 20)
	require.NoError(t, l.Append(want[:5]))
	l.SetCommitted(3)
	l.SetCommitted(2)
	require.NoError(t, l.Append(want[5:]))
	var committed *commitlog.CommittedError
	require.ErrorAs(t, l.TruncateSuffix(3), &committed)
	require.Equal(t, commitlog.CommittedError{From: 3, Committed: 3}, *committed)
	requireEntries(t, l, want)
	require.NoError(t, l.Close())

	l = open(t, small(fs))
	require.ErrorAs(t, l.TruncateSuffix(3), &committed, "the frame of entry 6 says so")
	require.NoError(t, l.TruncateSuffix(4))
	requireEntries(t, l, want[:3])
	require.NoError(t, l.Publish(batches(want[2:3], 0, 1)))
	require.NoError(t, l.Close())
	o := small(fs)
	o.KnownCommit = 3
	l = open(t, o)
	require.ErrorAs(t, l.TruncateSuffix(2), &committed)
}

func TestResetAndSetStart(t *testing.T) {
	fs := memfs.New()
	l := open(t, small(fs))
	es := entries(1, 30, 1, 100)
	require.NoError(t, l.Append(es))
	require.NoError(t, l.Publish(batches(es, 0, 2)))
	n := len(segments(t, fs))

	require.NoError(t, l.SetStart(commitlog.Start{Index: 20, Term: 1, Offset: 40}))
	require.Equal(t, uint64(21), l.First())
	require.Equal(t, uint64(40), l.Lowest())
	sweepAll(t, l)
	require.Less(t, len(segments(t, fs)), n)
	requireEntries(t, l, es[20:])
	require.NoError(t, l.SetStart(commitlog.Start{Index: 10, Term: 1, Offset: 20}), "a lower start changes nothing")
	require.Equal(t, commitlog.Start{Index: 20, Term: 1, Offset: 40}, l.Start())
	require.Error(t, l.SetStart(commitlog.Start{Index: 31, Term: 1, Offset: 99}))
	var out *commitlog.OutOfRangeError
	_, err := l.Read(39, 1)
	require.ErrorAs(t, err, &out)
	require.Equal(t, commitlog.OutOfRangeError{Offset: 39, Lowest: 40, Next: 60}, *out)
	require.NoError(t, l.SyncOffsets())
	require.NoError(t, l.Close())

	l = open(t, small(fs))
	requireEntries(t, l, es[20:])
	require.Equal(t, uint64(60), l.Visible())
	require.NoError(t, l.Rewind(60))

	require.NoError(t, l.Reset(commitlog.Start{Index: 1000, Term: 4, Offset: 500}))
	requireEntries(t, l, nil)
	require.Equal(t, uint64(1000), l.Last())
	require.Equal(t, uint64(500), l.Visible())
	require.Empty(t, segments(t, fs))
	more := entries(1001, 1003, 4, 10)
	require.NoError(t, l.Append(more))
	require.NoError(t, l.Publish(batches(more, 500, 1)))
	require.NoError(t, l.Close())
	l = open(t, small(fs))
	requireEntries(t, l, more)
	require.NoError(t, l.Rewind(503))
	got, err := l.Read(501, 1)
	require.NoError(t, err)
	require.Equal(t, more[1].Data, got[0].Records)
}

// The reset that a crash interrupted between checkpoint and log.
func TestOpenFinishesReset(t *testing.T) {
	fs := memfs.New()
	l := open(t, small(fs))
	require.NoError(t, l.Append(entries(1, 10, 1, 100)))
	require.NoError(t, l.Close())
	o := small(fs)
	o.VerifiedTo = 50
	var corrupt *commitlog.CorruptError
	_, err := commitlog.Open(o)
	require.ErrorAs(t, err, &corrupt, "without the mark the entries below the checkpoint are lost")
	o.Reset = &commitlog.Start{Index: 50, Term: 3, Offset: 70}
	l = open(t, o)
	require.Equal(t, *o.Reset, l.Start())
	require.NoError(t, l.Append(entries(51, 52, 3, 10)))
	require.NoError(t, l.Close())
	requireEntries(t, open(t, o), entries(51, 52, 3, 10)) // not emptied twice
}

func TestReadByOffset(t *testing.T) {
	for name, cacheBytes := range map[string]int64{"from segments": 1, "from the cache": 1 << 20, "from both": 600} {
		t.Run(name, func(t *testing.T) {
			fs := memfs.New()
			o := small(fs)
			o.CacheBytes = cacheBytes
			l := open(t, o)
			es := entries(1, 40, 1, 100)
			require.NoError(t, l.Append(es))
			require.NoError(t, l.Publish(batches(es, 0, 3)))
			check := func(l *commitlog.Log) {
				for _, maxBytes := range []int{0, 100, 250, 1 << 20} {
					for off := uint64(0); off < 120; {
						got, err := l.Read(off, maxBytes)
						require.NoError(t, err)
						require.NotEmpty(t, got)
						bytes := 0
						for i, b := range got {
							first := off - off%3 + uint64(3*i)
							require.Equal(t, commitlog.RecordBatch{FirstOffset: first, Count: 3, Timestamp: es[first/3].AppendedAt, Records: es[first/3].Data}, b)
							bytes += len(b.Records)
						}
						require.LessOrEqual(t, bytes, max(maxBytes, 100))
						off += 2
					}
				}
			}
			check(l)
			require.NoError(t, l.Close())
			l = open(t, o)
			require.NoError(t, l.Rewind(120))
			check(l)
			for _, off := range []uint64{120, 1 << 40, ^uint64(0)} {
				var out *commitlog.OutOfRangeError
				_, err := l.Read(off, 1)
				require.ErrorAs(t, err, &out)
			}
		})
	}
}

func TestSeveralBatchesInOneEntry(t *testing.T) {
	for name, cacheBytes := range map[string]int64{"disk": 1, "cache": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			o := small(memfs.New())
			o.CacheBytes = cacheBytes
			l := open(t, o)
			e := entry(1, 1, 300, 0)
			require.NoError(t, l.Append([]commitlog.Entry{e, entry(2, 1, 30, 0)}))
			require.NoError(t, l.Publish([]commitlog.Applied{
				{FirstOffset: 0, Count: 1, Index: 1, Pos: 10, Len: 50, Timestamp: 1},
				{FirstOffset: 1, Count: 5, Index: 1, Pos: 60, Len: 100, Timestamp: 2},
				{FirstOffset: 6, Count: 2, Index: 2, Pos: 5, Len: 20, Timestamp: 3},
			}))
			got, err := l.Read(0, 60)
			require.NoError(t, err)
			require.Equal(t, []commitlog.RecordBatch{{FirstOffset: 0, Count: 1, Timestamp: 1, Records: e.Data[10:60]}}, got)
			got, err = l.Read(3, 1000)
			require.NoError(t, err)
			require.Equal(t, uint64(1), got[0].FirstOffset)
			require.Equal(t, e.Data[60:160], got[0].Records)
			require.Equal(t, 2, len(got))
		})
	}
}

func TestPublishAndRewind(t *testing.T) {
	fs := memfs.New()
	l := open(t, small(fs))
	es := entries(1, 20, 1, 50)
	require.NoError(t, l.Append(es))
	bs := batches(es, 0, 2)
	var gap *commitlog.OffsetGapError
	require.ErrorAs(t, l.Publish(bs[1:2]), &gap)
	require.Equal(t, commitlog.OffsetGapError{Want: 0, Got: 2}, *gap)
	require.NoError(t, l.Publish(bs[:10]))
	require.NoError(t, l.Publish(bs[5:]), "a replay repeats batches")
	require.Equal(t, uint64(40), l.Visible())
	require.ErrorIs(t, l.Publish([]commitlog.Applied{{FirstOffset: 40, Count: 1, Index: 21}}), commitlog.ErrNotFound)
	require.NoError(t, l.Close())

	for next := uint64(40); ; next -= 2 {
		l := open(t, small(fs))
		require.NoError(t, l.Rewind(next))
		require.Equal(t, next, l.Visible())
		require.NoError(t, l.Publish(bs))
		require.Equal(t, uint64(40), l.Visible())
		for off := range uint64(40) {
			got, err := l.Read(off, 1)
			require.NoError(t, err)
			require.Equal(t, es[off/2].Data, got[0].Records)
		}
		require.NoError(t, l.Close())
		if next == 0 {
			break
		}
	}
	l = open(t, small(fs))
	require.ErrorAs(t, l.Rewind(41), &gap)
	require.ErrorAs(t, l.Rewind(13), &gap, "within a batch")
}

func TestOffsetAt(t *testing.T) {
	l := open(t, small(memfs.New()))
	es := entries(1, 20, 1, 20)
	for i := range es {
		es[i].AppendedAt = int64(10 * i)
	}
	es[12].AppendedAt = 3 // a clock set back
	require.NoError(t, l.Append(es))
	require.NoError(t, l.Publish(batches(es, 0, 1)))
	for at, want := range map[int64]uint64{-5: 0, 0: 0, 1: 1, 10: 1, 111: 13, 120: 13, 130: 13, 190: 19, 191: 20} {
		require.Equal(t, want, l.OffsetAt(at), "time %d", at)
	}
	l.SetLowest(5)
	require.Equal(t, uint64(5), l.OffsetAt(0))
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := commitlog.Open(small(memfs.New()))
		require.NoError(t, err)
		es := entries(1, 5, 1, 20)
		require.NoError(t, l.Append(es))
		got := make(chan error, 4) // one a waiter
		wait := func(ctx context.Context, off uint64) { go func() { got <- l.Wait(ctx, off) }() }

		wait(t.Context(), 1)
		synctest.Wait() // durably blocked: on an event, not on a clock
		require.Empty(t, got)
		require.NoError(t, l.Publish(batches(es[:1], 0, 1)))
		synctest.Wait()
		require.Empty(t, got, "offset 1 is not there yet")
		require.NoError(t, l.Publish(batches(es[1:2], 1, 1)))
		require.NoError(t, <-got)

		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		wait(ctx, 9)
		synctest.Wait()
		cancel(cause)
		require.ErrorIs(t, <-got, cause)

		wait(t.Context(), 9)
		wait(t.Context(), 10)
		synctest.Wait()
		require.NoError(t, l.Close())
		require.ErrorIs(t, <-got, commitlog.ErrClosed)
		require.ErrorIs(t, <-got, commitlog.ErrClosed)
	})
}

func TestSecondOpenerIsRefused(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"memfs": memfs.New(), "os": vfs.OS{}} {
		t.Run(name, func(t *testing.T) {
			o := commitlog.Options{FS: fs, Dir: t.TempDir() + "/a/b"}
			l := open(t, o)
			_, err := commitlog.Open(o)
			require.ErrorIs(t, err, vfs.ErrLocked)
			require.NoError(t, l.Close())
			open(t, o)
		})
	}
}

func TestAfterClose(t *testing.T) {
	l := open(t, small(memfs.New()))
	require.NoError(t, l.Append(entries(1, 1, 1, 1)))
	require.NoError(t, l.Close())
	require.NoError(t, l.Close(), "closing twice is harmless")
	require.ErrorIs(t, l.Append(entries(2, 2, 1, 1)), commitlog.ErrClosed)
	_, err := l.Entry(1)
	require.ErrorIs(t, err, commitlog.ErrClosed)
	_, err = l.Read(0, 1)
	require.ErrorIs(t, err, commitlog.ErrClosed)
	require.ErrorIs(t, l.Publish(nil), commitlog.ErrClosed)
	require.ErrorIs(t, l.TruncateSuffix(1), commitlog.ErrClosed)
	require.ErrorIs(t, l.Reset(commitlog.Start{}), commitlog.ErrClosed)
}
