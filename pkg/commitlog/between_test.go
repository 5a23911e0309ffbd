package commitlog_test

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// A cut ends its segment, so whoever cuts needs another one for what comes
// instead: on a full disk it learns that before anything is gone.
func TestFullDiskRefusesATruncation(t *testing.T) {
	var full faultfs.Switch
	var fatal []error
	mem := memfs.New()
	l := faulty(t, faultfs.Wrap(mem, faultfs.When(faultfs.All(full.On, faultfs.Is(faultfs.Allocate, faultfs.Create)), faultfs.Fail(syscall.ENOSPC))), &fatal)
	want := entries(1, 3, 1, 60)
	require.NoError(t, l.Append(want))
	full.Set(true)
	require.False(t, l.Stats().Spare)
	var noSpace *commitlog.NoSpaceError
	require.ErrorAs(t, l.TruncateSuffix(3), &noSpace)
	requireEntries(t, l, want, "nothing is cut")
	full.Set(false)
	require.NoError(t, l.TruncateSuffix(3))
	full.Set(true)
	more := entries(3, 4, 2, 60)
	require.NoError(t, l.Append(more), "their segment was there before the cut")
	requireEntries(t, l, append(want[:2:2], more...))
	require.Empty(t, fatal)
}

// A reader that runs into Close gets its record or ErrClosed.
func TestReadsWhileClosing(t *testing.T) {
	for range 300 {
		l, err := commitlog.Open(small(memfs.New()))
		require.NoError(t, err)
		es := entries(1, 20, 1, 60)
		require.NoError(t, l.Append(es))
		require.NoError(t, l.Publish(batches(es, 0, 1)))
		var wg sync.WaitGroup
		begun := make(chan struct{})
		for i := range 4 {
			wg.Go(func() {
				for n := 0; ; n++ {
					if n == 1 && i == 0 {
						close(begun)
					}
					got, err := l.Read(uint64(n%20), 1)
					if err != nil {
						require.ErrorIs(t, err, commitlog.ErrClosed)
						return
					}
					require.Equal(t, uint64(n%20), got[0].FirstOffset)
				}
			})
		}
		<-begun
		require.NoError(t, l.Close())
		wg.Wait()
	}
}

// A reader sees the offset index before a rewind or after it, not in between: a
// node answers reads while it restores its newest checkpoint.
func TestReadsWhileRewinding(t *testing.T) {
	mem := memfs.New()
	l := open(t, small(mem))
	es := entries(1, 18, 1, 60)
	require.NoError(t, l.Append(es))
	require.NoError(t, l.Publish(batches(es, 0, 1)))
	require.NoError(t, l.Close())

	var on faultfs.Switch
	hang := faultfs.NewHang()
	o := small(faultfs.Wrap(mem, faultfs.When(faultfs.All(on.On, faultfs.Is(faultfs.Read), faultfs.Name("*.off"), faultfs.Nth(1)), hang.Act)))
	l = open(t, o)
	t.Cleanup(func() { hang.Release(nil) })
	read := func(off uint64) error {
		got, err := l.Read(off, 1)
		if err == nil && got[0].FirstOffset != off {
			err = fmt.Errorf("record %d instead of %d", got[0].FirstOffset, off)
		}
		return err
	}
	on.Set(true)
	rewound := make(chan error)
	go func() { rewound <- l.Rewind(13) }() // within the newest sealed file, which is loaded for it
	<-hang.Entered()
	for off := range uint64(18) {
		require.NoError(t, read(off), "offset %d during the rewind", off)
	}
	hang.Release(nil)
	require.NoError(t, <-rewound)
	require.Equal(t, uint64(13), l.Visible())
	for off := range uint64(13) {
		require.NoError(t, read(off))
	}
	var out *commitlog.OutOfRangeError
	require.ErrorAs(t, read(13), &out)
	require.NoError(t, l.Publish(batches(es[13:], 13, 1)))
	require.NoError(t, read(17))
}

// truncating calls then after a file has been truncated.
type truncating struct {
	vfs.FS
	then func()
}

type truncatingFile struct {
	vfs.File
	then func()
}

func (t truncating) OpenReadWrite(name string) (vfs.File, error) {
	f, err := t.FS.OpenReadWrite(name)
	return truncatingFile{f, t.then}, err
}

func (f truncatingFile) Truncate(size int64) error {
	err := f.File.Truncate(size)
	f.then()
	return err
}

// A node that starts again applies what it has while a new leader cuts what comes
// behind that: nobody who looks for an entry before the cut may run into the new end
// of its file.
func TestReadsWhileCutting(t *testing.T) {
	mem := memfs.New()
	o := small(mem)
	o.SegmentBytes = 1 << 20
	l := open(t, o)
	es := entries(1, 40, 1, 60)
	require.NoError(t, l.Append(es))
	require.NoError(t, l.Close())

	var on atomic.Bool
	cut, gone := make(chan struct{}), make(chan struct{})
	o.FS = truncating{mem, func() {
		if on.Swap(false) {
			close(cut)
			<-gone
		}
	}}
	l = open(t, o) // nothing is cached
	on.Store(true)
	done := make(chan error)
	go func() { done <- l.TruncateSuffix(30) }()
	<-cut
	published := l.Publish(batches(es[:25], 0, 1))
	_, entry := l.Entry(27)
	close(gone)
	require.NoError(t, <-done)
	require.NoError(t, published)
	require.NoError(t, entry)
	requireEntries(t, l, es[:29])
}

// Damage is looked into while a new leader cuts it off and stores other entries in its
// place: those are not damaged. The cut comes in at every read that looking takes.
func TestDamageThatIsCutWhileItIsLookedInto(t *testing.T) {
	for n := int64(1); ; n++ {
		mem := memfs.New()
		var on, hit atomic.Bool
		nth := faultfs.Nth(n)
		var cut func()
		o := small(faultfs.Wrap(mem, faultfs.When(func(op faultfs.Op) bool {
			if op.Kind == faultfs.Read && on.Load() && nth(op) {
				on.Store(false)
				hit.Store(true)
				cut()
			}
			return false
		}, faultfs.Fail(syscall.EIO))))
		o.SegmentBytes, o.CacheBytes = 1<<20, 1
		l := open(t, o)
		es := entries(1, 10, 1, 60)
		require.NoError(t, l.Append(es))
		want := append(es[:7:7], entries(8, 12, 2, 70)...)
		cut = func() {
			require.NoError(t, l.TruncateSuffix(8))
			require.NoError(t, l.Append(want[7:]))
		}
		var place int64 // of the frame of entry 9, all being as long
		first, err := vfs.ReadFile(mem, dir+"/"+segments(t, mem)[0])
		require.NoError(t, err)
		place = int64(bytes.Index(first, es[8].Data))
		require.Positive(t, place)
		require.NoError(t, mem.Corrupt(dir+"/"+segments(t, mem)[0], place, 1))
		on.Store(true)
		_, err = l.Entry(9)
		if !hit.Load() {
			require.Error(t, err)
			require.Greater(t, n, int64(3))
			return
		}
		require.Empty(t, l.Damage(), "cut in at read %d", n)
		requireEntries(t, l, want, "cut in at read %d", n)
	}
}
