package commitlog_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// free lets a scrub go as fast as it can.
func free(context.Context, int64) error { return nil }

// used makes a log of n entries, a record each, whose start has moved.
func used(t *testing.T, fs *memfs.FS, n uint64) (*commitlog.Log, *model) {
	t.Helper()
	l, err := commitlog.Open(small(fs))
	require.NoError(t, err)
	es := entries(1, n, 2, 60)
	for i := 0; i < len(es); i += 3 {
		require.NoError(t, l.Append(es[i:min(i+3, len(es))]))
	}
	require.NoError(t, l.Publish(batches(es, 0, 1)))
	require.NoError(t, l.SyncOffsets())
	require.NoError(t, l.SetStart(commitlog.Start{Index: 4, Term: 2, Offset: 4}))
	return l, &model{start: commitlog.Start{Index: 4, Term: 2, Offset: 4}, entries: es[4:]}
}

// reads checks that every record reads as it was or is refused as damaged, and
// returns how many are refused.
func (m *model) reads(l *commitlog.Log) (bad int, err error) {
	for i, e := range m.entries {
		got, err := l.Read(m.start.Offset+uint64(i), 1)
		var c *commitlog.CorruptError
		switch {
		case errors.As(err, &c):
			bad++
		case err != nil:
			return bad, fmt.Errorf("offset %d: %w", m.start.Offset+uint64(i), err)
		case string(got[0].Records) != string(e.Data) || got[0].FirstOffset != m.start.Offset+uint64(i):
			return bad, fmt.Errorf("offset %d is not what it was", m.start.Offset+uint64(i))
		}
	}
	return bad, nil
}

// I12: the scrub finds every flipped bit in every file of a log in use: what it knows
// it writes again, the rest it reports; and when that is repaired, nothing is
// left to find, nor after a reopen.
func TestScrubFindsEveryFlippedBit(t *testing.T) {
	mem := memfs.New()
	l, m := used(t, mem, 30)
	require.NoError(t, l.Close())
	l, err := commitlog.Open(small(mem)) // and what lies below its start is gone
	require.NoError(t, err)
	require.NoError(t, l.Close())
	names, err := mem.List(dir)
	require.NoError(t, err)
	rng := rand.New(rand.NewPCG(7, 7))
	found := map[string]int{}
	for _, name := range names {
		b := get(t, mem, dir+"/"+name)
		end := len(strings.TrimRight(string(b), "\x00"))
		kind := name[strings.LastIndex(name, ".")+1:]
		for place := 0; place < end; place++ {
			within := place % 56
			switch {
			case kind == "durable-end", kind == "lock":
				continue // not trusted
			case (kind == "start" || kind == "copy") && place >= 52, kind == "seg" && place >= 52 && place < 64,
				kind == "off" && (within >= 52 || place < 56 && within >= 28):
				continue // zeros that mean nothing
			case (kind == "seg" && place > 64 || kind == "off" && place > 120) && rng.IntN(4) > 0:
				continue // some of them
			case kind == "seg" && name[:20] == "00000000000000000001" && place >= 64 && place < 64+4*112:
				continue // below the start
			}
			what := fmt.Sprintf("%s at %d", name, place)
			fs := mem.Kill()
			var told []commitlog.Damage
			var offsets []commitlog.OffsetDamage
			o := small(fs)
			o.OnDamage = func(d commitlog.Damage) { told = append(told, d) }
			o.OnOffsetDamage = func(d commitlog.OffsetDamage) { offsets = append(offsets, d) }
			l, err := commitlog.Open(o)
			require.NoError(t, err, what)
			require.NoError(t, fs.Corrupt(dir+"/"+name, int64(place), 1<<rng.IntN(8)))
			require.NoError(t, l.Scrub(t.Context(), 0, free), what)
			require.NoError(t, l.Scrub(t.Context(), 0, free), what) // tells nothing twice
			if len(told) > 0 {
				found["entries"]++
				require.Len(t, told, 1, what)
				require.Equal(t, told, l.Damage(), what)
				bad, err := m.serves(l)
				require.NoError(t, err, what)
				require.LessOrEqual(t, uint64(bad), told[0].Entries(), what)
				_, err = m.reads(l)
				require.NoError(t, err, what)
				require.NoError(t, l.Append([]commitlog.Entry{entry(31, 2, 60, 0)}), "%s: the log goes on", what)
				require.NoError(t, m.mend(l, 0), what)
				_, err = l.Entry(31)
				require.NoError(t, err, what)
				require.NoError(t, l.TruncateSuffix(31), what)
			}
			if len(offsets) > 0 {
				found["offsets"]++
				require.Len(t, offsets, 1, what)
				require.Equal(t, offsets, l.DamagedOffsets(), what)
				d := offsets[0]
				es := entries(d.First+1, d.Next, 2, 60)
				var gap *commitlog.OffsetGapError
				require.ErrorAs(t, l.RepairOffsets(d.First, batches(es[1:], d.First+1, 1)), &gap, what)
				require.ErrorAs(t, l.RepairOffsets(d.First, batches(es[:1], d.First, 1)), &gap, what)
				require.NoError(t, l.RepairOffsets(d.First, batches(es, d.First, 1)), what)
			}
			require.Empty(t, l.DamagedOffsets(), what)
			require.Empty(t, l.Damage(), what)
			bad, err := m.reads(l)
			require.NoError(t, err, what)
			require.Zero(t, bad, what)
			n := len(told) + len(offsets)
			require.NoError(t, l.Scrub(t.Context(), 0, free), what)
			require.Equal(t, n, len(told)+len(offsets), what)
			require.NoError(t, l.Close(), what)
			if n == 0 {
				found[kind]++ // written again
				now := get(t, fs, dir+"/"+name)
				require.True(t, string(b[:end]) == string(now[:end]), what)
			}
			l, err = commitlog.Open(small(fs))
			require.NoError(t, err, what)
			require.Equal(t, uint64(30), l.Visible(), what)
			bad, err = m.serves(l)
			require.NoError(t, err, what)
			require.Zero(t, bad, what)
			require.NoError(t, l.Close(), what)
		}
	}
	t.Log(found)
	for _, kind := range []string{"entries", "offsets", "seg", "off", "start", "copy"} {
		require.NotZero(t, found[kind], kind)
	}
}

// The scrub keeps to its pace, ends with its context, and runs beside writers,
// cuts, retention and a reset.
func TestScrubBesideEverything(t *testing.T) {
	l, _ := used(t, memfs.New(), 60)
	ctx, cancel := context.WithCancelCause(t.Context())
	var wg sync.WaitGroup
	passes := make(chan struct{}, 1)
	wg.Go(func() {
		for {
			err := l.Scrub(ctx, 0, free)
			if err != nil {
				require.Error(t, context.Cause(ctx))
				require.ErrorIs(t, err, context.Cause(ctx))
				return
			}
			select {
			case passes <- struct{}{}:
			default:
			}
		}
	})
	last, visible := uint64(60), uint64(60)
	for round := range 200 {
		es := entries(last+1, last+5, 2, 40)
		require.NoError(t, l.Append(es))
		require.NoError(t, l.TruncateSuffix(last+4))
		last += 3
		require.NoError(t, l.Publish(batches(es[:3], visible, 1)))
		visible += 3
		switch {
		case round%20 == 19:
			last += 10
			require.NoError(t, l.Reset(commitlog.Start{Index: last, Term: 2, Offset: visible}))
		case round%5 == 4:
			require.NoError(t, l.SetStart(commitlog.Start{Index: last - 6, Term: 2, Offset: visible - 6}))
		}
		if round%10 == 0 {
			<-passes
		}
	}
	cancel(errors.New("enough"))
	wg.Wait()
	require.Empty(t, l.Damage(), "nothing was damaged")
	require.Empty(t, l.DamagedOffsets())
	s := l.Stats().Scrub
	require.Greater(t, s.Passes, uint64(10))
	require.NotZero(t, s.Bytes)
	require.False(t, s.LastPass.IsZero())

	// The pace is asked before every read, and may end it.
	total := int64(0)
	require.NoError(t, l.Scrub(t.Context(), 0, func(_ context.Context, n int64) error { total += n; return nil }))
	require.GreaterOrEqual(t, total, int64(l.Stats().Last-l.Stats().First+1)*48)
	stop := errors.New("stop")
	require.ErrorIs(t, l.Scrub(t.Context(), 0, func(context.Context, int64) error { return stop }), stop)
	require.NoError(t, l.Close())
	require.ErrorIs(t, l.Scrub(t.Context(), 0, free), commitlog.ErrClosed)
}

// A pass that goes on reads what is behind the entry it has reached, and one that
// would go on where there is nothing begins anew.
func TestScrubGoesOn(t *testing.T) {
	l, err := commitlog.Open(small(memfs.New()))
	require.NoError(t, err)
	require.NoError(t, l.Append(entries(1, 100, 1, 60)))
	reads := func(from uint64) (total int64) {
		require.NoError(t, l.Scrub(t.Context(), from, func(_ context.Context, n int64) error { total += n; return nil }))
		return total
	}
	all := reads(0)
	require.InDelta(t, all/4, reads(75), float64(all)/8)
	require.Equal(t, all, reads(1))
	require.Equal(t, all, reads(101))
	require.NoError(t, l.Close())
}

// Rewind into a sealed file that has rotted since Open finds it, whichever record it
// is: an older checkpoint has to be restored.
func TestRewindIntoARottenFile(t *testing.T) {
	for rec := range 4 {
		mem := memfs.New()
		o := small(mem) // eight batches a file
		l, err := commitlog.Open(o)
		require.NoError(t, err)
		es := entries(1, 20, 1, 60)
		require.NoError(t, l.Append(es))
		require.NoError(t, l.Publish(batches(es, 0, 1)))
		require.NoError(t, l.SyncOffsets())
		require.NoError(t, l.Close())
		l, err = commitlog.Open(o)
		require.NoError(t, err)
		require.NoError(t, mem.Corrupt(fmt.Sprintf("%s/%020d.off", dir, 8), int64(rec+1)*56+3, 1))
		var gap *commitlog.OffsetGapError
		switch err := l.Rewind(11); {
		case rec < 3:
			require.ErrorAs(t, err, &gap, "record %d", rec)
			require.Equal(t, uint64(8+rec), gap.Want)
			require.Equal(t, gap.Want, l.Visible())
		default:
			require.NoError(t, err, "it is cut off")
		}
		require.NoError(t, l.Close())
	}
}

// A repair that ends while the scrub is in the middle of a segment is not undone
// by what the scrub had read before.
func TestScrubWhileItsFindIsRepaired(t *testing.T) {
	mem := memfs.New()
	o := small(mem)
	o.SegmentBytes = 1 << 20
	l, err := commitlog.Open(o)
	require.NoError(t, err)
	m := &model{entries: entries(1, 8, 1, 40<<10)}
	require.NoError(t, l.Append(m.entries))
	require.NoError(t, mem.Corrupt(dir+"/"+segments(t, mem)[0], 64+100, 1))
	require.NoError(t, l.Scrub(t.Context(), 0, free))
	require.Len(t, l.Damage(), 1)
	reads := 0
	require.NoError(t, l.Scrub(t.Context(), 0, func(context.Context, int64) error {
		if reads++; reads == 3 { // the damage is behind it
			return m.mend(l, 0)
		}
		return nil
	}))
	require.Empty(t, l.Damage())
	require.NoError(t, l.Close())
}

// The start record is there twice: every byte of one may be flipped, and either
// file may be gone.
func TestStartRecordIsThereTwice(t *testing.T) {
	mem := memfs.New()
	l, m := used(t, mem, 30)
	require.NoError(t, l.Close())
	for _, name := range []string{"start", "start.copy"} {
		was := get(t, mem, dir+"/"+name)
		for place := range len(was) + 1 {
			fs := mem.Kill()
			if place == len(was) {
				require.NoError(t, fs.Remove(dir+"/"+name))
			} else {
				require.NoError(t, fs.Corrupt(dir+"/"+name, int64(place), 1<<(place%8)))
			}
			l, err := commitlog.Open(small(fs))
			require.NoError(t, err, "%s at %d", name, place)
			require.Equal(t, m.start, l.Start())
			require.NoError(t, l.Close())
			if place < 52 || place == len(was) {
				require.True(t, string(was) == string(get(t, fs, dir+"/"+name)), "%s at %d: written again", name, place)
			}
		}
	}
	fs := mem.Kill()
	require.NoError(t, fs.Corrupt(dir+"/start", 9, 1))
	require.NoError(t, fs.Corrupt(dir+"/start.copy", 9, 1))
	_, err := commitlog.Open(small(fs))
	var corrupt *commitlog.CorruptError
	require.ErrorAs(t, err, &corrupt)
}
