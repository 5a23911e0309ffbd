package commitlog_test

import (
	"errors"
	"path"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// healthy is a log with all kinds of files, and what is in it.
var healthy = sync.OnceValue(func() (h struct {
	fs      *memfs.FS
	names   []string
	entries []commitlog.Entry
}) {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	h.fs = memfs.New()
	l, err := commitlog.Open(small(h.fs))
	must(err)
	h.entries = entries(1, 30, 1, 100)
	for i := range 10 {
		must(l.Append(h.entries[3*i : 3*i+3]))
	}
	must(l.Publish(batches(h.entries, 0, 2)))
	must(l.SyncOffsets())
	must(l.SetStart(commitlog.Start{Index: 9, Term: 1, Offset: 18}))
	must(l.Close())
	h.names, err = h.fs.List(dir)
	must(err)
	return h
})

// I2, I5, I14: whatever is written over a part of a file, and wherever it is cut: opening
// neither panics nor takes memory for what is not there, and an entry or a record
// that is read is the one that was written.
func FuzzDamagedDirectory(f *testing.F) {
	f.Add(uint8(0), uint32(70), []byte{0xff, 0xff, 0xff, 0x7f}, false)
	f.Add(uint8(3), uint32(0), []byte("LOGDSEG1"), false)
	f.Add(uint8(5), uint32(64), []byte{}, true)
	f.Add(uint8(9), uint32(20), []byte{1, 2, 3}, true)
	f.Fuzz(func(t *testing.T, which uint8, place uint32, patch []byte, cut bool) {
		h := healthy()
		fs := h.fs.Kill()
		p := path.Join(dir, h.names[int(which)%len(h.names)])
		file, err := fs.OpenReadWrite(p)
		require.NoError(t, err)
		size, err := file.Size()
		require.NoError(t, err)
		at := int64(place) % (size + 1)
		patch = patch[:min(len(patch), 4096)]
		_, err = file.WriteAt(patch, at)
		require.NoError(t, err)
		if cut {
			require.NoError(t, file.Truncate(at+int64(len(patch))))
		}
		require.NoError(t, file.Close())

		var findings int
		used := testutil.Allocated(func() { findings = inspectAll(t, fs) })
		require.Less(t, used, uint64(8<<20), "bytes allocated by an inspection")
		for _, allow := range []bool{false, true} {
			used := testutil.Allocated(func() { readAll(t, fs.Kill(), allow, findings) })
			require.Less(t, used, uint64(16<<20), "bytes allocated by opening")
		}
	})
}

// inspectAll looks at everything and counts what is wrong.
func inspectAll(t *testing.T, fs vfs.FS) (findings int) {
	n, err := commitlog.Inspect(fs, dir, func(commitlog.Finding) { findings++ })
	require.NoError(t, err)
	require.NoError(t, n.Frames(0, func(*commitlog.Frame) error { return nil }))
	require.NoError(t, n.OffsetRecords(func(*commitlog.OffsetRecord) error { return nil }))
	require.NoError(t, n.Close())
	return findings
}

func readAll(t *testing.T, fs vfs.FS, allow bool, findings int) {
	h := healthy()
	o := small(fs)
	o.AllowDamage = allow
	l, err := commitlog.Open(o)
	var corrupt *commitlog.CorruptError
	if err != nil {
		require.ErrorAs(t, err, &corrupt)
		require.NotZero(t, findings, "refused, but an inspection found nothing: %v", err)
		return
	}
	defer l.Close()
	for _, want := range h.entries {
		got, err := l.Entry(want.Index)
		switch {
		case err == nil:
			require.Equal(t, want, got)
		case errors.As(err, &corrupt), errors.Is(err, commitlog.ErrNotFound):
			require.True(t, findings > 0 || want.Index <= 9, "entry %d: %v, but an inspection found nothing", want.Index, err)
		default:
			require.NoError(t, err)
		}
	}
	for off := l.Lowest(); off < l.Visible(); off++ {
		got, err := l.Read(off, 1)
		if err != nil {
			require.ErrorAs(t, err, &corrupt)
			require.NotZero(t, findings)
			continue
		}
		require.Equal(t, h.entries[off/2].Data, got[0].Records)
	}
}
