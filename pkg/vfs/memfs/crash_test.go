package memfs_test

import (
	"bytes"
	"hash/maphash"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// all returns what every crash of f now leaves of name: its bytes, or "absent".
func all(t *testing.T, f *memfs.FS, name string) map[string]bool {
	t.Helper()
	left := map[string]bool{}
	var every memfs.Every
	for every.Next() {
		b, err := vfs.ReadFile(f.CrashWith(f.Ops(), &every), name)
		if err != nil {
			b = []byte("absent")
		}
		left[string(b)] = true
	}
	return left
}

// create makes a file that is durable but for its name.
func create(t *testing.T, f *memfs.FS, name string, data []byte) vfs.File {
	t.Helper()
	file, err := f.Create(name)
	require.NoError(t, err)
	_, err = file.WriteAt(data, 0)
	require.NoError(t, err)
	require.NoError(t, file.Sync())
	return file
}

func sector(c byte) []byte { return bytes.Repeat([]byte{c}, memfs.SectorBytes) }

func recording(t *testing.T) *memfs.FS {
	f := memfs.NewRecording()
	require.NoError(t, f.MkdirAll("/d"))
	return f
}

// Sectors that were written more than once are each as after any one write.
func TestCrashBetweenWrites(t *testing.T) {
	f := recording(t)
	file := create(t, f, "/d/f", append(sector('a'), sector('a')...))
	require.NoError(t, f.SyncDir("/d"))
	for _, c := range []byte("bc") {
		_, err := file.WriteAt(append(sector(c), sector(c)...), 0)
		require.NoError(t, err)
	}
	want := map[string]bool{}
	for _, x := range []byte("abc") {
		for _, y := range []byte("abc") {
			want[string(append(sector(x), sector(y)...))] = true
		}
	}
	require.Equal(t, want, all(t, f, "/d/f"))
}

// A size is lost or kept whatever becomes of the bytes.
func TestCrashOfSize(t *testing.T) {
	f := recording(t)
	file := create(t, f, "/d/f", sector('a'))
	require.NoError(t, f.SyncDir("/d"))
	_, err := file.WriteAt(sector('b'), memfs.SectorBytes)
	require.NoError(t, err)
	require.Equal(t, map[string]bool{
		string(sector('a')):                               true,
		string(append(sector('a'), sector('b')...)):       true,
		string(append(sector('a'), make([]byte, 512)...)): true,
	}, all(t, f, "/d/f"))
}

// The zeros that a cut writes behind itself, up to the end of its block, may be
// there while the old size is.
func TestCrashInsideACut(t *testing.T) {
	f := recording(t)
	file := create(t, f, "/d/f", bytes.Repeat([]byte{'a'}, 5000))
	require.NoError(t, f.SyncDir("/d"))
	require.NoError(t, file.Truncate(100))
	left := all(t, f, "/d/f")
	require.True(t, left[string(bytes.Repeat([]byte{'a'}, 5000))], "nothing of it")
	require.True(t, left[string(bytes.Repeat([]byte{'a'}, 100))], "all of it")
	half := append(bytes.Repeat([]byte{'a'}, 100), make([]byte, 3996)...)
	require.True(t, left[string(append(half, bytes.Repeat([]byte{'a'}, 904)...))], "the zeros without the size")
	for s := range left {
		require.Equal(t, bytes.Repeat([]byte{'a'}, 100), []byte(s)[:100])
		require.Contains(t, []int{100, 5000}, len(s))
		if len(s) == 5000 {
			require.Equal(t, bytes.Repeat([]byte{'a'}, 904), []byte(s)[4096:], "the next block is not touched")
		}
	}
}

// Space that a file was given may hold what a removed file had there, until it
// is synced; what was allocated and synced is zeros.
func TestCrashShowsStaleSectors(t *testing.T) {
	stale := func(synced bool) bool {
		f := recording(t)
		require.NoError(t, create(t, f, "/d/old", bytes.Repeat(sector('o'), 4)).Close())
		require.NoError(t, f.SyncDir("/d"))
		require.NoError(t, f.Remove("/d/old"))
		file := create(t, f, "/d/new", sector('n'))
		require.NoError(t, file.Allocate(4*memfs.SectorBytes))
		if synced {
			require.NoError(t, file.Sync())
		}
		require.NoError(t, f.SyncDir("/d"))
		seen := false
		for seed := range uint64(200) {
			b, err := vfs.ReadFile(f.Crash(seed), "/d/new")
			require.NoError(t, err)
			require.Equal(t, sector('n'), b[:memfs.SectorBytes], "what was synced is never stale")
			seen = seen || bytes.Contains(b, sector('o'))
		}
		return seen
	}
	require.True(t, stale(false))
	require.False(t, stale(true))
}

// A journalling filesystem keeps names in order; a weaker one any of them.
func TestCrashOfNamesInAnyOrder(t *testing.T) {
	f := recording(t)
	require.NoError(t, create(t, f, "/d/1", nil).Close())
	require.NoError(t, create(t, f, "/d/2", nil).Close())
	left := map[int]bool{}
	var every memfs.Every
	for every.Next() {
		c, n := f.CrashWith(f.Ops(), &every), 0
		for i, name := range []string{"/d/1", "/d/2"} {
			if _, err := c.Stat(name); err == nil {
				n |= 1 << i
			}
		}
		left[n] = true
	}
	require.Len(t, left, 4)
}

// Clones share what they have and not what they do; equal states have equal
// sums.
func TestClonesAreApart(t *testing.T) {
	seed := maphash.MakeSeed()
	f := recording(t)
	file := create(t, f, "/d/f", sector('a'))
	require.NoError(t, f.SyncDir("/d"))
	a, b := f.Crash(1), f.Kill()
	require.Equal(t, a.Sum(seed), b.Sum(seed))
	other, err := a.OpenReadWrite("/d/f")
	require.NoError(t, err)
	_, err = other.WriteAt([]byte("x"), 3)
	require.NoError(t, err)
	require.NotEqual(t, a.Sum(seed), b.Sum(seed))
	_, err = file.WriteAt([]byte("y"), 9)
	require.NoError(t, err)
	got, err := vfs.ReadFile(b, "/d/f")
	require.NoError(t, err)
	require.Equal(t, sector('a'), got)
}
