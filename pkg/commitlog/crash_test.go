package commitlog_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

var (
	crashWorkloads = flag.Uint64("crash.workloads", 4, "workloads that TestCrashAnywhere crashes everywhere")
	crashSeed      = flag.Uint64("crash.seed", 0, "seed of the first of them")
)

// state is a whole log.
type state struct {
	start   commitlog.Start
	entries map[uint64]commitlog.Entry
	last    uint64
}

// workload drives a log at random and remembers, for each operation of the
// filesystem, which logs a crash may leave: any prefix between what was
// acknowledged before the call under way and what it would have made.
type workload struct {
	t       *testing.T
	fs      *memfs.FS
	log     *commitlog.Log
	rng     *rand.Rand
	now     state
	commit  uint64
	visible uint64
	term    uint64
	variant byte
	steps   []step
}

// step is a call: the log before it and after it, and where it began.
type step struct {
	op            int
	before, after state
	keep          uint64 // entries up to here are in every outcome
}

func (s state) clone() state {
	c := state{start: s.start, last: s.last, entries: map[uint64]commitlog.Entry{}}
	for k, v := range s.entries {
		c.entries[k] = v
	}
	return c
}

func (w *workload) do(keep uint64, after state, call func() error) {
	w.t.Helper()
	w.steps = append(w.steps, step{op: w.fs.Ops(), before: w.now, after: after, keep: keep})
	require.NoError(w.t, call())
	w.now = after
}

func (w *workload) run(calls int) {
	for range calls {
		switch k := w.rng.IntN(20); {
		case k < 12:
			w.append()
		case k < 15:
			w.truncate()
		case k < 17:
			w.commitSome()
		case k < 18:
			w.setStart()
		case k < 19:
			w.reset()
		default:
			w.reopen()
		}
	}
	w.steps = append(w.steps, step{op: w.fs.Ops(), before: w.now, after: w.now, keep: w.now.last})
}

func (w *workload) append() {
	after := w.now.clone()
	var es []commitlog.Entry
	for range 1 + w.rng.IntN(5) {
		after.last++
		w.variant++
		e := entry(after.last, w.term, w.rng.IntN(700), w.variant)
		es = append(es, e)
		after.entries[e.Index] = e
	}
	w.do(w.now.last, after, func() error { return w.log.Append(es) })
}

func (w *workload) truncate() {
	floor := max(w.commit, w.now.start.Index)
	if w.now.last <= floor {
		return
	}
	from := floor + 1 + w.rng.Uint64N(w.now.last-floor)
	after := w.now.clone()
	after.last = from - 1
	w.term++
	w.do(from-1, after, func() error { return w.log.TruncateSuffix(from) })
}

func (w *workload) commitSome() {
	floor := max(w.commit, w.now.start.Index)
	if w.now.last == floor {
		return
	}
	to := floor + 1 + w.rng.Uint64N(w.now.last-floor)
	var es []commitlog.Entry
	for i := floor + 1; i <= to; i++ {
		es = append(es, w.now.entries[i])
	}
	w.do(w.now.last, w.now, func() error {
		w.log.SetCommitted(to)
		return w.log.Publish(batches(es, w.visible, 1))
	})
	w.commit = to
	w.visible += uint64(len(es))
	w.do(w.now.last, w.now, w.log.SyncOffsets)
}

func (w *workload) setStart() {
	low := w.now.start.Index
	if w.commit <= low {
		return
	}
	at := low + 1 + w.rng.Uint64N(w.commit-low)
	after := w.now.clone()
	after.start = commitlog.Start{Index: at, Term: w.now.entries[at].Term, Offset: w.visible - (w.commit - at)}
	w.do(w.now.last, after, func() error { return w.log.SetStart(after.start) })
	w.sweep()
}

// sweep removes some of what SetStart took out of the log.
func (w *workload) sweep() {
	for more := true; more && w.rng.IntN(4) > 0; {
		w.do(w.now.last, w.now, func() (err error) {
			more, err = w.log.Sweep()
			return err
		})
	}
}

func (w *workload) reset() {
	w.term++
	after := state{
		start:   commitlog.Start{Index: w.now.last + w.rng.Uint64N(20), Term: w.term, Offset: w.visible + 5},
		entries: map[uint64]commitlog.Entry{},
	}
	after.last = after.start.Index
	w.do(0, after, func() error { return w.log.Reset(after.start) })
	w.visible, w.commit = after.start.Offset, after.start.Index
}

func (w *workload) reopen() {
	w.do(w.now.last, w.now, func() error {
		if err := w.log.Close(); err != nil {
			return err
		}
		var err error
		w.log, err = commitlog.Open(small(w.fs))
		return err
	})
	require.NoError(w.t, w.log.Rewind(w.visible))
}

// check opens what a crash left and holds it against the step under way.
func (s *step) check(t *testing.T, fs *memfs.FS, what string) {
	t.Helper()
	l, err := commitlog.Open(small(fs))
	require.NoError(t, err, what)
	defer func() { require.NoError(t, l.Close()) }()

	is := s.before
	switch l.Start() {
	case s.before.start:
	case s.after.start:
		is = s.after
	default:
		require.Fail(t, "a start nobody set", "%s: %v", what, l.Start())
	}
	last := l.Last()
	if s.before.start == s.after.start {
		require.GreaterOrEqual(t, last, s.keep, what+": an acknowledged entry is lost")
		require.LessOrEqual(t, last, max(s.before.last, s.after.last), what+": an entry is invented")
	} else {
		require.Equal(t, is.last, last, what)
	}
	for i := l.First(); i <= last; i++ {
		got, err := l.Entry(i)
		require.NoError(t, err, "%s: entry %d", what, i)
		want, ok := s.after.entries[i]
		if b, had := s.before.entries[i]; !ok || (had && i <= s.before.last && is.start == s.before.start && got.Data[8] == b.Data[8]) {
			want = b
		}
		require.Equal(t, want, got, "%s: entry %d", what, i)
	}
	// It goes on: the next entry is taken, and is there.
	next := entry(last+1, 1<<40, 33, 0)
	require.NoError(t, l.Append([]commitlog.Entry{next}), what)
	got, err := l.Entry(last + 1)
	require.NoError(t, err, what)
	require.Equal(t, next, got, what)
	require.NoError(t, l.Rewind(l.Start().Offset), what)
}

func newWorkload(t *testing.T, seed uint64) *workload {
	w := &workload{t: t, fs: memfs.NewRecording(), rng: rand.New(rand.NewPCG(seed, 1)), term: 1}
	var err error
	w.log, err = commitlog.Open(small(w.fs))
	require.NoError(t, err)
	w.now = state{entries: map[uint64]commitlog.Entry{}}
	return w
}

// stepAt returns the call that was under way at an operation.
func (w *workload) stepAt(op int) *step {
	at := &step{before: state{}, after: state{}}
	for i := range w.steps {
		if w.steps[i].op > op {
			break
		}
		at = &w.steps[i]
	}
	return at
}

// I2, I3, I5: a crash after any operation of any workload, with any of the
// unsynced sectors and names lost, leaves every acknowledged entry, invents
// none, and is never taken for corruption. And so does a crash while that is
// being recovered.
func TestCrashAnywhere(t *testing.T) {
	const tears = 4
	states := 0
	for seed := *crashSeed; seed < *crashSeed+*crashWorkloads; seed++ {
		w := newWorkload(t, seed)
		w.run(30)
		require.NoError(t, w.log.Close())
		for op := range w.fs.Ops() + 1 {
			s := w.stepAt(op)
			for tear := range uint64(tears) {
				if (uint64(op)+tear)%2 != 0 {
					continue
				}
				what := fmt.Sprintf("workload %d, crash after operation %d, tear %d", seed, op, tear)
				crashed := w.fs.CrashAt(op, tear).Record()
				s.check(t, crashed, what)
				states++
				if op%8 == int(tear) {
					n := int(tear+1) * crashed.Ops() / (tears + 2)
					s.checkRecovery(t, crashed.CrashAt(n, seed), what+fmt.Sprintf(", and after operation %d of the recovery", n))
					states++
				}
			}
			s.check(t, w.fs.KillAt(op), fmt.Sprintf("workload %d, kill after operation %d", seed, op))
			states++
		}
	}
	t.Logf("%d states", states)
}

// checkRecovery is check where the recovery, and the one entry appended after
// it, were interrupted.
func (s *step) checkRecovery(t *testing.T, fs *memfs.FS, what string) {
	t.Helper()
	l, err := commitlog.Open(small(fs))
	require.NoError(t, err, what)
	defer func() { require.NoError(t, l.Close()) }()
	require.Contains(t, []commitlog.Start{s.before.start, s.after.start}, l.Start(), what)
	if s.before.start == s.after.start {
		require.GreaterOrEqual(t, l.Last(), s.keep, what+": an acknowledged entry is lost")
	}
	for i := l.First(); i <= l.Last(); i++ {
		got, err := l.Entry(i)
		require.NoError(t, err, "%s: entry %d", what, i)
		if got.Term == 1<<40 {
			require.Equal(t, l.Last(), i, what)
			continue
		}
		if a, ok := s.after.entries[i]; !ok || a.Data[8] != got.Data[8] {
			require.Equal(t, s.before.entries[i], got, "%s: entry %d", what, i)
		} else {
			require.Equal(t, a, got, "%s: entry %d", what, i)
		}
	}
}
