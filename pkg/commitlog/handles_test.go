package commitlog_test

import (
	"io"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// counting is a filesystem that counts what is open.
type counting struct {
	vfs.FS
	open *atomic.Int64
}

func (c counting) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	c.open.Add(1)
	return &countedFile{File: f, open: c.open}, nil
}

func (c counting) Create(name string) (vfs.File, error) { return c.file(c.FS.Create(name)) }
func (c counting) Open(name string) (vfs.File, error)   { return c.file(c.FS.Open(name)) }
func (c counting) OpenReadWrite(name string) (vfs.File, error) {
	return c.file(c.FS.OpenReadWrite(name))
}

func (c counting) Lock(name string) (io.Closer, error) {
	l, err := c.FS.Lock(name)
	if err != nil {
		return nil, err
	}
	c.open.Add(1)
	return &countedLock{Closer: l, open: c.open}, nil
}

type countedFile struct {
	vfs.File
	open   *atomic.Int64
	closed atomic.Bool
}

func (f *countedFile) Close() error {
	if f.closed.CompareAndSwap(false, true) {
		f.open.Add(-1)
	}
	return f.File.Close()
}

type countedLock struct {
	io.Closer
	open *atomic.Int64
}

func (l *countedLock) Close() error {
	l.open.Add(-1)
	return l.Closer.Close()
}

// I4: whatever operation a fault hits, Close leaves nothing open: a process with
// several logs goes on without this one.
func TestNothingStaysOpenAfterAFault(t *testing.T) {
	life := func(l *commitlog.Log) error {
		es := entries(1, 40, 1, 90)
		steps := []func() error{
			func() error { return l.Append(es) },
			func() error { return l.Publish(batches(es, 0, 1)) },
			func() error { return l.Append(entries(41, 60, 1, 90)) },
			func() error { return l.TruncateSuffix(45) }, // several segments
			func() error { return l.Append(entries(45, 50, 2, 90)) },
			func() error { return l.Rewind(20) },
			func() error { return l.Publish(batches(es[20:], 20, 1)) },
			func() error { return l.SetStart(commitlog.Start{Index: 30, Term: 1, Offset: 30}) },
			func() error { _, err := l.Sweep(); return err },
			func() error { _, err := l.Sweep(); return err },
			l.DropSpare,
			func() error { return l.Reset(commitlog.Start{Index: 90, Term: 2, Offset: 90}) },
			func() error { return l.Append(entries(91, 95, 2, 90)) },
		}
		for _, s := range steps {
			if err := s(); err != nil {
				return err
			}
		}
		return nil
	}
	for n := int64(1); ; n++ {
		var on faultfs.Switch
		hit := false
		nth := faultfs.Nth(n)
		var open atomic.Int64
		o := small(faultfs.Wrap(counting{memfs.New(), &open}, faultfs.When(func(op faultfs.Op) bool {
			match := on.On(op) && op.Kind != faultfs.Close && nth(op)
			hit = hit || match
			return match
		}, faultfs.Fail(syscall.EIO))))
		l, err := commitlog.Open(o)
		require.NoError(t, err)
		on.Set(true)
		err = life(l)
		_ = l.Close() // what a failed log says on close does not matter here
		require.Zero(t, open.Load(), "open after a fault at operation %d: %v", n, err)
		if !hit {
			require.NoError(t, err)
			require.Greater(t, n, int64(100))
			return
		}
	}
}
