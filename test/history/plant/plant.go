// Package plant puts violations into clean histories, one kind each, as small as it
// can be and with everything else left as it fits. A checker that passes them is
// worth nothing, and a history that offers no place for one says little.
package plant

import (
	"math/rand/v2"

	"github.com/logd-io/logd/test/history"
)

// Plant is one kind of violation.
type Plant struct {
	Name string
	Rule history.Rule // that has to be found broken; others may be, too
	// Into changes h, somewhere at random, and says whether h has a place for it.
	Into func(h *history.History, rng *rand.Rand) bool
}

// All are the kinds.
var All = []Plant{
	{"an acknowledged record is lost", history.Acknowledged, lost},
	{"an acknowledged record is another one", history.Acknowledged, wrongContent},
	{"a record is in the log twice", history.Once, twice},
	{"a request id is acknowledged at two offsets", history.Once, twoOffsets},
	{"an offset is acknowledged to two", history.SameOffset, sameOffset},
	{"two sends of one content are acknowledged at one offset", history.SameOffset, sameOffsetAndContent},
	{"what was not sent is in the log", history.NotSent, notSent},
	{"a record that nobody sent", history.Stranger, stranger},
	{"acknowledged before the other was sent, and after it in the log", history.RealTime, inversion},
	{"read before it was sent", history.RealTime, prophecy},
	{"a linearizable read misses what was acknowledged", history.Linearizable, staleLinear},
	{"a produce stream out of order", history.Producer, reordered},
	{"a produce stream with a hole", history.Producer, hole},
	{"a gap in a stream", history.Stream, gap},
	{"a repetition in a stream", history.Stream, repetition},
	{"two readers see two records", history.Content, changedValue},
	{"a record's timestamp changes", history.Content, changedTime},
	{"what was read is gone", history.Unseen, unseen},
	{"the log ends before its own write", history.ReadYourWrites, endBeforeWrite},
	{"its own write is out of range", history.ReadYourWrites, writeOutOfRange},
	{"a session goes back between proxies", history.MonotonicReads, backBetweenProxies},
	{"refused, though it is there", history.Range, contradiction},
	{"a node's log differs", history.Nodes, nodeDiffers},
	{"a node's log is shorter", history.Nodes, nodeShorter},
}

// pick is the index of a random event that fits, or false.
func pick(h *history.History, rng *rand.Rand, fits func(e *history.Event) bool) (int, bool) {
	if len(h.Events) == 0 {
		return 0, false
	}
	from := rng.IntN(len(h.Events))
	for n := range h.Events {
		if i := (from + n) % len(h.Events); fits(&h.Events[i]) {
			return i, true
		}
	}
	return 0, false
}

func acked(e *history.Event) bool { return e.Op == history.Produce && e.Outcome == history.OK }

func plain(e *history.Event) bool { return acked(e) && e.Key == 0 && e.Stream == 0 }

func read(e *history.Event) bool {
	return (e.Op == history.Consume || e.Op == history.Deliver) && e.Outcome == history.OK
}

func next(h *history.History) uint64 { return h.Logs[0].Next() }

func each(h *history.History, do func(*history.Log)) bool {
	for i := range h.Logs {
		do(&h.Logs[i])
	}
	return len(h.Logs) > 0
}

// rewrite makes rec the record at off, in every log and for every reader.
func rewrite(h *history.History, off uint64, rec history.Record) {
	each(h, func(l *history.Log) { l.Records[off-l.Base] = rec })
	for i := range h.Events {
		if e := &h.Events[i]; read(e) && e.Offset == off {
			e.Sum, e.Time = rec.Sum, rec.Time
		}
	}
}

// swap lets two acknowledged records change places, for everybody.
func swap(h *history.History, a, b *history.Event) {
	l := &h.Logs[0]
	ra, rb := l.Records[a.Offset-l.Base], l.Records[b.Offset-l.Base]
	rewrite(h, a.Offset, rb)
	rewrite(h, b.Offset, ra)
	a.Offset, b.Offset = b.Offset, a.Offset
}

func lost(h *history.History, _ *rand.Rand) bool {
	return each(h, func(l *history.Log) { l.Records = l.Records[:len(l.Records)-1] })
}

func wrongContent(h *history.History, rng *rand.Rand) bool {
	i, ok := pick(h, rng, acked)
	if ok {
		e := &h.Events[i]
		rewrite(h, e.Offset, history.Record{Sum: e.Sum ^ 1, Time: h.Logs[0].Records[e.Offset-h.Logs[0].Base].Time})
	}
	return ok
}

func twice(h *history.History, rng *rand.Rand) bool {
	i, ok := pick(h, rng, acked)
	return ok && each(h, func(l *history.Log) {
		l.Records = append(l.Records, l.Records[h.Events[i].Offset-l.Base])
	})
}

func twoOffsets(h *history.History, rng *rand.Rand) bool {
	i, ok := pick(h, rng, func(e *history.Event) bool { return acked(e) && e.Key != 0 && e.Offset > 0 })
	if ok {
		again := h.Events[i]
		again.Offset--
		h.Events = append(h.Events, again)
	}
	return ok
}

func sameOffset(h *history.History, rng *rand.Rand) bool {
	i, ok := pick(h, rng, plain)
	if !ok {
		return false
	}
	j, ok := pick(h, rng, func(e *history.Event) bool { return acked(e) && e.Key == 0 && e != &h.Events[i] })
	if ok {
		h.Events[i].Offset = h.Events[j].Offset
	}
	return ok
}

func sameOffsetAndContent(h *history.History, rng *rand.Rand) bool {
	i, ok := pick(h, rng, plain)
	if ok {
		h.Events = append(h.Events, h.Events[i])
	}
	return ok
}

func notSent(h *history.History, rng *rand.Rand) bool {
	i, ok := pick(h, rng, plain)
	if ok {
		h.Events[i].Outcome = history.Refused
	}
	return ok
}

func stranger(h *history.History, rng *rand.Rand) bool {
	rec := history.Record{Sum: rng.Uint64(), Time: 1}
	return each(h, func(l *history.Log) { l.Records = append(l.Records, rec) })
}

func inversion(h *history.History, rng *rand.Rand) bool {
	i, ok := pick(h, rng, plain)
	if !ok {
		return false
	}
	a := &h.Events[i]
	j, ok := pick(h, rng, func(b *history.Event) bool { return plain(b) && (b.Start > a.End || b.End < a.Start) })
	if ok {
		swap(h, a, &h.Events[j])
	}
	return ok
}

func prophecy(h *history.History, rng *rand.Rand) bool {
	sent := map[uint64]int64{}
	for i := range h.Events {
		if e := &h.Events[i]; plain(e) {
			sent[e.Offset] = e.Start
		}
	}
	i, ok := pick(h, rng, func(e *history.Event) bool { return read(e) && !e.Linear && sent[e.Offset] > 0 })
	if ok {
		e := &h.Events[i]
		e.End = sent[e.Offset] - 1
		e.Start = min(e.Start, e.End)
	}
	return ok
}

func staleLinear(h *history.History, rng *rand.Rand) bool {
	told := map[uint64]int64{}
	for i := range h.Events {
		if e := &h.Events[i]; plain(e) {
			told[e.Offset] = e.End
		}
	}
	i, ok := pick(h, rng, func(e *history.Event) bool {
		at, known := told[e.Offset]
		return e.Linear && read(e) && known && at < e.Start
	})
	if ok {
		outOfRange(&h.Events[i])
	}
	return ok
}

// outOfRange makes e's record not there.
func outOfRange(e *history.Event) {
	e.Outcome, e.Lowest, e.Next, e.Offset, e.Sum, e.Time = history.OutOfRange, 0, e.Offset, 0, 0, 0
}

// behind is two records of one produce stream, one after the other.
func behind(h *history.History, rng *rand.Rand) (a, b int, ok bool) {
	b, ok = pick(h, rng, func(e *history.Event) bool {
		if !acked(e) || e.Stream == 0 {
			return false
		}
		for a = range h.Events {
			if was := &h.Events[a]; was == e {
				return false
			} else if acked(was) && was.Stream == e.Stream {
				return true
			}
		}
		return false
	})
	return a, b, ok
}

func reordered(h *history.History, rng *rand.Rand) bool {
	a, b, ok := behind(h, rng)
	if ok {
		swap(h, &h.Events[a], &h.Events[b])
	}
	return ok
}

func hole(h *history.History, rng *rand.Rand) bool {
	a, _, ok := behind(h, rng)
	if !ok {
		return false
	}
	// Nobody was told of its record; another one stands in its place, of somebody who
	// was told nothing either.
	e := &h.Events[a]
	other := history.Event{Op: history.Produce, Conn: e.Conn, End: history.Forever, Sum: e.Sum ^ 1}
	rewrite(h, e.Offset, history.Record{Sum: other.Sum, Time: 1})
	e.Outcome, e.End, e.Offset = history.Unknown, history.Forever, 0
	h.Events = append(h.Events, other)
	return true
}

// inside is a delivery that is neither the first nor the last of its stream.
func inside(h *history.History, rng *rand.Rand) (int, bool) {
	return pick(h, rng, func(e *history.Event) bool {
		before, after := false, false
		if e.Op != history.Deliver {
			return false
		}
		for i := range h.Events {
			if d := &h.Events[i]; d.Op == history.Deliver && d.Stream == e.Stream {
				before = before || d.Offset < e.Offset
				after = after || d.Offset > e.Offset
			}
		}
		return before && after
	})
}

func gap(h *history.History, rng *rand.Rand) bool {
	i, ok := inside(h, rng)
	if ok {
		h.Events = append(h.Events[:i], h.Events[i+1:]...)
	}
	return ok
}

func repetition(h *history.History, rng *rand.Rand) bool {
	i, ok := pick(h, rng, func(e *history.Event) bool { return e.Op == history.Deliver })
	if ok {
		h.Events = append(h.Events[:i+1], append([]history.Event{h.Events[i]}, h.Events[i+1:]...)...)
	}
	return ok
}

func changedValue(h *history.History, rng *rand.Rand) bool {
	i, ok := pick(h, rng, read)
	if ok {
		h.Events[i].Sum ^= 1
	}
	return ok
}

func changedTime(h *history.History, rng *rand.Rand) bool {
	i, ok := pick(h, rng, read)
	if ok {
		h.Events[i].Time++
	}
	return ok
}

func unseen(h *history.History, rng *rand.Rand) bool {
	i, ok := pick(h, rng, func(e *history.Event) bool { return e.Op == history.Ends && e.Outcome == history.OK })
	if ok {
		h.Events[i].Next = next(h) + 1
	}
	return ok
}

// answer is an event of a session about the end of the log, and one before it of the
// same session that proves more than nothing.
func answer(h *history.History, rng *rand.Rand, fits func(before, e *history.Event) bool) (before, i int, ok bool) {
	i, ok = pick(h, rng, func(e *history.Event) bool {
		session := h.Conns[e.Conn].Session
		if session == "" || e.Op != history.Ends || e.Outcome != history.OK {
			return false
		}
		for before = range h.Events {
			b := &h.Events[before]
			if b.End < e.Start && h.Conns[b.Conn].Session == session && fits(b, e) {
				return true
			}
		}
		return false
	})
	return before, i, ok
}

func endBeforeWrite(h *history.History, rng *rand.Rand) bool {
	b, i, ok := answer(h, rng, func(b, _ *history.Event) bool { return acked(b) })
	if ok {
		h.Events[i].Next = h.Events[b].Offset
	}
	return ok
}

func backBetweenProxies(h *history.History, rng *rand.Rand) bool {
	b, i, ok := answer(h, rng, func(b, e *history.Event) bool { return read(b) && b.Conn != e.Conn })
	if ok {
		h.Events[i].Next = h.Events[b].Offset
	}
	return ok
}

func writeOutOfRange(h *history.History, rng *rand.Rand) bool {
	type place struct {
		session string
		offset  uint64
	}
	wrote := map[place]int64{}
	for i := range h.Events {
		if e := &h.Events[i]; plain(e) {
			wrote[place{h.Conns[e.Conn].Session, e.Offset}] = e.End
		}
	}
	i, ok := pick(h, rng, func(e *history.Event) bool {
		session := h.Conns[e.Conn].Session
		at, its := wrote[place{session, e.Offset}]
		return e.Op == history.Consume && read(e) && !e.Linear && session != "" && its && at < e.Start
	})
	if ok {
		outOfRange(&h.Events[i])
	}
	return ok
}

func contradiction(h *history.History, rng *rand.Rand) bool {
	i, ok := pick(h, rng, func(e *history.Event) bool { return e.Op == history.Consume && read(e) })
	if ok {
		e := &h.Events[i]
		outOfRange(e)
		e.Next = e.Asked + 1
	}
	return ok
}

func nodeDiffers(h *history.History, rng *rand.Rand) bool {
	if len(h.Logs) < 2 {
		return false
	}
	l := &h.Logs[len(h.Logs)-1]
	l.Records[rng.IntN(len(l.Records))].Time++
	return true
}

func nodeShorter(h *history.History, _ *rand.Rand) bool {
	if len(h.Logs) < 2 {
		return false
	}
	l := &h.Logs[len(h.Logs)-1]
	l.Records = l.Records[:len(l.Records)-1]
	return true
}
