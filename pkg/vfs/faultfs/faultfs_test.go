package faultfs_test

import (
	"errors"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRules(t *testing.T) {
	var broken faultfs.Switch
	f := faultfs.Wrap(memfs.New(),
		faultfs.When(faultfs.All(faultfs.Is(faultfs.Sync), faultfs.Name("*.a"), faultfs.Nth(2)), faultfs.Fail(syscall.EIO)),
		faultfs.When(faultfs.All(faultfs.Is(faultfs.Write), faultfs.Name("*.a"), faultfs.Nth(2)), faultfs.Short(2, syscall.ENOSPC)),
		faultfs.When(faultfs.All(faultfs.Is(faultfs.Write), faultfs.Not(faultfs.Name("*.a")), faultfs.From(2)), faultfs.Short(1, nil)),
		faultfs.When(faultfs.All(broken.On, faultfs.Any(faultfs.Is(faultfs.Read), faultfs.Is(faultfs.Create))), faultfs.Fail(syscall.EROFS)),
	)
	a, err := f.Create("/x.a")
	require.NoError(t, err)
	b, err := f.Create("/x.b")
	require.NoError(t, err)
	require.NoError(t, b.Sync())
	require.NoError(t, a.Sync())
	require.ErrorIs(t, a.Sync(), syscall.EIO)
	require.NoError(t, a.Sync())

	n, err := a.WriteAt([]byte("hello"), 0)
	require.NoError(t, err)
	require.Equal(t, 5, n)
	n, err = a.WriteAt([]byte("HELLO"), 0)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, 2, n)
	got, err := vfs.ReadFile(f, "/x.a")
	require.NoError(t, err)
	require.Equal(t, "HEllo", string(got))
	for _, want := range []int{5, 1, 1} {
		n, err = b.WriteAt([]byte("hello"), 0)
		require.NoError(t, err)
		require.Equal(t, want, n)
	}

	broken.Set(true)
	_, err = f.Create("/y")
	require.ErrorIs(t, err, syscall.EROFS)
	_, err = a.ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, syscall.EROFS)
	broken.Set(false)
	_, err = a.ReadAt(make([]byte, 1), 0)
	require.NoError(t, err)
}

func TestHang(t *testing.T) {
	for name, cause := range map[string]error{"goes on": nil, "fails": errors.New("gone")} {
		t.Run(name, func(t *testing.T) {
			hang := faultfs.NewHang()
			f := faultfs.Wrap(memfs.New(), faultfs.When(faultfs.Is(faultfs.Sync), hang.Act))
			file, err := f.Create("/f")
			require.NoError(t, err)
			done := make(chan error, 1) // the one sync
			go func() { done <- file.Sync() }()
			<-hang.Entered()
			require.Empty(t, done)
			hang.Release(cause)
			require.ErrorIs(t, <-done, cause)
		})
	}
}
