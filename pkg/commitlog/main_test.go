package commitlog_test

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const dir = "/log"

// small are options under which a test of a few entries crosses segments and
// offset files.
func small(fs vfs.FS) commitlog.Options {
	return commitlog.Options{FS: fs, Dir: dir, SegmentBytes: 1024, CacheBytes: 600, OffsetBatches: 4}
}

func open(t testing.TB, o commitlog.Options) *commitlog.Log {
	t.Helper()
	l, err := commitlog.Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

// entry makes an entry that says itself what it is; variant tells apart
// entries that replace each other.
func entry(index, term uint64, size int, variant byte) commitlog.Entry {
	data := make([]byte, max(size, 9))
	for i := range data {
		data[i] = byte(index)*31 + byte(i) + variant
	}
	binary.LittleEndian.PutUint64(data, index)
	data[8] = variant
	return commitlog.Entry{Index: index, Term: term, Type: uint8(index % 4), AppendedAt: int64(1000 + index), Data: data}
}

// entries makes [from, to].
func entries(from, to, term uint64, size int) (es []commitlog.Entry) {
	for i := from; i <= to; i++ {
		es = append(es, entry(i, term, size, 0))
	}
	return es
}

// requireEntries checks that the log is exactly want.
func requireEntries(t testing.TB, l *commitlog.Log, want []commitlog.Entry, msg ...any) {
	t.Helper()
	if len(want) > 0 {
		require.Equal(t, want[len(want)-1].Index, l.Last(), msg...)
	} else {
		require.Equal(t, l.First()-1, l.Last(), msg...)
	}
	for _, w := range want {
		got, err := l.Entry(w.Index)
		require.NoError(t, err, msg...)
		require.Equal(t, w, got, msg...)
	}
	_, err := l.Entry(l.Last() + 1)
	require.Equal(t, commitlog.ErrNotFound, err, "bare, behind the last entry")
	_, err = l.Entry(l.First() - 1)
	require.Equal(t, commitlog.ErrNotFound, err, "bare, before the first entry")
}

// batches makes one batch of count records a entry, [from, to], offsets from
// off on. Its records are the whole of the entry's data.
func batches(es []commitlog.Entry, off uint64, count uint32) (bs []commitlog.Applied) {
	for _, e := range es {
		bs = append(bs, commitlog.Applied{FirstOffset: off, Count: count, Index: e.Index, Pos: 0, Len: uint32(len(e.Data)), Timestamp: e.AppendedAt})
		off += uint64(count)
	}
	return bs
}

func segments(t testing.TB, fs vfs.FS) (names []string) {
	t.Helper()
	all, err := fs.List(dir)
	require.NoError(t, err)
	for _, n := range all {
		if len(n) > 4 && n[len(n)-4:] == ".seg" {
			names = append(names, n)
		}
	}
	return names
}
