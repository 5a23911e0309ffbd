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
	// By place: the earliest moment, and the event whose start that is; and the same of
	// sending alone, which accuses first.
	all, sent := newMoments(len(c.sent)), newMoments(len(c.sent))
	for place := range c.sent {
		all.note(place, ended[place], by[place])
		all.note(place, c.sent[place], c.owner[place])
		sent.note(place, c.sent[place], c.owner[place])
	}

	told := map[int32]bool{} // one start that is too late is found by all that comes after it
	for i := range c.h.Events {
		e := &c.h.Events[i]
		level := c.level(e.knows())
		if level == 0 || level > len(c.sent) {
			continue
		}
		w, late := all.after(level-1, e.End)
		if by, is := sent.after(level-1, e.End); is {
			w = by
		}
		if !late || told[w] {
			continue
		}
		told[w] = true
		if blamed := &c.h.Events[w]; blamed.Op != Produce {
			c.broken(Linearizable, []int{i, int(w)}, "it was told that the log ends at %d, after %d was known to be in it", blamed.Next, e.knows()-1)
		} else {
			c.broken(RealTime, []int{i, int(w)}, "%d was known to be in the log before a record at or before it was sent", e.knows()-1)
		}
	}
}

// moments has, by place in the log, the latest start that is known of there and of all
// places before, and the event whose start that is.
type moments struct {
	at   []int64
	by   []int32
	most int64
	who  int32
}

func newMoments(places int) *moments {
	return &moments{at: make([]int64, places), by: make([]int32, places), most: math.MinInt64, who: nobody}
}

// note is called for the places in their order, as often as there are starts.
func (m *moments) note(place int, start int64, event int32) {
	if start > m.most {
		m.most, m.who = start, event
	}
	m.at[place], m.by[place] = m.most, m.who
}

// after answers the event that started after end, if there is one.
func (m *moments) after(place int, end int64) (event int32, is bool) {
	return m.by[place], end < m.at[place]
}
