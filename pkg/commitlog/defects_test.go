package commitlog_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// Defect 1 of the prior art (docs/defects.md): what was acknowledged was in a
// buffer of the process, and the index kept the size it had been grown to, so
// that after kill -9 records were gone and the next offset was wrong.
func TestDefect01KillLosesWhatAppendAnswered(t *testing.T) {
	for name, end := range map[string]func(*memfs.FS) *memfs.FS{
		"kill -9":    (*memfs.FS).Kill,
		"power loss": func(fs *memfs.FS) *memfs.FS { return fs.Crash(1) },
	} {
		t.Run(name, func(t *testing.T) {
			fs := memfs.New()
			l := open(t, small(fs))
			var want []commitlog.Entry
			for i := range uint64(40) { // across segments, all of them preallocated
				es := entries(2*i+1, 2*i+2, 1, 50)
				require.NoError(t, l.Append(es))
				require.NoError(t, l.Publish(batches(es, 2*i, 1)))
				want = append(want, es...)

				again := open(t, small(end(fs)))
				requireEntries(t, again, want, "after entry %d", len(want))
				// The offset index is not the truth and may end early. Told again
				// what was applied, the log goes on at the right offset.
				require.LessOrEqual(t, again.Visible(), uint64(len(want)))
				require.NoError(t, again.Rewind(0))
				require.NoError(t, again.Publish(batches(want, 0, 1)))
				require.Equal(t, uint64(len(want)), again.Visible())
				next := entries(again.Last()+1, again.Last()+1, 2, 50)
				require.NoError(t, again.Append(next))
				require.NoError(t, again.Publish(batches(next, again.Visible(), 1)))
				got, err := again.Read(again.Visible()-1, 1)
				require.NoError(t, err)
				require.Equal(t, next[0].Data, got[0].Records)
			}
		})
	}
}
