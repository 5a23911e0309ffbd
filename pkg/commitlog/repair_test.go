package commitlog_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// damaged opens what became of a log, quarantined if need be.
func damaged(fs vfs.FS, verified uint64) (*commitlog.Log, error) {
	o := small(fs)
	o.AllowDamage, o.VerifiedTo = true, verified
	return commitlog.Open(o)
}

// model is what a log should hold: entries from start+1 on, all durable.
type model struct {
	start   commitlog.Start
	entries []commitlog.Entry
}

func (m *model) last() uint64 { return m.start.Index + uint64(len(m.entries)) }

func (m *model) slice(from, to uint64) []commitlog.Entry {
	from, to = max(from, m.start.Index+1), min(to, m.last())
	if from > to {
		return nil
	}
	return m.entries[from-m.start.Index-1 : to-m.start.Index]
}

// serves checks that every entry reads as it was, or is refused and known to
// be damaged, and returns how many are.
func (m *model) serves(l *commitlog.Log) (bad int, err error) {
	for _, want := range m.entries {
		got, err := l.Entry(want.Index)
		var c *commitlog.CorruptError
		switch {
		case errors.As(err, &c):
			bad++
			if !inDamage(l.Damage(), want.Index) {
				return bad, fmt.Errorf("entry %d is refused (%w), but not in %v", want.Index, err, l.Damage())
			}
		case err != nil:
			return bad, fmt.Errorf("entry %d: %w", want.Index, err)
		case fmt.Sprint(got) != fmt.Sprint(want):
			return bad, fmt.Errorf("entry %d is not what it was", want.Index)
		}
	}
	return bad, nil
}

func inDamage(list []commitlog.Damage, index uint64) bool {
	for _, d := range list {
		if d.First <= index && index <= d.Last {
			return true
		}
	}
	return false
}

// mend repairs a log from the model as from a peer, and reports what is left
// to do otherwise.
func (m *model) mend(l *commitlog.Log, committed uint64) error {
	for range 20 {
		list := l.Damage()
		if len(list) == 0 {
			return nil
		}
		for _, d := range list {
			if d.Open && d.First > d.Last {
				if err := l.DropDamagedTail(d.First); err != nil {
					return err
				}
				continue
			}
			if _, err := l.Repair(m.slice(d.First, d.Last+1), committed); err != nil {
				return fmt.Errorf("repair %v: %w", d, err)
			}
		}
	}
	return fmt.Errorf("still damaged: %v", l.Damage())
}

// is checks that the log is exactly the model, also after a strict reopen.
func (m *model) is(t *testing.T, l *commitlog.Log, fs vfs.FS, what string) {
	t.Helper()
	require.False(t, l.Quarantined(), what)
	require.Equal(t, m.last(), l.Last(), what)
	bad, err := m.serves(l)
	require.NoError(t, err, what)
	require.Zero(t, bad, what)
	require.NoError(t, l.Close(), what)
	l, err = commitlog.Open(small(fs))
	require.NoError(t, err, what)
	requireEntries(t, l, m.entries, what)
	next := entry(m.last()+1, 1<<30, 40, 3)
	require.NoError(t, l.Append([]commitlog.Entry{next}), what)
	got, err := l.Entry(next.Index)
	require.NoError(t, err, what)
	require.Equal(t, next, got, what)
	require.NoError(t, l.Close(), what)
}

// build makes a log of a few segments, terms rising, with a cut in the middle.
func build(t *testing.T, n uint64, size int) (*memfs.FS, *model) {
	t.Helper()
	mem, m := memfs.New(), &model{}
	l, err := commitlog.Open(small(mem))
	require.NoError(t, err)
	for i := uint64(1); i <= n; i++ {
		e := entry(i, 1+i/7, size+int(i%5)*8, 0)
		if i == n/2 { // it was another first
			require.NoError(t, l.Append([]commitlog.Entry{entry(i, 1+i/7, 33, 9), entry(i+1, 1+i/7, 44, 9)}))
			require.NoError(t, l.TruncateSuffix(i))
		}
		require.NoError(t, l.Append([]commitlog.Entry{e}))
		m.entries = append(m.entries, e)
	}
	require.NoError(t, l.Close())
	return mem, m
}

// Every flipped bit of every segment is found at Open, is not served, and is
// repaired from a peer; what was not damaged is served all the while.
func TestFlippedBitIsRepaired(t *testing.T) {
	mem, m := build(t, 24, 50)
	names := segments(t, mem)
	require.Greater(t, len(names), 3)
	for _, proof := range []uint64{0, m.last()} { // by Log Matching, or as committed
		for _, name := range names {
			b, err := vfs.ReadFile(mem, dir+"/"+name)
			require.NoError(t, err)
			used := len(strings.TrimRight(string(b), "\x00"))
			for place := 0; place < used; place++ {
				fs := mem.Kill()
				require.NoError(t, fs.Corrupt(dir+"/"+name, int64(place), 1<<(place%8)))
				what := fmt.Sprintf("%s at %d", name, place)
				l, err := damaged(fs, 0)
				require.NoError(t, err, what)
				require.Equal(t, m.last(), l.Last(), what)
				bad, err := m.serves(l)
				require.NoError(t, err, what)
				require.LessOrEqual(t, bad, 1, what)
				if place >= 64 {
					require.Equal(t, 1, bad, what)
					require.True(t, l.Quarantined(), what)
					var refused *commitlog.DamagedError
					require.ErrorAs(t, l.Append([]commitlog.Entry{entry(m.last()+1, 99, 9, 0)}), &refused, what)
					require.ErrorAs(t, l.TruncateSuffix(m.last()), &refused, what)
				}
				require.NoError(t, m.mend(l, proof), what)
				m.is(t, l, fs, what)
			}
		}
	}
}
