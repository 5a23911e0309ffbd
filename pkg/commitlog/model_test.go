package commitlog_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// drive makes the calls that script encodes, on a log and on a map, and holds
// the one against the other.
func drive(t *testing.T, fs vfs.FS, script []byte) {
	l := open(t, small(fs))
	var (
		want      = map[uint64]commitlog.Entry{}
		start     commitlog.Start
		last      uint64
		commit    uint64
		term      = uint64(1)
		published []commitlog.Applied // from start.Offset on, or below
		visible   uint64
	)
	var es []commitlog.Entry
	for i := 0; i+1 < len(script); i += 2 {
		arg := uint64(script[i+1])
		switch script[i] % 8 {
		case 0, 1:
			es = nil
			for k := range arg%6 + 1 {
				es = append(es, entry(last+1+k, term, int(arg)*3, byte(i)))
			}
			require.NoError(t, l.Append(es))
			for _, e := range es {
				want[e.Index] = e
				last = e.Index
			}
		case 2:
			term++
			from := start.Index + 1 + arg%16
			err := l.TruncateSuffix(from)
			switch {
			case from > last:
				require.NoError(t, err)
			case from <= commit:
				var refused *commitlog.CommittedError
				require.ErrorAs(t, err, &refused)
			default:
				require.NoError(t, err)
				last = from - 1
			}
		case 3, 4:
			var fresh []commitlog.Applied
			for k := commit + 1; k <= min(last, commit+arg%7); k++ {
				fresh = append(fresh, commitlog.Applied{FirstOffset: visible, Count: uint32(k%3) + 1, Index: k, Pos: 4, Len: 5, Timestamp: int64(k)})
				visible += k%3 + 1
				commit = k
			}
			require.NoError(t, l.Publish(fresh))
			published = append(published, fresh...)
		case 5:
			if commit > start.Index {
				at := start.Index + 1 + arg%(commit-start.Index)
				s := commitlog.Start{Index: at, Term: want[at].Term, Offset: visible}
				for _, p := range published {
					if p.Index == at {
						s.Offset = p.FirstOffset + uint64(p.Count)
					}
				}
				require.NoError(t, l.SetStart(s))
				start = s
			}
		case 6:
			require.NoError(t, l.Close())
			l = open(t, small(fs))
			require.NoError(t, l.Rewind(visible))
		case 7:
			if arg < 32 {
				term++
				start = commitlog.Start{Index: last + arg, Term: term, Offset: visible + arg}
				require.NoError(t, l.Reset(start))
				last, commit, visible, published = start.Index, start.Index, start.Offset, nil
			}
		}
		require.Equal(t, start, l.Start())
		require.Equal(t, last, l.Last())
		require.Equal(t, visible, l.Visible())
		require.Equal(t, start.Offset, l.Lowest())
		for k := start.Index + 1; k <= last; k++ {
			got, err := l.Entry(k)
			require.NoError(t, err)
			require.Equal(t, want[k], got)
		}
		for _, p := range published {
			off := p.FirstOffset + uint64(p.Count) - 1
			if off < start.Offset {
				continue
			}
			got, err := l.Read(off, int(arg))
			require.NoError(t, err)
			require.Equal(t, commitlog.RecordBatch{FirstOffset: p.FirstOffset, Count: p.Count, Timestamp: p.Timestamp, Records: want[p.Index].Data[4:9]}, got[0])
		}
	}
}

func TestAgainstAMap(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 2))
		script := make([]byte, 80)
		for i := range script {
			script[i] = byte(rng.Uint32())
		}
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { drive(t, memfs.New(), script) })
	}
	rng := rand.New(rand.NewPCG(7, 3))
	script := make([]byte, 120)
	for i := range script {
		script[i] = byte(rng.Uint32())
	}
	drive(t, relocated{vfs.OS{}, t.TempDir()}, script)
}

func FuzzAgainstAMap(f *testing.F) {
	f.Add([]byte{0, 5, 3, 4, 5, 1, 6, 0, 7, 3, 1, 2})
	f.Fuzz(func(t *testing.T, script []byte) {
		drive(t, memfs.New(), script[:min(len(script), 200)])
	})
}

// relocated puts the tests' fixed directory under another.
type relocated struct {
	vfs.OS
	root string
}

func (r relocated) Create(name string) (vfs.File, error) { return r.OS.Create(r.root + name) }
func (r relocated) Open(name string) (vfs.File, error)   { return r.OS.Open(r.root + name) }
func (r relocated) OpenReadWrite(name string) (vfs.File, error) {
	return r.OS.OpenReadWrite(r.root + name)
}
func (r relocated) Rename(a, b string) error             { return r.OS.Rename(r.root+a, r.root+b) }
func (r relocated) Remove(name string) error             { return r.OS.Remove(r.root + name) }
func (r relocated) List(dir string) ([]string, error)    { return r.OS.List(r.root + dir) }
func (r relocated) MkdirAll(dir string) error            { return r.OS.MkdirAll(r.root + dir) }
func (r relocated) SyncDir(dir string) error             { return r.OS.SyncDir(r.root + dir) }
func (r relocated) Lock(name string) (io.Closer, error)  { return r.OS.Lock(r.root + name) }
func (r relocated) Map(name string) (vfs.Mapping, error) { return r.OS.Map(r.root + name) }

// I8: readers see every visible record, whole and in order, while entries are
// appended, uncommitted ones cut, and old ones retired.
func TestReadersWhileWriting(t *testing.T) {
	for name, cacheBytes := range map[string]int64{"no cache": 1, "a small cache": 2000, "a large cache": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			o := small(memfs.New())
			o.CacheBytes = cacheBytes
			l := open(t, o)
			const total = 600
			var wg sync.WaitGroup
			var reads atomic.Int64
			for r := range 4 {
				wg.Go(func() {
					for off := uint64(0); off < total; {
						if err := l.Wait(t.Context(), off); err != nil {
							t.Errorf("wait: %v", err)
							return
						}
						got, err := l.Read(off, 100*r)
						var out *commitlog.OutOfRangeError
						if errors.As(err, &out) && out.Lowest > off {
							off = out.Lowest // retired meanwhile
							continue
						}
						if err != nil {
							t.Errorf("read %d: %v", off, err)
							return
						}
						for _, b := range got {
							if index := binary.LittleEndian.Uint64(b.Records); b.FirstOffset != off || index != off+1 || b.Records[8] != 0 {
								t.Errorf("offset %d: batch at %d of entry %d", off, b.FirstOffset, index)
								return
							}
							off++
						}
						if e, err := l.Entry(l.Last()); err == nil && e.Index == 0 {
							t.Errorf("an entry without an index")
						}
						reads.Add(1)
					}
				})
			}
			for i := uint64(1); i <= total; i += 3 {
				require.NoError(t, l.Append([]commitlog.Entry{entry(i, i, 40, 1), entry(i+1, i, 90, 1)}))
				require.NoError(t, l.TruncateSuffix(i))
				es := entries(i, i+2, i+1, 60)
				require.NoError(t, l.Append(es))
				require.NoError(t, l.Publish(batches(es, i-1, 1)))
				if i%60 == 1 && i > 100 {
					require.NoError(t, l.SetStart(commitlog.Start{Index: i - 98, Term: 1, Offset: i - 98}))
				}
			}
			wg.Wait()
			require.Greater(t, reads.Load(), int64(4))
		})
	}
}
