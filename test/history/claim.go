package history

import (
	"cmp"
	"math"
	"slices"
)

// send is one record on its way: one produce, or all of one request id. What was
// refused is none.
type send struct {
	sum    uint64
	time   int64
	first  int32 // the earliest try
	start  int64 // when that began
	ack    int32 // the first acknowledgement, or nobody
	placed bool  // it was acknowledged, or a record was found to be its
}

// claim finds out which send each record of the log came from.
func (c *check) claim() {
	c.owner = make([]int32, len(c.log.Records))
	c.sent = make([]int64, len(c.log.Records))
	for i := range c.owner {
		c.owner[i], c.sent[i] = nobody, math.MinInt64
	}
	keyed, waiting := c.acknowledged()
	c.requests(keyed, &waiting)
	c.rest(waiting)
}

// acknowledged gives away what was acknowledged to sends without a request id. It
// returns the produces that have one, and the sends without an acknowledgement.
func (c *check) acknowledged() (keyed []int32, waiting []send) {
	var wrong []int32
	for i := range c.h.Events {
		e := &c.h.Events[i]
		switch {
		case e.Op != Produce || e.Outcome == Refused:
		case e.Key != 0:
			keyed = append(keyed, int32(i))
		case e.Outcome != OK:
			waiting = append(waiting, send{sum: e.Sum, time: e.Time, first: int32(i), start: e.Start, ack: nobody})
		case !c.take(int32(i), e.Start):
			wrong = append(wrong, int32(i))
		}
	}
	for _, i := range wrong {
		c.misplaced(i)
	}
	return keyed, waiting
}

// take gives the record at the acknowledged offset to produce i, if it is its.
func (c *check) take(i int32, start int64) bool {
	e := &c.h.Events[i]
	rec, place, ok := c.at(e.Offset)
	if !ok {
		return e.Offset < c.log.Base // it was there once: nothing can be said
	}
	if c.owner[place] != nobody || !e.matches(rec) {
		return false
	}
	c.owner[place], c.sent[place] = i, start
	return true
}

// matches says whether rec can be what e sent.
func (e *Event) matches(rec Record) bool {
	return e.Sum == rec.Sum && (e.Time == 0 || e.Time == rec.Time)
}

// misplaced says what is wrong with an acknowledgement whose record is not its.
func (c *check) misplaced(i int32) {
	e := &c.h.Events[i]
	_, place, ok := c.at(e.Offset)
	switch {
	case !ok:
		c.broken(Acknowledged, []int{int(i)}, "acknowledged at %d, and the log ends at %d", e.Offset, c.next)
	case c.owner[place] != nobody:
		c.broken(SameOffset, []int{int(c.owner[place]), int(i)}, "%d was acknowledged to two sends", e.Offset)
	default:
		c.broken(Acknowledged, []int{int(i)}, "acknowledged at %d, where the log has %016x", e.Offset, c.log.Records[place].Sum)
	}
}

// requests makes one send of the tries of each request id, and gives it what was
// acknowledged to any of them.
func (c *check) requests(keyed []int32, waiting *[]send) {
	type request struct{ key, sum uint64 }
	byKey := make(map[request]int, len(keyed))
	var sends []send
	for _, i := range keyed {
		e := &c.h.Events[i]
		k := request{e.Key, e.Sum}
		at, ok := byKey[k]
		if !ok {
			at = len(sends)
			byKey[k] = at
			sends = append(sends, send{sum: e.Sum, time: e.Time, first: i, start: e.Start, ack: nobody})
		}
		s := &sends[at]
		if e.Start < s.start {
			s.first, s.start = i, e.Start
		}
		if e.Outcome != OK {
			continue
		}
		switch {
		case s.ack == nobody || e.End < c.h.Events[s.ack].End && e.Offset == c.h.Events[s.ack].Offset:
			s.ack = i
		case e.Offset != c.h.Events[s.ack].Offset:
			c.broken(Once, []int{int(s.ack), int(i)}, "one request was acknowledged at %d and at %d", c.h.Events[s.ack].Offset, e.Offset)
		}
	}
	for _, s := range sends {
		if s.ack == nobody {
			*waiting = append(*waiting, s)
		} else if !c.take(s.ack, s.start) {
			c.misplaced(s.ack)
		}
	}
}

// rest gives the records that nobody was acknowledged to the sends with an unknown
// outcome: of those with the same content, the earlier record to the earlier send,
// which contradicts real time only when every other way does.
func (c *check) rest(waiting []send) {
	bySum := map[uint64][]*send{}
	for i := range waiting {
		s := &waiting[i]
		bySum[s.sum] = append(bySum[s.sum], s)
	}
	for _, same := range bySum {
		slices.SortFunc(same, func(a, b *send) int { return cmp.Compare(a.start, b.start) })
		for _, s := range same {
			if len(same) > 1 {
				c.shared[s.first] = true
			}
		}
	}
	var orphans []int
	for place, rec := range c.log.Records {
		if c.owner[place] != nobody {
			continue
		}
		found := false
		same := bySum[rec.Sum]
		for len(same) > 0 && same[0].placed {
			same = same[1:]
		}
		bySum[rec.Sum] = same
		for _, s := range same {
			if !s.placed && (s.time == 0 || s.time == rec.Time) {
				s.placed, found = true, true
				c.owner[place], c.sent[place] = s.first, s.start
				c.stands[s.first] = c.log.Base + uint64(place)
				break
			}
		}
		if !found {
			orphans = append(orphans, place)
		}
	}
	c.orphans(orphans)
}

// orphans says what is wrong with records that no send is left for.
func (c *check) orphans(places []int) {
	if len(places) == 0 {
		return
	}
	whose := make(map[uint64]int32, len(places))
	for _, place := range places {
		whose[c.log.Records[place].Sum] = nobody
	}
	for i := range c.h.Events {
		e := &c.h.Events[i]
		if e.Op != Produce {
			continue
		}
		if was, ok := whose[e.Sum]; ok && (was == nobody || e.Outcome != Refused) {
			whose[e.Sum] = int32(i)
		}
	}
	for _, place := range places {
		off := c.log.Base + uint64(place)
		switch i := whose[c.log.Records[place].Sum]; {
		case i == nobody:
			c.broken(Stranger, nil, "the record at %d, %016x, was sent by nobody", off, c.log.Records[place].Sum)
		case c.h.Events[i].Outcome == Refused:
			c.broken(NotSent, []int{int(i)}, "it was refused for certain, and is in the log at %d", off)
		default:
			c.broken(Once, []int{int(i)}, "it is in the log at %d, once more than it was sent", off)
		}
	}
}
