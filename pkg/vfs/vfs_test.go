package vfs_test

import (
	"io"
	"io/fs"
	"path"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
	"github.com/logd-io/logd/pkg/vfs/overlay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestConformance holds every implementation to the interface.
func TestConformance(t *testing.T) {
	for name, fsys := range map[string]vfs.FS{"os": vfs.OS{}, "memfs": memfs.New(), "faultfs": faultfs.Wrap(memfs.New()), "overlay": overlay.New(memfs.New())} {
		t.Run(name, func(t *testing.T) { conform(t, fsys, t.TempDir()+"/a/b") })
	}
}

// conformLargeWrite holds a write that an implementation may make in pieces.
func conformLargeWrite(t *testing.T, fsys vfs.FS, name string) {
	f, err := fsys.Create(name)
	require.NoError(t, err)
	want := make([]byte, 3<<20+5)
	for i := range want {
		want[i] = byte(i * 7 >> 3)
	}
	n, err := f.WriteAt(want, 11)
	require.NoError(t, err)
	require.Equal(t, len(want), n)
	require.NoError(t, f.Sync())
	got := make([]byte, len(want))
	_, err = f.ReadAt(got, 11)
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.NoError(t, f.Close())
	require.NoError(t, fsys.Remove(name))
}

func conform(t *testing.T, fsys vfs.FS, dir string) {
	_, err := fsys.List(dir)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, fsys.MkdirAll(dir))
	require.NoError(t, fsys.MkdirAll(dir))
	names, err := fsys.List(path.Dir(dir))
	require.NoError(t, err)
	require.Equal(t, []string{"b"}, names)
	info, err := fsys.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, vfs.Info{IsDir: true}, info)

	p := dir + "/f"
	_, err = fsys.Open(p)
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = fsys.OpenReadWrite(p)
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = fsys.Create(dir + "/none/f")
	require.ErrorIs(t, err, fs.ErrNotExist)
	f, err := fsys.Create(p)
	require.NoError(t, err)
	_, err = fsys.Create(p)
	require.ErrorIs(t, err, fs.ErrExist)

	conformLargeWrite(t, fsys, dir+"/large")

	require.NoError(t, f.Allocate(10_000))
	require.NoError(t, f.Allocate(100), "never shortens")
	size, err := f.Size()
	require.NoError(t, err)
	require.Equal(t, int64(10_000), size)
	n, err := f.WriteAt([]byte("hello"), 4094)
	require.NoError(t, err)
	require.Equal(t, 5, n)
	b := make([]byte, 8)
	_, err = f.ReadAt(b, 4092)
	require.NoError(t, err)
	require.Equal(t, "\x00\x00hello\x00", string(b))
	require.NoError(t, f.Truncate(4096))
	require.NoError(t, f.Truncate(4098))
	n, err = f.ReadAt(b, 4092)
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, "\x00\x00he\x00\x00", string(b[:n]))
	_, err = f.ReadAt(b, 5000)
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, f.Sync())
	require.NoError(t, f.Close())
	require.ErrorIs(t, f.Close(), fs.ErrClosed)

	r, err := fsys.Open(p)
	require.NoError(t, err)
	_, err = r.WriteAt([]byte("x"), 0)
	require.Error(t, err, "opened for reading")
	require.NoError(t, fsys.Rename(p, dir+"/g"))
	require.ErrorIs(t, fsys.Remove(p), fs.ErrNotExist)
	require.ErrorIs(t, fsys.Rename(p, dir+"/h"), fs.ErrNotExist)
	require.NoError(t, fsys.Remove(dir+"/g"))
	_, err = r.ReadAt(b[:2], 4094)
	require.NoError(t, err, "a removed file stays readable")
	require.Equal(t, "he", string(b[:2]))
	require.NoError(t, r.Close())
	require.NoError(t, fsys.SyncDir(dir))

	require.NoError(t, vfs.WriteFileAtomic(fsys, dir+"/w", []byte("one")))
	require.NoError(t, vfs.WriteFileAtomic(fsys, dir+"/w", []byte("two!")))
	got, err := vfs.ReadFile(fsys, dir+"/w")
	require.NoError(t, err)
	require.Equal(t, "two!", string(got))
	require.NoError(t, fsys.MkdirAll(dir+"/sub"))
	names, err = fsys.List(dir)
	require.NoError(t, err)
	require.Equal(t, []string{"sub", "w"}, names)

	lock, err := fsys.Lock(dir + "/lock")
	require.NoError(t, err)
	_, err = fsys.Lock(dir + "/lock")
	require.ErrorIs(t, err, vfs.ErrLocked)
	require.NoError(t, lock.Close())
	lock, err = fsys.Lock(dir + "/lock")
	require.NoError(t, err)
	require.NoError(t, lock.Close())

	free, err := fsys.Free(dir)
	require.NoError(t, err)
	require.NotZero(t, free)

	if m, ok := fsys.(vfs.Mapper); ok {
		mapped, err := m.Map(dir + "/w")
		require.NoError(t, err)
		require.Equal(t, "two!", string(mapped.Bytes()))
		require.NoError(t, mapped.Close())
		require.NoError(t, mapped.Close())
		empty, err := fsys.Create(dir + "/empty")
		require.NoError(t, err)
		require.NoError(t, empty.Close())
		mapped, err = m.Map(dir + "/empty")
		require.NoError(t, err)
		require.Empty(t, mapped.Bytes())
		_, err = m.Map(dir + "/none")
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
}
