package history_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/test/history"
	"github.com/logd-io/logd/test/history/linear"
)

// ofLinear are the rules that are about appends and reads of one log, and so the ones
// that Porcupine has a word on.
var ofLinear = []history.Rule{
	history.Acknowledged, history.Once, history.SameOffset, history.NotSent, history.Stranger,
	history.RealTime, history.Linearizable, history.Content, history.Unseen,
}

func linearizable(r *history.Report) bool {
	for rule := range r.Count {
		if slices.Contains(ofLinear, rule) {
			return false
		}
	}
	return true
}

// disturb changes one thing in h.
func disturb(rng *rand.Rand, h *history.History) {
	log := &h.Logs[0]
	e := &h.Events[rng.IntN(len(h.Events))]
	other := &h.Events[rng.IntN(len(h.Events))]
	nudge := func(n *uint64) { *n += uint64(rng.IntN(3)) - 1 }
	switch rng.IntN(13) {
	case 0:
		e.Start = max(0, e.Start-int64(rng.IntN(10)))
	case 1:
		e.Start = min(e.End, e.Start+int64(rng.IntN(10)))
	case 2:
		if e.End != history.Forever {
			e.End = max(e.Start, e.End-int64(rng.IntN(10)))
		}
	case 3:
		if e.Offset > 0 {
			nudge(&e.Offset)
		} else {
			e.Offset++
		}
	case 4:
		if e.Next > 0 {
			nudge(&e.Next)
		} else {
			e.Next++
		}
	case 5:
		e.Offset, other.Offset = other.Offset, e.Offset
	case 6:
		e.Sum, other.Sum = other.Sum, e.Sum
	case 7:
		if e.Op == history.Produce && e.Outcome == history.OK {
			e.Outcome, e.End = history.Unknown, history.Forever
		}
	case 8:
		if e.Op == history.Produce && e.End != history.Forever {
			e.Outcome = history.Refused
		}
	case 9:
		e.Linear = e.Op == history.Consume && !e.Linear
	case 10:
		if n := len(log.Records); n > 1 {
			i, j := rng.IntN(n), rng.IntN(n)
			log.Records[i], log.Records[j] = log.Records[j], log.Records[i]
		}
	case 11:
		if n := len(log.Records); n > 0 {
			log.Records = log.Records[:n-1]
		}
	case 12:
		if n := len(log.Records); n > 0 {
			log.Records = append(log.Records, log.Records[rng.IntN(n)])
		}
	}
}

// TestAgreesWithPorcupine checks thousands of small histories, as a correct log made
// them and with something changed in them, with both checkers, and with one of
// sessions that compares all with all.
func TestAgreesWithPorcupine(t *testing.T) {
	cases := 10000
	if testing.Short() {
		cases = 1000
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	var illegal, stale int
	for n := range cases {
		h := simulate(rng, 2+rng.IntN(4), 3+rng.IntN(14))
		changes := rng.IntN(4)
		for range changes {
			disturb(rng, h)
		}
		if rng.IntN(2) == 0 { // there are no streams, so the order means nothing
			rng.Shuffle(len(h.Events), func(i, j int) { h.Events[i], h.Events[j] = h.Events[j], h.Events[i] })
		}
		r := history.Check(h)
		show := func() string {
			var b bytes.Buffer
			require.NoError(t, h.Write(&b))
			require.NoError(t, r.Print(&b))
			return b.String()
		}
		if changes == 0 {
			require.NoError(t, r.Err(), "seed %d case %d: a clean history\n%s", seed, n, show())
		}
		got, _ := linear.Check(h, 0, h.Logs[0].Next(), 0)
		if (got == porcupine.Ok) != linearizable(r) {
			t.Fatalf("seed %d case %d: Porcupine says %s\n%s", seed, n, got, show())
		}
		if got == porcupine.Illegal {
			illegal++
		}
		if sessions := sessionsOK(h); sessions != (r.Count[history.ReadYourWrites]+r.Count[history.MonotonicReads] == 0) {
			t.Fatalf("seed %d case %d: compared with all others, sessions are well: %t\n%s", seed, n, sessions, show())
		} else if !sessions {
			stale++
		}
	}
	t.Logf("%d histories: %d not linearizable, %d with a session that went back", cases, illegal, stale)
	require.Greater(t, illegal, cases/5)
	require.Greater(t, cases-illegal, cases/5)
	require.NotZero(t, stale)
}

// sessionsOK compares every answer about the end with all that its session was told
// before.
func sessionsOK(h *history.History) bool {
	length := func(e *history.Event) uint64 {
		switch {
		case e.Outcome == history.OutOfRange, e.Op == history.Ends && e.Outcome == history.OK:
			return e.Next
		case e.Outcome == history.OK:
			return e.Offset + 1
		}
		return 0
	}
	for i := range h.Events {
		b := &h.Events[i]
		if b.Outcome != history.OutOfRange && (b.Op != history.Ends || b.Outcome != history.OK) {
			continue
		}
		for j := range h.Events {
			a := &h.Events[j]
			if h.Conns[a.Conn].Session == h.Conns[b.Conn].Session && a.End < b.Start && length(a) > b.Next {
				return false
			}
		}
	}
	return true
}
