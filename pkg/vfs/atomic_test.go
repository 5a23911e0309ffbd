package vfs_test

import (
	"errors"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// Whatever step fails, the error tells whether the file is the old one: who sees a
// full disk in it may go on as if nothing had been tried.
func TestWriteFileAtomicSaysWhetherItChangedAnything(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		for kind, changed := range map[faultfs.Kind]bool{
			faultfs.Create: false, faultfs.Write: false, faultfs.Sync: false, faultfs.Rename: false, faultfs.SyncDir: true,
		} {
			var on faultfs.Switch
			fsys := faultfs.Wrap(memfs.New(), faultfs.When(faultfs.All(on.On, faultfs.Is(kind)), faultfs.Fail(errno)))
			require.NoError(t, fsys.MkdirAll("a"))
			require.NoError(t, vfs.WriteFileAtomic(fsys, "a/file", []byte("old")))
			on.Set(true)
			err := vfs.WriteFileAtomic(fsys, "a/file", []byte("new"))
			require.ErrorContains(t, err, errno.Error(), kind)
			require.Equal(t, !changed, errors.Is(err, errno), "%v: %v", kind, err)
			on.Set(false)
			b, err := vfs.ReadFile(fsys, "a/file")
			require.NoError(t, err)
			require.Equal(t, changed, string(b) == "new", kind)
		}
	}
}
