package memfs_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A crash keeps what was synced, and over many seeds loses, keeps and tears
// what was not.
func TestCrashOfBytes(t *testing.T) {
	f := memfs.New()
	require.NoError(t, f.MkdirAll("/d"))
	file, err := f.Create("/d/f")
	require.NoError(t, err)
	old, fresh := bytes.Repeat([]byte{1}, 2048), bytes.Repeat([]byte{2}, 1024)
	_, err = file.WriteAt(old, 0)
	require.NoError(t, err)
	require.NoError(t, file.Sync())
	require.NoError(t, f.SyncDir("/d"))
	_, err = file.WriteAt(fresh, 512)
	require.NoError(t, err)

	seen := map[string]bool{}
	for seed := range uint64(64) {
		b, err := vfs.ReadFile(f.Crash(seed), "/d/f")
		require.NoError(t, err)
		require.Len(t, b, 2048)
		require.Equal(t, old[:512], b[:512])
		require.Equal(t, old[1536:], b[1536:])
		for at := 512; at < 1536; at += 512 {
			require.Equal(t, bytes.Repeat(b[at:at+1], 512), b[at:at+512], "sectors are whole")
		}
		seen[string([]byte{b[512], b[1024]})] = true
		again, err := vfs.ReadFile(f.Crash(seed), "/d/f")
		require.NoError(t, err)
		require.Equal(t, b, again, "a seed is a state")
	}
	require.Equal(t, map[string]bool{"\x01\x01": true, "\x01\x02": true, "\x02\x01": true, "\x02\x02": true}, seen)
	live, err := vfs.ReadFile(f, "/d/f")
	require.NoError(t, err)
	require.Equal(t, fresh, live[512:1536], "the filesystem itself goes on")
}

func TestCrashOfNames(t *testing.T) {
	f := memfs.New()
	require.NoError(t, f.MkdirAll("/d"))
	require.NoError(t, vfs.WriteFileAtomic(f, "/d/kept", []byte("k")))
	require.NoError(t, vfs.WriteFileAtomic(f, "/d/old", []byte("o")))
	require.NoError(t, f.Rename("/d/old", "/d/new"))
	file, err := f.Create("/d/created")
	require.NoError(t, err)
	require.NoError(t, file.Sync(), "syncing a file does not make its name durable")
	seen := map[string]bool{}
	for seed := range uint64(64) {
		c := f.Crash(seed)
		names, err := c.List("/d")
		require.NoError(t, err)
		require.Contains(t, names, "kept")
		has := func(n string) bool { _, err := c.Stat("/d/" + n); return err == nil }
		require.NotEqual(t, has("old"), has("new"), "a rename is atomic")
		for _, n := range []string{"old", "new", "created"} {
			if has(n) {
				seen[n] = true
			}
		}
		if !has("created") {
			seen["lost"] = true
		}
	}
	require.Len(t, seen, 4)
	require.NoError(t, f.SyncDir("/d"))
	names, err := f.Crash(1).List("/d")
	require.NoError(t, err)
	require.Equal(t, []string{"created", "kept", "new"}, names)
}

func TestCrashAtAndKillAt(t *testing.T) {
	f := memfs.New()
	require.NoError(t, f.MkdirAll("/d"))
	require.NoError(t, vfs.WriteFileAtomic(f, "/d/f", []byte("one")))
	f.Record()
	require.NoError(t, vfs.WriteFileAtomic(f, "/d/f", []byte("two")))
	for op := range f.Ops() + 1 {
		for seed := range uint64(8) {
			b, err := vfs.ReadFile(f.CrashAt(op, seed), "/d/f")
			require.NoError(t, err)
			require.Contains(t, []string{"one", "two"}, string(b))
			if op == f.Ops() {
				require.Equal(t, "two", string(b))
			}
		}
		b, err := vfs.ReadFile(f.KillAt(op), "/d/f")
		require.NoError(t, err)
		require.Contains(t, []string{"one", "two"}, string(b))
	}
}

func TestMarkClean(t *testing.T) {
	f := memfs.New()
	require.NoError(t, f.MkdirAll("/d"))
	require.NoError(t, vfs.WriteFileAtomic(f, "/d/f", []byte("one")))
	file, err := f.OpenReadWrite("/d/f")
	require.NoError(t, err)
	_, err = file.WriteAt([]byte("two"), 0)
	require.NoError(t, err)
	require.NoError(t, f.MarkClean("/d/f"))
	require.NoError(t, file.Sync())
	b, err := vfs.ReadFile(f.Kill(), "/d/f")
	require.NoError(t, err)
	require.Equal(t, "two", string(b))
	b, err = vfs.ReadFile(f.Crash(1), "/d/f")
	require.NoError(t, err)
	require.Equal(t, "one", string(b))
}
