package commitlog_test

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// A full disk keeps the offset index in memory, however many of its files that
// would have been, and nothing else notices: records are readable, and once there
// is room the files are as they would have been. A checkpoint, which must not
// cover what the files lack, is refused meanwhile.
func TestOffsetIndexOnAFullDisk(t *testing.T) {
	for _, kind := range []faultfs.Kind{faultfs.Create, faultfs.Write} {
		for n := int64(1); ; n++ {
			var on faultfs.Switch
			mem := memfs.New()
			var fatal []error
			action := faultfs.Fail(syscall.ENOSPC)
			if kind == faultfs.Write && n%2 == 0 {
				action = faultfs.Short(20, syscall.ENOSPC)
			}
			hit := false
			from := faultfs.From(n)
			l := faulty(t, faultfs.Wrap(mem, faultfs.When(faultfs.All(on.On, faultfs.Is(kind), faultfs.Name("*.off"), func(op faultfs.Op) bool {
				m := from(op)
				hit = hit || m
				return m
			}), action)), &fatal)
			want := entries(1, 40, 1, 60)
			require.NoError(t, l.Append(want))
			all := batches(want, 0, 1)
			on.Set(true)
			for i := range all {
				require.NoError(t, l.Publish(all[i:i+1]))
				require.Equal(t, all[i].FirstOffset+uint64(all[i].Count), l.Visible())
			}
			requireOffsets(t, l, all)
			if !hit {
				require.NoError(t, l.SyncOffsets())
				require.NoError(t, l.Close())
				require.Greater(t, n, int64(3), kind)
				break
			}
			var full *commitlog.NoSpaceError
			require.ErrorAs(t, l.SyncOffsets(), &full, fmt.Sprint(kind, n))
			on.Set(false)
			require.NoError(t, l.SyncOffsets())
			requireOffsets(t, l, all)
			require.Empty(t, fatal)
			l = open(t, small(mem.Crash(uint64(n))))
			requireOffsets(t, l, all)
			require.Equal(t, uint64(len(all)), l.Stats().OffsetBatches)
			require.NoError(t, l.Close())
		}
	}
}

// The index goes back to a checkpoint though a part of it was never written.
func TestRewindOnAFullDisk(t *testing.T) {
	var on faultfs.Switch
	mem := memfs.New()
	var fatal []error
	l := faulty(t, faultfs.Wrap(mem, faultfs.When(faultfs.All(on.On, faultfs.Is(faultfs.Create, faultfs.Write), faultfs.Name("*.off")), faultfs.Fail(syscall.ENOSPC))), &fatal)
	want := entries(1, 40, 1, 60)
	require.NoError(t, l.Append(want))
	all := batches(want, 0, 1)
	for i := range all {
		on.Set(i >= 10)
		require.NoError(t, l.Publish(all[i:i+1]))
	}
	next := all[8].FirstOffset
	require.NoError(t, l.Rewind(next))
	require.Equal(t, next, l.Visible())
	require.NoError(t, l.Publish(all))
	requireOffsets(t, l, all)
	on.Set(false)
	require.NoError(t, l.SyncOffsets())
	require.NoError(t, l.Close())
	l = open(t, small(mem))
	requireOffsets(t, l, all)
	require.NoError(t, l.Close())
	require.Empty(t, fatal)
}

// On a full disk the start of the log does not move, and nothing is lost by
// trying; the spare segment makes room for it.
func TestSetStartOnAFullDisk(t *testing.T) {
	q, err := faultfs.NewQuota(memfs.New(), dir, 1<<20)
	require.NoError(t, err)
	l := open(t, small(q))
	want := entries(1, 60, 1, 60)
	for i := range want { // one by one, so that a spare is preallocated
		require.NoError(t, l.Append(want[i:i+1]))
		if l.Stats().Spare && i > 40 {
			break
		}
	}
	require.True(t, l.Stats().Spare)
	have, used := l.Last(), q.Used()
	q.Outside(1 << 20)
	start := commitlog.Start{Index: 30, Term: 1, Offset: 30}
	var full *commitlog.NoSpaceError
	require.ErrorAs(t, l.SetStart(start), &full)
	require.Equal(t, uint64(1), l.First())
	q.Outside(1<<20 - used) // what is left is what the spare has
	require.ErrorAs(t, l.SetStart(start), &full)
	require.NoError(t, l.DropSpare())
	require.NoError(t, l.SetStart(start))
	require.Equal(t, uint64(31), l.First())
	require.Less(t, q.Used(), used)
	requireEntries(t, l, want[30:have])
	require.NoError(t, l.Close())
}

// requireOffsets reads every batch by its offset.
func requireOffsets(t *testing.T, l *commitlog.Log, want []commitlog.Applied) {
	t.Helper()
	require.Equal(t, want[len(want)-1].FirstOffset+uint64(want[len(want)-1].Count), l.Visible())
	for _, b := range want {
		got, err := l.Read(b.FirstOffset, 1)
		require.NoError(t, err)
		require.Equal(t, b.FirstOffset, got[0].FirstOffset)
		require.Equal(t, b.Count, got[0].Count)
	}
}

// A directory that has no room for a segment's name refuses the append that needs
// it, and the next one goes on.
func TestRollOnAFullDisk(t *testing.T) {
	var on faultfs.Switch
	mem := memfs.New()
	var fatal []error
	l := faulty(t, faultfs.Wrap(mem, faultfs.When(faultfs.All(on.On, faultfs.Is(faultfs.Rename)), faultfs.Fail(syscall.ENOSPC))), &fatal)
	want := entries(1, 60, 1, 60)
	refused := 0
	for i := range want {
		on.Set(true)
		var full *commitlog.NoSpaceError
		err := l.Append(want[i : i+1])
		if err != nil {
			require.ErrorAs(t, err, &full)
			require.Equal(t, uint64(i), l.Last())
			refused++
			on.Set(false)
			require.NoError(t, l.Append(want[i:i+1]))
		}
	}
	require.Greater(t, refused, 2)
	requireEntries(t, l, want)
	require.NoError(t, l.Close())
	requireEntries(t, open(t, small(mem.Crash(1))), want)
	require.Empty(t, fatal)
}

// A log is opened on a disk that takes nothing new, after a stop and after a kill
// in the middle of things: it is read, and goes on in what it has preallocated.
func TestOpenOnAFullDisk(t *testing.T) {
	mem := memfs.New()
	l := open(t, small(mem))
	want := entries(1, 40, 1, 60)
	for i := range want {
		require.NoError(t, l.Append(want[i:i+1]))
		require.NoError(t, l.Publish(batches(want[i:i+1], uint64(i), 1)))
		var fatal []error
		full := faulty(t, faultfs.Wrap(mem.Kill(), faultfs.When(
			faultfs.Is(faultfs.Create, faultfs.Allocate, faultfs.Rename), faultfs.Fail(syscall.ENOSPC))), &fatal)
		requireEntries(t, full, want[:i+1])
		requireOffsets(t, full, batches(want[:i+1], 0, 1))
		for next := uint64(i + 2); ; next++ {
			err := full.Append(entries(next, next, 1, 60))
			if err != nil {
				var none *commitlog.NoSpaceError
				require.ErrorAs(t, err, &none)
				break
			}
			require.Less(t, next, uint64(i+100))
		}
		require.Empty(t, fatal)
		require.NoError(t, full.Close())
	}
}
