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
	for range m.entries {
		list := l.Damage()
		if len(list) == 0 {
			return nil
		}
		d := list[0]
		if d.Open && d.First > d.Last {
			if err := l.DropDamagedTail(d.First); err != nil {
				return err
			}
			continue
		}
		// With what is behind it, up to what is known for sure.
		last := d.Last + 1
		for inDamage(list, last) && last < m.last() {
			last++
		}
		if _, err := l.Repair(m.slice(d.First, last), committed); err != nil {
			return fmt.Errorf("repair %v: %w", d, err)
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

// I12: every flipped bit of every segment is found at Open, is not served, and is
// repaired from a peer; what was not damaged is served all the while.
func TestFlippedBitIsRepaired(t *testing.T) {
	mem, m := build(t, 24, 50)
	names := segments(t, mem)
	require.Greater(t, len(names), 3)
	for i, proof := range []uint64{0, m.last()} { // by Log Matching, or as committed
		for _, name := range names {
			b, err := vfs.ReadFile(mem, dir+"/"+name)
			require.NoError(t, err)
			used := len(strings.TrimRight(string(b), "\x00"))
			for place := i; place < used; place += 2 {
				if place > 256 && place%5 > 1 {
					continue // the frames are alike
				}
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

// I12: a replacement is taken for one of three proofs, and for nothing else.
func TestRepairNeedsAProof(t *testing.T) {
	mem, m := build(t, 24, 50)
	names := segments(t, mem)
	spoilt := func(t *testing.T, place int64) (*commitlog.Log, commitlog.Damage) {
		fs := mem.Kill()
		require.NoError(t, fs.Corrupt(dir+"/"+names[1], place, 1))
		l, err := damaged(fs, 0)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, l.Close()) })
		require.Len(t, l.Damage(), 1)
		return l, l.Damage()[0]
	}
	refused := func(t *testing.T, l *commitlog.Log, es []commitlog.Entry, committed uint64, why string, unproven bool) {
		t.Helper()
		was := l.Damage()
		n, err := l.Repair(es, committed)
		var proof *commitlog.ProofError
		require.ErrorAs(t, err, &proof)
		require.Contains(t, proof.Reason, why)
		require.Equal(t, unproven, proof.Unproven)
		require.Zero(t, n)
		require.Equal(t, was, l.Damage())
	}
	other := func(es []commitlog.Entry, i int, change func(e *commitlog.Entry)) []commitlog.Entry {
		es = append([]commitlog.Entry(nil), es...)
		change(&es[i])
		return es
	}
	t.Run("a payload", func(t *testing.T) {
		l, d := spoilt(t, 64+60)
		require.True(t, d.Pinned)
		require.Equal(t, d.First, d.Last)
		es := m.slice(d.First, d.Last)
		require.Equal(t, es[0].Term, d.Term)
		refused(t, l, other(es, 0, func(e *commitlog.Entry) { e.Data = append([]byte("x"), e.Data[1:]...) }), 99, "another payload", false)
		refused(t, l, other(es, 0, func(e *commitlog.Entry) { e.Term++ }), 99, "term", false)
		n, err := l.Repair(es, 0) // its header here is proof enough
		require.NoError(t, err)
		require.EqualValues(t, 1, n)
		require.False(t, l.Quarantined())
	})
	t.Run("a header", func(t *testing.T) {
		l, d := spoilt(t, 64+9)
		require.False(t, d.Pinned)
		require.Equal(t, commitlog.Anchor{Index: d.First - 1, Term: m.slice(d.First-1, d.First-1)[0].Term, Known: true}, d.Before)
		require.Equal(t, commitlog.Anchor{Index: d.Last + 1, Term: m.slice(d.Last+1, d.Last+1)[0].Term, Known: true}, d.After)
		es := m.slice(d.First-1, d.Last+1)
		refused(t, l, es[1:2], d.First-1, "nothing shows", true)
		refused(t, l, other(es, 2, func(e *commitlog.Entry) { e.Term++ }), 99, "there and", false)
		refused(t, l, other(es, 0, func(e *commitlog.Entry) { e.Term-- }), 99, "there and", false)
		refused(t, l, other(es[1:2], 0, func(e *commitlog.Entry) { e.Term = d.Before.Term - 1 }), 99, "below its predecessor", false)
		refused(t, l, other(es[1:2], 0, func(e *commitlog.Entry) { e.Term = d.After.Term + 1 }), 99, "above", false)
		refused(t, l, other(es[1:], 0, func(e *commitlog.Entry) { e.Data = make([]byte, 200) }), 99, "where there are", false)
		var gap *commitlog.GapError
		_, err := l.Repair([]commitlog.Entry{es[0], es[2]}, 99)
		require.ErrorAs(t, err, &gap)
		n, err := l.Repair(es[1:], 0) // up to what follows
		require.NoError(t, err)
		require.EqualValues(t, 1, n)
	})
	t.Run("a header, committed", func(t *testing.T) {
		l, d := spoilt(t, 64+9)
		n, err := l.Repair(m.slice(d.First, d.Last), d.Last)
		require.NoError(t, err)
		require.EqualValues(t, 1, n)
	})
}

// What is known to be committed comes back piece by piece, however much it is.
func TestRepairInPieces(t *testing.T) {
	mem, m := build(t, 60, 50)
	names := segments(t, mem)
	for _, gone := range [][]string{names[:2], names[2:4], names[len(names)-2:], names} {
		fs := mem.Kill()
		for _, n := range gone {
			require.NoError(t, fs.Remove(dir+"/"+n))
		}
		l, err := damaged(fs, 0)
		require.NoError(t, err)
		require.Len(t, l.Damage(), 1)
		first, steps := l.Damage()[0].First, 0
		for len(l.Damage()) > 0 {
			d := l.Damage()[0]
			require.Equal(t, first, d.First)
			n, err := l.Repair(m.slice(d.First, min(d.Last, d.First+2)), d.First+1) // of three, two are committed
			require.NoError(t, err)
			if n > 2 { // up to the next one here, which is a proof as well
				require.Equal(t, d.Last, d.First+2)
			}
			first, steps = first+n, steps+1
			_, err = m.serves(l)
			require.NoError(t, err)
		}
		require.Greater(t, steps, 3)
		m.is(t, l, fs, fmt.Sprint(gone))
	}
}

// A damaged tail that nobody else ever had is cut on the caller's word, and
// never one that is known here to be committed.
func TestDropDamagedTail(t *testing.T) {
	mem, m := build(t, 24, 50)
	names := segments(t, mem)
	last := dir + "/" + names[len(names)-1]
	end := int64(len(strings.TrimRight(string(get(t, mem, last)), "\x00")))
	spoilt := func(t *testing.T, commit uint64) (*memfs.FS, *commitlog.Log) {
		fs := mem.Kill()
		require.NoError(t, fs.Corrupt(last, end-80, 1)) // the header of the last entry
		o := small(fs)
		o.AllowDamage, o.KnownCommit = true, commit
		l, err := commitlog.Open(o)
		require.NoError(t, err)
		require.Len(t, l.Damage(), 1)
		require.Equal(t, m.last(), l.Damage()[0].First)
		return fs, l
	}
	t.Run("committed", func(t *testing.T) {
		_, l := spoilt(t, m.last())
		defer l.Close()
		var committed *commitlog.CommittedError
		require.ErrorAs(t, l.DropDamagedTail(m.last()), &committed)
		require.True(t, l.Quarantined())
	})
	t.Run("unknown to all", func(t *testing.T) {
		fs, l := spoilt(t, 0)
		require.NoError(t, l.DropDamagedTail(m.last()))
		(&model{entries: m.slice(1, m.last()-1)}).is(t, l, fs, "cut")
	})
	t.Run("and what follows", func(t *testing.T) { // an uncommitted fork, with entries that are whole
		fs, l := spoilt(t, 0)
		from := m.last() - 5
		require.NoError(t, l.DropDamagedTail(from))
		(&model{entries: m.slice(1, from-1)}).is(t, l, fs, "cut")
	})
	t.Run("not in a whole log", func(t *testing.T) {
		l, err := damaged(mem.Kill(), 0)
		require.NoError(t, err)
		defer l.Close()
		require.Error(t, l.DropDamagedTail(m.last()))
		require.Equal(t, m.last(), l.Last())
	})
	t.Run("without a durable end", func(t *testing.T) { // how much there was is not known
		fs := mem.Kill()
		put(t, fs, last, get(t, fs, last)[:64+48+30])
		require.NoError(t, fs.Remove(dir+"/durable-end"))
		o := small(fs)
		first := m.last()
		for ; first > 0; first-- { // of the last segment
			if strings.HasPrefix(names[len(names)-1], fmt.Sprintf("%020d-", first)) {
				break
			}
		}
		o.AllowDamage, o.KnownCommit = true, first+1
		l, err := commitlog.Open(o)
		require.NoError(t, err)
		require.Len(t, l.Damage(), 1)
		d := l.Damage()[0]
		require.True(t, d.Open)
		require.Equal(t, []uint64{first, first + 1}, []uint64{d.First, d.Last})
		_, err = l.Repair(m.slice(d.First, d.Last+1), d.Last+1) // there was more, as a peer knows
		require.NoError(t, err)
		d = l.Damage()[0]
		require.Equal(t, []uint64{first + 3, first + 2}, []uint64{d.First, d.Last})
		require.True(t, l.Quarantined())
		require.NoError(t, l.DropDamagedTail(d.First))
		(&model{entries: m.slice(1, d.Last)}).is(t, l, fs, "cut")
	})
}

// What a peer has is the same entries and not the same files: its segments begin
// elsewhere, since it has others' sizes, was cut and begun anew, or came later. Each
// segment of a log, lost or headless, is mended from such a log, read as a peer would.
func TestRepairFromALogWithOtherSegments(t *testing.T) {
	mem, m := build(t, 24, 50)
	twins := map[string]func(o *commitlog.Options){
		"larger segments":  func(o *commitlog.Options) { o.SegmentBytes = 2777 },
		"smaller segments": func(o *commitlog.Options) { o.SegmentBytes = 512 },
	}
	for name, change := range twins {
		o := small(memfs.New())
		change(&o)
		twin := open(t, o)
		for i := uint64(1); i <= m.last(); i += 5 { // and written in other parts
			require.NoError(t, twin.Append(m.slice(i, i+4)))
		}
		require.NotEqual(t, segments(t, mem), segments(t, o.FS))
		for _, seg := range segments(t, mem) {
			for _, how := range []string{"lost", "headless", "cut"} {
				t.Run(name+"/"+how+"/"+seg, func(t *testing.T) {
					fs := mem.Kill()
					switch p := dir + "/" + seg; how {
					case "lost":
						require.NoError(t, fs.Remove(p))
					case "headless":
						require.NoError(t, fs.Corrupt(p, 20, 1))
						require.NoError(t, fs.Corrupt(p, 70, 1)) // and the first frame's header
					case "cut":
						put(t, fs, p, get(t, fs, p)[:200])
					}
					l, err := damaged(fs, 0)
					require.NoError(t, err)
					for len(l.Damage()) > 0 {
						d := l.Damage()[0]
						var run []commitlog.Entry
						for i := d.First; i <= max(d.Last, d.After.Index) && i <= twin.Last(); i++ {
							e, err := twin.Entry(i)
							require.NoError(t, err)
							run = append(run, e)
						}
						if len(run) == 0 { // the end of both
							require.NoError(t, l.DropDamagedTail(d.First))
							continue
						}
						_, err := l.Repair(run, twin.Last())
						require.NoError(t, err)
					}
					m.is(t, l, fs, seg)
				})
			}
		}
	}
}
