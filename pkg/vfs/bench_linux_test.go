package vfs_test

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/vfs"
)

// BenchmarkWriteAndSync compares a write and a sync through OS with the bare
// system calls on a file like it, in turns. The figure to watch is x-bare: the
// rate as a share of the bare one's.
func BenchmarkWriteAndSync(b *testing.B) {
	const fileBytes = 64 << 20
	for _, size := range []int{64 << 10, 4 << 20} {
		b.Run(fmt.Sprint(size>>10, "KiB"), func(b *testing.B) {
			f, err := vfs.OS{}.Create(b.TempDir() + "/f")
			require.NoError(b, err)
			defer f.Close()
			require.NoError(b, f.Allocate(fileBytes))
			bare, err := os.Create(b.TempDir() + "/bare")
			require.NoError(b, err)
			defer bare.Close()
			require.NoError(b, syscall.Fallocate(int(bare.Fd()), 0, 0, fileBytes))
			buf := make([]byte, size)
			var ours, theirs time.Duration
			b.SetBytes(int64(size))
			for i := 0; b.Loop(); i++ {
				at := int64(i * size % fileBytes)
				begun := time.Now()
				_, err := f.WriteAt(buf, at)
				require.NoError(b, err)
				require.NoError(b, f.Sync())
				ours += time.Since(begun)
				begun = time.Now()
				_, err = bare.WriteAt(buf, at)
				require.NoError(b, err)
				require.NoError(b, syscall.Fdatasync(int(bare.Fd())))
				theirs += time.Since(begun)
			}
			b.ReportMetric(float64(theirs)/float64(ours), "x-bare")
		})
	}
}
