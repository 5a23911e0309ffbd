package overlay_test

import (
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
	"github.com/logd-io/logd/pkg/vfs/overlay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func write(t *testing.T, fsys vfs.FS, name, data string) {
	t.Helper()
	f, err := fsys.Create(name)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte(data), 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

func read(t *testing.T, fsys vfs.FS, name string) string {
	t.Helper()
	b, err := vfs.ReadFile(fsys, name)
	require.NoError(t, err)
	return string(b)
}

// Every kind of change shows through the overlay, and none below it.
func TestNothingChangesBelow(t *testing.T) {
	below := memfs.New()
	require.NoError(t, below.MkdirAll("/d"))
	long := make([]byte, 10_000)
	for i := range long {
		long[i] = byte(i)
	}
	write(t, below, "/d/long", string(long))
	write(t, below, "/d/gone", "gone")
	write(t, below, "/d/old", "old")
	ops := below.Ops()

	o := overlay.New(below)
	require.Empty(t, o.Changed())
	require.Equal(t, string(long), read(t, o, "/d/long"))
	require.Empty(t, o.Changed(), "reading changes nothing")

	f, err := o.OpenReadWrite("/d/long")
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("across a page"), 4090)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(9000))
	require.NoError(t, f.Allocate(9500))
	require.NoError(t, f.Sync())
	require.NoError(t, f.Close())
	want := append([]byte(nil), long[:9500]...)
	copy(want[4090:], "across a page")
	clear(want[9000:])
	require.Equal(t, string(want), read(t, o, "/d/long"))

	require.NoError(t, o.Remove("/d/gone"))
	_, err = o.Open("/d/gone")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, vfs.WriteFileAtomic(o, "/d/old", []byte("new")))
	require.Equal(t, "new", read(t, o, "/d/old"))
	require.NoError(t, o.MkdirAll("/d/e/f"))
	write(t, o, "/d/e/f/x", "x")
	require.NoError(t, o.Rename("/d/long", "/d/moved"))
	require.Equal(t, string(want), read(t, o, "/d/moved"))
	names, err := o.List("/d")
	require.NoError(t, err)
	require.Equal(t, []string{"e", "moved", "old"}, names)
	require.Equal(t, []string{"/d/e/f/x", "/d/gone", "/d/long", "/d/moved", "/d/old"}, o.Changed())

	require.Equal(t, ops, below.Ops(), "operations on the filesystem below")
	require.Equal(t, string(long), read(t, below, "/d/long"))
	require.Equal(t, "old", read(t, below, "/d/old"))
}

func TestReadOnlyFilesStaySo(t *testing.T) {
	below := memfs.New()
	write(t, below, "/f", "x")
	f, err := overlay.New(below).Open("/f")
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte("y"), 0)
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorIs(t, f.Truncate(0), fs.ErrPermission)
	require.ErrorIs(t, f.Allocate(9), fs.ErrPermission)
}

func TestLocksAreTakenBelow(t *testing.T) {
	below := vfs.OS{}
	dir := t.TempDir()
	o := overlay.New(below)
	free, err := o.Lock(dir + "/lock")
	require.NoError(t, err)
	require.NoError(t, free.Close())
	_, err = below.Stat(dir + "/lock")
	require.ErrorIs(t, err, fs.ErrNotExist, "no lock file is made")
	held, err := below.Lock(dir + "/lock")
	require.NoError(t, err)
	_, err = o.Lock(dir + "/lock")
	require.ErrorIs(t, err, vfs.ErrLocked)
	require.NoError(t, held.Close())
}
