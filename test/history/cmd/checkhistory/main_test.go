package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/test/history"
)

// small is three records written one after the other, and read by a stream.
func small() *history.History {
	h := &history.History{Conns: []history.Who{{Name: "writer", Session: "s"}, {Name: "tail"}}}
	l := history.Log{Node: "a"}
	h.Events = append(h.Events, history.Event{Op: history.Open, Conn: 1, Stream: 1, End: history.Forever})
	for i := range uint64(3) {
		t := int64(10 * (i + 1))
		h.Events = append(h.Events,
			history.Event{Op: history.Produce, Outcome: history.OK, Start: t, End: t + 5, Offset: i, Sum: i + 100},
			history.Event{Op: history.Deliver, Outcome: history.OK, Conn: 1, Stream: 1, Start: t + 6, End: t + 6, Offset: i, Sum: i + 100, Time: t})
		l.Records = append(l.Records, history.Record{Sum: i + 100, Time: t})
	}
	h.Logs = []history.Log{l}
	return h
}

// A kept file is checked as the history that it was, and what is wrong is shown with
// the events involved.
func TestKeptFiles(t *testing.T) {
	file := func(h *history.History) string {
		name := filepath.Join(t.TempDir(), "kept.jsonl.gz")
		f, err := os.Create(name)
		require.NoError(t, err)
		z := gzip.NewWriter(f)
		require.NoError(t, errors.Join(h.Write(z), z.Close(), f.Close()))
		return name
	}
	var out bytes.Buffer
	ok, err := check(&out, file(small()), 5, 2, 1)
	require.NoError(t, err)
	require.True(t, ok, out.String())
	require.Contains(t, out.String(), "3 records in the log (3 acknowledged, 0 unknown, 0 refused), 0 read singly and 3 by 1 streams")

	bad := small()
	bad.Events[4].Sum = 7
	out.Reset()
	ok, err = check(&out, file(bad), 0, 0, 0)
	require.NoError(t, err)
	require.False(t, ok)
	require.Contains(t, out.String(), "content: at 1 the log has 0000000000000065 of time 20, and 0000000000000007 of time 20 was read\n"+
		"    tail: deliver → 0000000000000007 at 1, stream 1  [26ns … 26ns]\n"+
		"    writer (session s): produce → 0000000000000065 at 1  [20ns … 25ns]\n")
	ok, err = check(&out, file(bad), 5, 3, 1)
	require.False(t, ok)
	require.ErrorContains(t, err, "has no order")
}
