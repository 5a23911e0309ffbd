package bootstrap_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/bootstrap"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

func TestMain(m *testing.M) { testutil.VerifyMain(m) }

const (
	dir = "data"
	u1  = "11111111-1111-4111-8111-111111111111"
	u2  = "22222222-2222-4222-8222-222222222222"
)

func promise(cluster string, servers ...string) bootstrap.Promise {
	return bootstrap.Promise{Cluster: cluster, Initiator: servers[0], Servers: servers}
}

func newFS(t *testing.T) *memfs.FS {
	t.Helper()
	fs := memfs.New()
	require.NoError(t, fs.MkdirAll(dir))
	return fs
}

// I1: one, durable, repeated.
func TestOnePromiseEver(t *testing.T) {
	fs := newFS(t)
	s, err := bootstrap.Open(fs, dir)
	require.NoError(t, err)
	_, ok := s.Promised()
	require.False(t, ok)
	require.ErrorIs(t, s.Forget(), bootstrap.ErrNoPromise)

	first := promise(u1, "a", "b", "c")
	require.NoError(t, s.Make(first))
	others := []bootstrap.Promise{promise(u2, "a", "b", "c"), promise(u1, "a", "b", "d"), promise(u1, "a", "b")}
	for life := range 3 {
		require.NoError(t, s.Make(first))
		for _, other := range others {
			var pe *bootstrap.PromisedError
			require.ErrorAs(t, s.Make(other), &pe)
			require.Equal(t, first, pe.To)
			require.ErrorContains(t, pe, "initiated by a")
			require.ErrorContains(t, pe, "bootstrap forget")
		}
		got, ok := s.Promised()
		require.True(t, ok)
		require.Equal(t, first, got)
		fs = fs.Crash(uint64(life))
		s, err = bootstrap.Open(fs, dir)
		require.NoError(t, err)
	}

	require.NoError(t, s.Forget())
	s, err = bootstrap.Open(fs.Crash(7), dir)
	require.NoError(t, err)
	_, ok = s.Promised()
	require.False(t, ok)
	require.NoError(t, s.Make(others[0]))
}

// Whatever a crash leaves while a promise is made is that promise or none. And
// once it was read it is there for good, though its writer never finished.
func TestCrashWhileMakingAPromise(t *testing.T) {
	fs := newFS(t).Record()
	s, err := bootstrap.Open(fs, dir)
	require.NoError(t, err)
	want := promise(u1, "a", "b", "c")
	require.NoError(t, s.Make(want))
	kept := 0
	for n := range fs.Ops() + 1 {
		for seed := range uint64(8) {
			images := map[string]*memfs.FS{"power loss": fs.CrashAt(n, seed), "kill": fs.KillAt(n)}
			for how, image := range images {
				s, err := bootstrap.Open(image, dir)
				require.NoError(t, err, "%s after %d operations, seed %d", how, n, seed)
				got, ok := s.Promised()
				require.False(t, n == fs.Ops() && !ok, "%s after the promise", how)
				if !ok {
					continue
				}
				kept++
				require.Equal(t, want, got)
				s, err = bootstrap.Open(image.Crash(seed), dir)
				require.NoError(t, err)
				_, ok = s.Promised()
				require.True(t, ok, "a promise that was read is lost: %s after %d operations, seed %d", how, n, seed)
			}
		}
	}
	require.Greater(t, kept, 16)
}

// After a write that failed nobody knows what is on disk, so no other is made.
func TestFailedWriteStillBinds(t *testing.T) {
	fs := &failing{FS: newFS(t), failSyncDir: true}
	s, err := bootstrap.Open(fs, dir)
	require.NoError(t, err)
	want := promise(u1, "a", "b", "c")
	require.ErrorContains(t, s.Make(want), "no disk today")
	_, ok := s.Promised()
	require.False(t, ok, "it is not known to be durable")
	var pe *bootstrap.PromisedError
	require.ErrorAs(t, s.Make(promise(u2, "a", "b", "c")), &pe)
	fs.failSyncDir = false
	require.NoError(t, s.Make(want))
	_, ok = s.Promised()
	require.True(t, ok)
}

type failing struct {
	vfs.FS
	failSyncDir bool
}

func (f *failing) SyncDir(dir string) error {
	if f.failSyncDir {
		return fmt.Errorf("no disk today")
	}
	return f.FS.SyncDir(dir)
}

func TestDamagedPromiseIsNotNone(t *testing.T) {
	fs := newFS(t)
	s, err := bootstrap.Open(fs, dir)
	require.NoError(t, err)
	require.NoError(t, s.Make(promise(u1, "a", "b", "c")))
	info, err := fs.Stat(dir + "/promise")
	require.NoError(t, err)
	for place := range info.Size {
		damaged := fs.Kill()
		require.NoError(t, damaged.Corrupt(dir+"/promise", place, 0x04))
		_, err := bootstrap.Open(damaged, dir)
		var ce *bootstrap.CorruptError
		require.ErrorAs(t, err, &ce, "byte %d", place)
		require.Equal(t, dir+"/promise", ce.Path)
	}
}

func TestPromisesNobodyMayMake(t *testing.T) {
	s, err := bootstrap.Open(newFS(t), dir)
	require.NoError(t, err)
	for name, p := range map[string]bootstrap.Promise{
		"no uuid":              promise("", "a", "b"),
		"uuid in capitals":     promise("AAAAAAAA-1111-4111-8111-111111111111", "a", "b"),
		"uuid in braces":       promise("{"+u1+"}", "a", "b"),
		"no servers":           {Cluster: u1, Initiator: "a"},
		"not sorted":           promise(u1, "b", "a"),
		"twice the same":       promise(u1, "a", "a"),
		"an empty id":          promise(u1, "", "a"),
		"initiator not first":  {Cluster: u1, Initiator: "b", Servers: []string{"a", "b"}},
		"initiator not on it":  {Cluster: u1, Initiator: "0", Servers: []string{"a", "b"}},
		"initiator not at all": {Cluster: u1, Servers: []string{"a", "b"}},
	} {
		var ie *bootstrap.InvalidError
		require.ErrorAs(t, s.Make(p), &ie, name)
	}
	_, ok := s.Promised()
	require.False(t, ok)
}
