package commitlog_test

import (
	"bytes"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// A disk that has room for the start record and none for its copy: what the call
// says is what is on the disk. A reset that answered "full" and was done all the
// same would cost, at the next Open, every entry acknowledged since.
func TestNoRoomForTheCopyOfTheStart(t *testing.T) {
	to := commitlog.Start{Index: 20, Term: 1, Offset: 20}
	for name, move := range map[string]func(*commitlog.Log) error{
		"retention": func(l *commitlog.Log) error { return l.SetStart(to) },
		"reset":     func(l *commitlog.Log) error { return l.Reset(to) },
	} {
		for _, file := range []string{"start.tmp", "start.copy.tmp"} {
			t.Run(name+", "+file, func(t *testing.T) {
				var on faultfs.Switch
				var fatal []error
				mem := memfs.New()
				l := faulty(t, faultfs.Wrap(mem, faultfs.When(faultfs.All(on.On, faultfs.Is(faultfs.Create), faultfs.Name(file)), faultfs.Fail(syscall.ENOSPC))), &fatal)
				want := entries(1, 30, 1, 60)
				require.NoError(t, l.Append(want))
				require.NoError(t, l.SetStart(commitlog.Start{Index: 3, Term: 1, Offset: 3}))
				on.Set(true)
				err := move(l)
				moved := file == "start.copy.tmp"
				if moved {
					require.NoError(t, err, "it is durable: a copy that is missing delays nothing")
				} else {
					var full *commitlog.NoSpaceError
					require.ErrorAs(t, err, &full)
				}
				first, next := l.First(), l.Last()+1
				more := entries(next, next+4, 1, 60)
				require.NoError(t, l.Append(more))
				want = append(want[:next-1:next-1], more...)
				check := func(l *commitlog.Log) {
					require.Equal(t, first, l.First())
					requireEntries(t, l, want[first-1:])
				}
				check(l)
				check(open(t, small(mem.Kill())))
				// Without its copy, a start that rots is refused; an older one is never
				// taken in its place.
				rotten := mem.Kill()
				require.NoError(t, rotten.Corrupt(dir+"/start", 20, 1))
				if o, err := commitlog.Open(small(rotten)); err == nil {
					check(o)
					require.NoError(t, o.Close())
				} else {
					require.True(t, moved, err)
				}
				// The next Open that finds room makes it again.
				again := mem.Kill()
				require.NoError(t, open(t, small(again)).Close())
				a, err := vfs.ReadFile(again, dir+"/start")
				require.NoError(t, err)
				b, err := vfs.ReadFile(again, dir+"/start.copy")
				require.NoError(t, err)
				require.Equal(t, a, b)
				require.Empty(t, fatal)
			})
		}
	}
}

// A disk that is full only when the new start record is there already, at the sync
// of its directory, has not refused the reset: nothing is appended any more.
func TestAResetThatIsHalfDoneIsFatal(t *testing.T) {
	mem := memfs.New()
	started := func(faultfs.Op) bool {
		_, err := mem.Stat(dir + "/start")
		return err == nil
	}
	var full faultfs.Switch
	var fatal []error
	l := faulty(t, faultfs.Wrap(mem, faultfs.When(faultfs.All(full.On, faultfs.Is(faultfs.SyncDir), started), faultfs.Fail(syscall.ENOSPC))), &fatal)
	require.NoError(t, l.Append(entries(1, 30, 1, 60)))
	full.Set(true)
	var is *commitlog.FatalError
	require.ErrorAs(t, l.Reset(commitlog.Start{Index: 35, Term: 1, Offset: 35}), &is)
	require.Len(t, fatal, 1)
	full.Set(false)
	require.ErrorAs(t, l.Append(entries(31, 40, 1, 60)), &is)
	require.Equal(t, uint64(35), open(t, small(mem.Kill())).Last())
}

// A refused reset leaves what is known to be durable: an entry that rots after it is
// damage, as before, and not the torn tail of a write that nobody was told of.
func TestARefusedResetKeepsTheDurableEnd(t *testing.T) {
	for _, crash := range []func(*memfs.FS) *memfs.FS{(*memfs.FS).Kill, func(fs *memfs.FS) *memfs.FS { return fs.Crash(1) }} {
		for _, reopened := range []bool{false, true} {
			mem := memfs.New()
			var full faultfs.Switch
			var fatal []error
			disk := faultfs.Wrap(mem, faultfs.When(faultfs.All(full.On, faultfs.Is(faultfs.Create), faultfs.Name("start*")), faultfs.Fail(syscall.ENOSPC)))
			l := faulty(t, disk, &fatal)
			for _, e := range entries(1, 5, 1, 60) {
				require.NoError(t, l.Append([]commitlog.Entry{e}))
			}
			if reopened { // what the file held is known from there
				require.NoError(t, l.Close())
				l = faulty(t, disk, &fatal)
			}
			full.Set(true)
			var is *commitlog.NoSpaceError
			require.ErrorAs(t, l.Reset(commitlog.Start{Index: 35, Term: 1, Offset: 35}), &is)
			require.Equal(t, uint64(5), l.Last())

			rotten := crash(mem)
			names, err := rotten.List(dir)
			require.NoError(t, err)
			hit := 0
			for _, n := range names {
				if !strings.HasSuffix(n, ".seg") {
					continue
				}
				b, err := vfs.ReadFile(rotten, dir+"/"+n)
				require.NoError(t, err)
				last := len(bytes.TrimRight(b, "\x00")) - 1
				require.NoError(t, rotten.Corrupt(dir+"/"+n, int64(last), 1))
				hit++
			}
			require.Equal(t, 1, hit)
			_, err = commitlog.Open(small(rotten))
			var corrupt *commitlog.CorruptError
			require.ErrorAs(t, err, &corrupt)
			require.Equal(t, uint64(5), corrupt.Index)
			require.Empty(t, fatal)
		}
	}
}
