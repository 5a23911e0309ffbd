package history

import "math"

// order checks real time. Appends happen in the order of their offsets, so each has
// an earliest moment: the latest start of it and of all before it, linearizable
// answers that the log ends between them included. A history of appends and reads is
// linearizable exactly when nothing that proves an append to have happened ended
// before that append's earliest moment.
func (c *check) order() {
	// By level: the latest start of a linearizable answer that the log ends there.
	ended, by := make([]int64, len(c.sent)+2), make([]int32, len(c.sent)+2)
	for i := range ended {
		ended[i], by[i] = math.MinInt64, nobody
	}
	for i := range c.h.Events {
		e := &c.h.Events[i]
		if e.Linear && e.answersEnd() {
			if at := c.level(e.Next); e.Start > ended[at] {
				ended[at], by[at] = e.Start, int32(i)
			}
		}
	}
	// By place: the earliest moment, and the event whose start that is.
	earliest, latest := make([]int64, len(c.sent)), make([]int32, len(c.sent))
	most, who := int64(math.MinInt64), int32(nobody)
	for place := range c.sent {
		if ended[place] > most {
			most, who = ended[place], by[place]
		}
		if c.sent[place] > most {
			most, who = c.sent[place], c.owner[place]
		}
		earliest[place], latest[place] = most, who
	}

	told := map[int32]bool{} // one start that is too late is found by all that comes after it
	for i := range c.h.Events {
		e := &c.h.Events[i]
		level := c.level(e.knows())
		if level == 0 || level > len(earliest) || e.End >= earliest[level-1] {
			continue
		}
		w := latest[level-1]
		if told[w] {
			continue
		}
		told[w] = true
		if late := &c.h.Events[w]; late.Op != Produce {
			c.broken(Linearizable, []int{i, int(w)}, "it was told that the log ends at %d, after %d was known to be in it", late.Next, e.knows()-1)
		} else {
			c.broken(RealTime, []int{i, int(w)}, "%d was known to be in the log before a record at or before it was sent", e.knows()-1)
		}
	}
}
