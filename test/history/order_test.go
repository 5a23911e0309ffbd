package history_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/test/history"
)

// A record that was read before it was sent is that, also where somebody was told later
// still that the log ends before it.
func TestASendAccusesFirst(t *testing.T) {
	h := large(2000)
	var sent, told int64
	const at = 100
	for i := range h.Events {
		if e := &h.Events[i]; e.Op == history.Produce && e.Offset == at {
			sent, told = e.Start, e.End-1
		}
	}
	require.Less(t, sent, told)
	h.Events = append(h.Events, history.Event{
		Op: history.Consume, Outcome: history.OutOfRange, Linear: true, Conn: 64 + 2, Start: told, End: told, Asked: at, Next: at,
	})
	require.NoError(t, history.Check(h).Err())

	early := h.Clone()
	for i := range early.Events {
		if e := &early.Events[i]; e.Op == history.Deliver && e.Stream == 1 && e.Offset == at {
			e.Start, e.End = sent-1, sent-1
		}
	}
	report := history.Check(early)
	require.Positive(t, report.Count[history.RealTime], "%v", report.Err())

	// Read after it was sent, and before somebody was told that it is not there.
	for i := range early.Events {
		if e := &early.Events[i]; e.Op == history.Deliver && e.Stream == 1 && e.Offset == at {
			e.Start, e.End = told-1, told-1
		}
	}
	report = history.Check(early)
	require.Positive(t, report.Count[history.Linearizable], "%v", report.Err())
	require.Zero(t, report.Count[history.RealTime])
}
