package commitlog_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// faulty opens a log on a disk with the rules, and counts OnFatal.
func faulty(t *testing.T, fs vfs.FS, fatal *[]error) *commitlog.Log {
	t.Helper()
	o := small(fs)
	o.OnFatal = func(err error) { *fatal = append(*fatal, err) }
	l, err := commitlog.Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() }) // on a broken disk
	return l
}

// I4: any failed operation of a write is fatal, once, and acknowledges nothing.
func TestFailedWriteIsFatal(t *testing.T) {
	boom := syscall.EIO
	for name, tc := range map[string]struct {
		when faultfs.Predicate
		then faultfs.Action
		do   func(*commitlog.Log) error
	}{
		"sync of a segment":          {faultfs.All(faultfs.Is(faultfs.Sync), faultfs.Name("*.free")), faultfs.Fail(boom), nil},
		"write of a segment":         {faultfs.All(faultfs.Is(faultfs.Write), faultfs.Name("*.free")), faultfs.Fail(boom), nil},
		"short write":                {faultfs.All(faultfs.Is(faultfs.Write), faultfs.Name("*.free")), faultfs.Short(60, nil), nil},
		"short write, disk full":     {faultfs.All(faultfs.Is(faultfs.Write), faultfs.Name("*.free")), faultfs.Short(60, syscall.ENOSPC), nil},
		"durable end":                {faultfs.All(faultfs.Is(faultfs.Write), faultfs.Name("durable-end")), faultfs.Fail(boom), nil},
		"rename of a new segment":    {faultfs.Is(faultfs.Rename), faultfs.Fail(boom), roll},
		"sync of the directory":      {faultfs.Is(faultfs.SyncDir), faultfs.Fail(boom), roll},
		"creation of a segment":      {faultfs.All(faultfs.Is(faultfs.Create), faultfs.Name("*.free")), faultfs.Fail(boom), roll},
		"end of a segment":           {faultfs.Is(faultfs.Truncate), faultfs.Fail(boom), roll},
		"truncation":                 {faultfs.Is(faultfs.Truncate), faultfs.Fail(boom), cut},
		"lowering the durable end":   {faultfs.All(faultfs.Is(faultfs.Sync), faultfs.Name("durable-end")), faultfs.Fail(boom), cut},
		"sync of a truncation":       {faultfs.All(faultfs.Is(faultfs.Sync), faultfs.Name("*.free")), faultfs.Fail(boom), cut},
		"start record":               {faultfs.All(faultfs.Is(faultfs.Sync), faultfs.Name("start.tmp")), faultfs.Fail(boom), retain},
		"removal of a segment":       {faultfs.All(faultfs.Is(faultfs.Remove), faultfs.Name("*.seg")), faultfs.Fail(boom), reset},
		"write of the offset index":  {faultfs.All(faultfs.Is(faultfs.Write), faultfs.Name("*.off")), faultfs.Fail(boom), publish},
		"sync of the offset index":   {faultfs.All(faultfs.Is(faultfs.Sync), faultfs.Name("*.off")), faultfs.Fail(boom), checkpoint},
		"rewinding the offset index": {faultfs.All(faultfs.Is(faultfs.Truncate), faultfs.Name("*.off")), faultfs.Fail(boom), rewind},
	} {
		t.Run(name, func(t *testing.T) {
			var on faultfs.Switch
			mem := memfs.New()
			var fatal []error
			l := faulty(t, faultfs.Wrap(mem, faultfs.When(faultfs.All(on.On, tc.when), tc.then)), &fatal)
			es := entries(1, 3, 1, 60)
			require.NoError(t, l.Append(es))
			require.NoError(t, l.Publish(batches(es[:1], 0, 1)))
			on.Set(true)
			do := tc.do
			if do == nil {
				do = func(l *commitlog.Log) error { return l.Append(entries(4, 4, 1, 60)) }
			}
			first := do(l)
			var failed *commitlog.FatalError
			require.ErrorAs(t, first, &failed)
			require.Equal(t, []error{failed}, fatal, "told once")
			on.Set(false)
			syncs := mem.Syncs()
			for call, err := range map[string]error{
				"append":   l.Append(entries(l.Last()+1, l.Last()+1, 1, 1)),
				"truncate": l.TruncateSuffix(3), "reset": l.Reset(commitlog.Start{Index: 9}),
				"start": l.SetStart(commitlog.Start{Index: 2}), "publish": l.Publish(nil),
				"rewind": l.Rewind(0), "sync": l.SyncOffsets(), "wait": l.Wait(t.Context(), 99),
			} {
				require.Same(t, failed, err, "%s after the failure", call)
			}
			_, err := l.Entry(1)
			require.Same(t, failed, err, "entry after the failure")
			_, err = l.Read(0, 1)
			require.Same(t, failed, err, "read after the failure")
			require.Equal(t, syncs, mem.Syncs(), "no sync is retried")
			require.Len(t, fatal, 1)
			require.LessOrEqual(t, l.Last(), uint64(3), "nothing was acknowledged")
		})
	}
}

func roll(l *commitlog.Log) error       { return l.Append(entries(4, 4, 1, 900)) }
func cut(l *commitlog.Log) error        { return l.TruncateSuffix(3) }
func publish(l *commitlog.Log) error    { return l.Publish(batches(entries(2, 3, 1, 60), 1, 1)) }
func checkpoint(l *commitlog.Log) error { return l.SyncOffsets() }
func rewind(l *commitlog.Log) error     { return l.Rewind(0) }
func reset(l *commitlog.Log) error      { return l.Reset(commitlog.Start{Index: 3, Term: 2}) }
func retain(l *commitlog.Log) error {
	return l.SetStart(commitlog.Start{Index: 1, Term: 1, Offset: 1})
}

// I4: a full disk is met before anything is written, and is not fatal.
func TestFullDisk(t *testing.T) {
	for name, kind := range map[string]faultfs.Kind{"no inode": faultfs.Create, "no space": faultfs.Allocate} {
		t.Run(name, func(t *testing.T) {
			var full faultfs.Switch
			mem := memfs.New()
			var fatal []error
			l := faulty(t, faultfs.Wrap(mem, faultfs.When(faultfs.All(full.On, faultfs.Is(kind), faultfs.Name("*.free")), faultfs.Fail(syscall.ENOSPC))), &fatal)
			want := entries(1, 1, 1, 60)
			require.NoError(t, l.Append(want))
			full.Set(true)
			more := entries(2, 7, 1, 60)
			require.NoError(t, l.Append(more), "what is preallocated is there")
			want = append(want, more...)
			require.False(t, l.Stats().Spare)
			var noSpace *commitlog.NoSpaceError
			for range 2 {
				require.ErrorAs(t, l.Append(entries(8, 20, 1, 60)), &noSpace)
				require.ErrorIs(t, l.Append(entries(8, 20, 1, 60)), syscall.ENOSPC)
				requireEntries(t, l, want)
			}
			full.Set(false)
			more = entries(8, 20, 1, 60)
			require.NoError(t, l.Append(more))
			require.True(t, l.Stats().Spare)
			requireEntries(t, l, append(want, more...))
			require.Empty(t, fatal)
		})
	}
}

// I3: what a process reads after a failed sync is not durable because it can be
// read. The next process writes it again.
func TestTailIsWrittenAgain(t *testing.T) {
	var on faultfs.Switch
	mem := memfs.New()
	var fatal []error
	l := faulty(t, faultfs.Wrap(mem, faultfs.When(faultfs.All(on.On, faultfs.Is(faultfs.Sync)), faultfs.Fail(syscall.EIO))), &fatal)
	want := entries(1, 3, 1, 60)
	require.NoError(t, l.Append(want[:2]))
	on.Set(true)
	require.Error(t, l.Append(want[2:]))
	require.NoError(t, mem.MarkClean(dir+"/"+segments(t, mem)[0]))

	killed := mem.Kill()
	l = open(t, small(killed))
	require.Equal(t, uint64(3), l.Last())
	for seed := range uint64(16) {
		requireEntries(t, open(t, small(killed.Crash(seed))), want, "what Last reports survives")
	}
}

// I4: a write that hangs does not keep a log that was declared failed from
// being closed, and is never acknowledged.
func TestFailWhileAWriteHangs(t *testing.T) {
	var on faultfs.Switch
	hang := faultfs.NewHang()
	mem := memfs.New()
	var fatal []error
	l := faulty(t, faultfs.Wrap(mem, faultfs.When(faultfs.All(on.On, faultfs.Is(faultfs.Sync)), hang.Act)), &fatal)
	require.NoError(t, l.Append(entries(1, 1, 1, 60)))
	on.Set(true)
	appended := make(chan error, 1) // the one append
	go func() { appended <- l.Append(entries(2, 2, 1, 60)) }()
	<-hang.Entered()
	_, err := l.Entry(1)
	require.NoError(t, err, "I8: no reader waits for a writer")

	slow := errors.New("write hangs")
	l.Fail(slow)
	require.ErrorIs(t, fatal[0], slow)
	require.ErrorIs(t, l.Wait(t.Context(), 0), slow)
	require.NoError(t, l.Close())
	_, err = commitlog.Open(small(mem))
	require.ErrorIs(t, err, vfs.ErrLocked, "the disk still has the write")
	hang.Release(nil)
	require.ErrorIs(t, <-appended, slow)
	on.Set(false)
	l, err = commitlog.Open(small(mem))
	require.NoError(t, err)
	require.NoError(t, l.Close())
	require.Len(t, fatal, 1)
}

// Open on a disk that fails says so, leaves nothing open, and works after.
func TestOpenOnAFailingDisk(t *testing.T) {
	mem := memfs.New()
	l := open(t, small(mem))
	want := entries(1, 20, 1, 90)
	require.NoError(t, l.Append(want))
	require.NoError(t, l.Publish(batches(want, 0, 1)))
	require.NoError(t, l.Close())
	for n := int64(1); ; n++ {
		fs := mem.Kill()
		var hit atomic.Bool
		nth := faultfs.Nth(n)
		f := faultfs.Wrap(fs, faultfs.When(func(op faultfs.Op) bool {
			// A short durable-end file is one that holds nothing.
			if op.Kind == faultfs.Close || op.Kind == faultfs.Read && faultfs.Name("durable-end")(op) || !nth(op) {
				return false
			}
			hit.Store(true)
			return true
		}, faultfs.Fail(syscall.EIO)))
		l, err := commitlog.Open(small(f))
		if !hit.Load() {
			require.NoError(t, err)
			require.NoError(t, l.Close())
			require.Greater(t, n, int64(10))
			return
		}
		require.ErrorIs(t, err, syscall.EIO, fmt.Sprintf("operation %d", n))
		requireEntries(t, open(t, small(fs)), want)
	}
}
