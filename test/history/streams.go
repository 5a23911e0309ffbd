package history

// streams checks that every ConsumeStream delivered exactly the offsets from the
// asked one on.
func (c *check) streams() {
	type state struct {
		open int32
		due  uint64
		set  bool
	}
	var all []state // by stream
	for i := range c.h.Events {
		e := &c.h.Events[i]
		if e.Op != Open && e.Op != Deliver {
			continue
		}
		for int(e.Stream) >= len(all) {
			all = append(all, state{})
		}
		s := &all[e.Stream]
		if e.Op == Open {
			*s = state{open: int32(i), due: e.Asked, set: true}
			continue
		}
		if !s.set {
			c.broken(Stream, []int{i}, "it delivered before it was opened")
			*s = state{open: int32(i), due: e.Offset, set: true}
		}
		if e.Offset != s.due {
			what := "left out"
			if e.Offset < s.due {
				what = "went back"
			}
			c.broken(Stream, []int{int(s.open), i}, "it %s: %d was due", what, s.due)
		}
		s.due = e.Offset + 1
	}
}

// producers checks that what a ProduceStream sent stands in the log in its order,
// and is all that it sent up to some record.
func (c *check) producers() {
	type state struct {
		last   int32 // the latest of it that stands in the log
		at     uint64
		any    bool
		absent int32 // the first that does not, plus one
		blind  bool  // content is shared with other sends: what is not acknowledged is not looked at
	}
	var all []state // by stream
	for i := range c.h.Events {
		e := &c.h.Events[i]
		if e.Op != Produce || e.Stream == 0 {
			continue
		}
		for int(e.Stream) >= len(all) {
			all = append(all, state{})
		}
		s := &all[e.Stream]
		at, there := e.Offset, e.Outcome == OK
		if !there {
			if c.shared[int32(i)] {
				s.blind = true
				continue
			}
			at, there = c.stands[int32(i)]
		}
		if !there {
			if s.absent == 0 {
				s.absent = int32(i) + 1
			}
			continue
		}
		if s.absent != 0 && !s.blind {
			c.broken(Producer, []int{int(s.absent) - 1, i}, "of one stream the first is not in the log, and the later one is at %d", at)
			s.absent = 0
		}
		if s.any && at <= s.at {
			c.broken(Producer, []int{int(s.last), i}, "of one stream the later one is at %d, and the one before it at %d", at, s.at)
		}
		s.last, s.at, s.any = int32(i), at, true
	}
}
