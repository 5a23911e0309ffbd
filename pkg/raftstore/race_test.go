package raftstore_test

import (
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/raftstore"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// after is a filesystem that calls a function once a read is done and before its
// reader goes on.
type after struct {
	vfs.FS
	call atomic.Pointer[func()]
}

type afterFile struct {
	vfs.File
	fs *after
}

func (a *after) Create(name string) (vfs.File, error) {
	f, err := a.FS.Create(name)
	if err != nil {
		return nil, err
	}
	return &afterFile{f, a}, nil
}

func (f *afterFile) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(b, off)
	if call := f.fs.call.Load(); call != nil && len(b) > 48 && len(b) < 128 { // a whole frame
		f.fs.call.Store(nil)
		(*call)()
	}
	return n, err
}

// A reader is held up between its read and the end of GetLog, and meanwhile the
// entry is cut, another is stored in its place and applied: what was read is not
// kept for the next reader.
func TestAnEntryThatWasCutIsNotKept(t *testing.T) {
	fs := &after{FS: memfs.New()}
	s, err := raftstore.Open(raftstore.Options{FS: fs, Dir: "data", SegmentBytes: 4096, CacheBytes: 1})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	require.NoError(t, s.StoreLogs(entries(1, 5, 1)))
	var l raft.Log
	now := entries(5, 5, 2)
	meanwhile := func() {
		require.NoError(t, s.DeleteRange(5, 5))
		require.NoError(t, s.StoreLogs(now))
		publish(t, s, now)
	}
	publish(t, s, entries(1, 4, 1))
	fs.call.Store(&meanwhile)
	require.NoError(t, s.GetLog(5, &l))
	require.Nil(t, fs.call.Load(), "it was held up")
	require.NoError(t, s.GetLog(5, &l))
	require.Equal(t, *now[0], l)
}
