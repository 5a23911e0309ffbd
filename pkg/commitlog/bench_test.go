package commitlog_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs"
)

// BenchmarkAppend compares a durable append with the same bytes written to a
// preallocated file and synced, in turns, so that both meet the same disk. The
// figure to watch is x-raw: the log's rate as a share of the raw file's.
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct{ size, batch int }{{100, 1}, {100, 64}, {1024, 64}} {
		b.Run(fmt.Sprintf("%dBx%d", c.size, c.batch), func(b *testing.B) {
			l, err := commitlog.Open(commitlog.Options{FS: vfs.OS{}, Dir: b.TempDir()})
			require.NoError(b, err)
			defer func() { require.NoError(b, l.Close()) }()
			raw := newRawFile(b)
			es := entries(1, uint64(c.batch), 1, c.size)
			payload := make([]byte, c.size*c.batch)
			var logNS, rawNS int64
			b.ReportAllocs()
			b.SetBytes(int64(c.size * c.batch))
			for b.Loop() {
				logNS += timed(func() {
					if err := l.Append(es); err != nil {
						b.Fatal(err)
					}
				})
				rawNS += timed(func() { raw.append(b, payload) })
				for i := range es {
					es[i].Index += uint64(c.batch)
				}
			}
			n := float64(b.N * c.batch)
			b.ReportMetric(n/float64(logNS)*1e9, "rec/s")
			b.ReportMetric(n/float64(rawNS)*1e9, "raw-rec/s")
			b.ReportMetric(float64(rawNS)/float64(logNS), "x-raw")
		})
	}
}

// rawFile is what a log can at best be: a preallocated file, one write and one
// fdatasync a batch.
type rawFile struct {
	dir   string
	n     int
	f     vfs.File
	place int64
}

const rawBytes = commitlog.DefaultSegmentBytes

func newRawFile(b *testing.B) *rawFile {
	r := &rawFile{dir: b.TempDir(), place: rawBytes}
	b.Cleanup(func() { require.NoError(b, r.f.Close()) })
	return r
}

func (r *rawFile) append(b *testing.B, p []byte) {
	if r.place+int64(len(p)) > rawBytes {
		if r.f != nil {
			require.NoError(b, r.f.Close())
		}
		r.n++
		f, err := vfs.OS{}.Create(fmt.Sprintf("%s/%d", r.dir, r.n))
		require.NoError(b, err)
		require.NoError(b, f.Allocate(rawBytes))
		require.NoError(b, f.Sync())
		r.f, r.place = f, 0
	}
	if _, err := r.f.WriteAt(p, r.place); err != nil {
		b.Fatal(err)
	}
	if err := r.f.Sync(); err != nil {
		b.Fatal(err)
	}
	r.place += int64(len(p))
}

// BenchmarkRead reads 1 KiB records in sequence, older ones from the page cache
// and the newest from the tail cache, which has its default size; an op is one
// Read of 1 MiB.
func BenchmarkRead(b *testing.B) {
	const perEntry, recordBytes, count = 64, 1024, 3072
	l, err := commitlog.Open(commitlog.Options{FS: vfs.OS{}, Dir: b.TempDir()})
	require.NoError(b, err)
	defer func() { require.NoError(b, l.Close()) }()
	for i := uint64(1); i <= count; i += 64 {
		es := entries(i, i+63, 1, perEntry*recordBytes)
		require.NoError(b, l.Append(es))
		require.NoError(b, l.Publish(batches(es, (i-1)*perEntry, perEntry)))
	}
	cached := l.Visible() - uint64(l.Stats().CacheEntries)*perEntry
	for name, span := range map[string][2]uint64{"pagecache": {0, cached}, "tailcache": {cached, l.Visible()}} {
		b.Run(name, func(b *testing.B) {
			off, records := span[0], 0
			b.ReportAllocs()
			for b.Loop() {
				got, err := l.Read(off, 1<<20)
				if err != nil {
					b.Fatal(err)
				}
				for _, g := range got {
					off += uint64(g.Count)
					records += int(g.Count)
				}
				if off >= span[1] {
					off = span[0]
				}
			}
			b.ReportMetric(float64(records)/b.Elapsed().Seconds(), "rec/s")
		})
	}
}

// timed returns how many nanoseconds f took.
func timed(f func()) int64 {
	begin := time.Now()
	f()
	return int64(time.Since(begin))
}
