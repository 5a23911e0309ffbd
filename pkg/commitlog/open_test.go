package commitlog_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// Open reads of a sealed file of the offset index as much however long it is, and
// of the other files what is above the checkpoint.
func TestOpenReadsAFixedPart(t *testing.T) {
	for _, perFile := range []int{8, 64} {
		t.Run(fmt.Sprintf("%d batches a file", perFile), func(t *testing.T) {
			var read atomic.Int64
			count := faultfs.When(faultfs.All(faultfs.Is(faultfs.Read), func(op faultfs.Op) bool {
				read.Add(int64(op.Bytes))
				return false
			}), nil)
			o := small(memfs.New())
			o.FS, o.OffsetBatches = faultfs.Wrap(o.FS, count), perFile
			l, err := commitlog.Open(o)
			require.NoError(t, err)
			const files = 10
			last := uint64(files * perFile)
			es := entries(1, last, 1, 60)
			require.NoError(t, l.Append(es))
			require.NoError(t, l.Publish(batches(es, 0, 1)))
			segs := int64(l.Stats().Segments)
			require.NoError(t, l.Close())

			read.Store(0)
			o.VerifiedTo = last
			l, err = commitlog.Open(o)
			require.NoError(t, err)
			require.Equal(t, last, l.Visible())
			const each, newest, segment, others = 3 * 56, 57 * 56, 2 * 64, 8192
			require.Less(t, read.Load(), files*each+newest+segs*segment+others)
			require.NoError(t, l.Close())
		})
	}
}
