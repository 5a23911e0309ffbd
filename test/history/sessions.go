package history

import (
	"cmp"
	"math"
	"slices"
)

// known is what a session knows to be longer than the length at hand, and since when.
type known struct {
	wrote, read     int64 // the earliest end of a write's acknowledgement, and of a read
	wroteBy, readBy int32
}

// sessions checks that where the log ends nobody is told less than his session knew
// when he asked. Lengths are walked downwards: by the time an answer is looked at,
// its session holds the earliest end of all that proves more.
func (c *check) sessions() {
	number := map[string]int{"": nobody}
	session := make([]int, len(c.h.Conns))
	for i, who := range c.h.Conns {
		n, ok := number[who.Session]
		if !ok {
			n = len(number) - 1
			number[who.Session] = n
		}
		session[i] = n
	}
	c.Sessions = len(number) - 1
	state := make([]known, c.Sessions)
	for i := range state {
		state[i] = known{wrote: math.MaxInt64, read: math.MaxInt64}
	}

	order, begin := c.byLevel(func(e *Event) bool { return e.knows() > 0 || e.answersEnd() })
	for level := len(begin) - 2; level >= 0; level-- {
		bucket := order[begin[level]:begin[level+1]]
		if level == 0 || level == len(begin)-2 { // those hold many lengths
			slices.SortFunc(bucket, func(a, b int32) int {
				return cmp.Compare(c.h.Events[b].knows(), c.h.Events[a].knows())
			})
		}
		for len(bucket) > 0 {
			n := 1
			for n < len(bucket) && c.h.Events[bucket[n]].knows() == c.h.Events[bucket[0]].knows() {
				n++
			}
			c.oneLength(state, session, bucket[:n])
			bucket = bucket[n:]
		}
	}
}

// oneLength looks at the events that prove one length of log, when all that prove
// more are in state.
func (c *check) oneLength(state []known, session []int, events []int32) {
	for _, i := range events {
		e := &c.h.Events[i]
		n := session[e.Conn]
		if n == nobody || !e.answersEnd() {
			continue
		}
		s := &state[n]
		if s.wrote < e.Start {
			c.broken(ReadYourWrites, []int{int(s.wroteBy), int(i)}, "it was told that the log ends at %d", e.Next)
		}
		if s.read < e.Start {
			c.broken(MonotonicReads, []int{int(s.readBy), int(i)}, "it was told that the log ends at %d", e.Next)
		}
	}
	for _, i := range events {
		e := &c.h.Events[i]
		n := session[e.Conn]
		if n == nobody || e.knows() == 0 {
			continue
		}
		s := &state[n]
		if e.Op == Produce && e.End < s.wrote {
			s.wrote, s.wroteBy = e.End, i
		}
		if e.Op != Produce && e.End < s.read {
			s.read, s.readBy = e.End, i
		}
	}
}

// byLevel is a counting sort of the events that want takes by the length they prove:
// those of level l are order[begin[l]:begin[l+1]].
func (c *check) byLevel(want func(*Event) bool) (order []int32, begin []int) {
	begin = make([]int, len(c.log.Records)+3)
	for i := range c.h.Events {
		if e := &c.h.Events[i]; want(e) {
			begin[c.level(e.knows())+1]++
		}
	}
	for l := 1; l < len(begin); l++ {
		begin[l] += begin[l-1]
	}
	order = make([]int32, begin[len(begin)-1])
	at := append([]int(nil), begin...)
	for i := range c.h.Events {
		if e := &c.h.Events[i]; want(e) {
			l := c.level(e.knows())
			order[at[l]] = int32(i)
			at[l]++
		}
	}
	return order, begin
}
