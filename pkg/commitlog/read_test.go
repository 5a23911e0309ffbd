package commitlog_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// Entries without a batch, as refused ones are, may lie between two that have one:
// they do not count as records, and a read takes no memory for them.
func TestAReadIsBoundedWhateverLiesBetween(t *testing.T) {
	l := open(t, commitlog.Options{FS: memfs.New(), Dir: dir, CacheBytes: 1})
	refused := make([]byte, 16<<10)
	var bs []commitlog.Applied
	off := uint64(0)
	for i := uint64(1); i <= 120; i++ {
		e := commitlog.Entry{Index: i, Term: 1, Data: refused}
		if i <= 10 || i%20 == 0 {
			e.Data = []byte("record")
			bs = append(bs, commitlog.Applied{FirstOffset: off, Count: 1, Index: i, Len: 6})
			off++
		}
		require.NoError(t, l.Append([]commitlog.Entry{e}))
	}
	require.NoError(t, l.Publish(bs))
	const maxBytes = 1000
	next, reads, most := uint64(0), 0, 0
	for next < off {
		asked := 0
		got, err := l.ReadInto(next, maxBytes, func(n int) []byte { asked += n; return make([]byte, n) })
		require.NoError(t, err)
		require.LessOrEqual(t, asked, 2*maxBytes+64<<10)
		for _, b := range got {
			require.Equal(t, next, b.FirstOffset)
			require.Equal(t, "record", string(b.Records))
			next++
		}
		reads++
		most = max(most, len(got))
	}
	require.GreaterOrEqual(t, most, 10, "those that are near each other come at once")
	require.Less(t, reads, int(off))
}
