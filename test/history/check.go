package history

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Rule is a promise that a history can contradict.
type Rule string

// The rules, as the package comment explains them.
const (
	Acknowledged   Rule = "acknowledged"
	Once           Rule = "once"
	SameOffset     Rule = "same-offset"
	NotSent        Rule = "not-sent"
	Stranger       Rule = "stranger"
	RealTime       Rule = "real-time"
	Linearizable   Rule = "linearizable"
	Producer       Rule = "producer"
	Stream         Rule = "stream"
	Content        Rule = "content"
	Unseen         Rule = "unseen"
	ReadYourWrites Rule = "read-your-writes"
	MonotonicReads Rule = "monotonic-reads"
	Range          Rule = "range"
	Nodes          Rule = "nodes"
)

// Violation is what in a history contradicts a rule.
type Violation struct {
	Rule   Rule
	Why    string
	Events []int // indexes of History.Events: the ones involved
}

// Report is what a check found, and how much it looked at.
type Report struct {
	h *History
	// Violations holds the first of each rule; Count all of them.
	Violations []Violation
	Count      map[Rule]int

	Records    int // in the log
	Acked      int // produces acknowledged
	Unknown    int // produces of unknown outcome
	Refused    int // produces that certainly had no effect
	Reads      int // records read one at a time
	Linear     int // of these, and of answers about the end, linearizable
	EndAnswers int // answers that say where the log ends
	Streams    int // ConsumeStreams
	Delivered  int // records they delivered
	Sessions   int
}

// mostShown is how many violations of one rule a report keeps: they come in crowds.
const mostShown = 5

func (r *Report) broken(rule Rule, events []int, format string, args ...any) {
	r.Count[rule]++
	if r.Count[rule] <= mostShown {
		r.Violations = append(r.Violations, Violation{Rule: rule, Why: fmt.Sprintf(format, args...), Events: events})
	}
}

// Err is nil when nothing was found, and tells all that is kept otherwise.
func (r *Report) Err() error {
	if len(r.Violations) == 0 {
		return nil
	}
	var b strings.Builder
	r.print(&b)
	return errors.New(strings.TrimSuffix(b.String(), "\n"))
}

// Print writes the figures and the violations, with the events of each.
func (r *Report) Print(w io.Writer) error {
	_, err := fmt.Fprintln(w, r)
	if err == nil && len(r.Violations) > 0 {
		var b strings.Builder
		r.print(&b)
		_, err = io.WriteString(w, b.String())
	}
	return err
}

func (r *Report) print(b *strings.Builder) {
	for _, v := range r.Violations {
		fmt.Fprintf(b, "%s: %s\n", v.Rule, v.Why)
		for _, i := range v.Events {
			fmt.Fprintf(b, "    %s\n", r.h.Format(&r.h.Events[i]))
		}
	}
	for rule, n := range r.Count {
		if n > mostShown {
			fmt.Fprintf(b, "%s: %d in all\n", rule, n)
		}
	}
}

func (r *Report) String() string {
	n := 0
	for _, c := range r.Count {
		n += c
	}
	return fmt.Sprintf("%d records in the log (%d acknowledged, %d unknown, %d refused), %d read singly and %d by %d streams, %d answers about the end, %d linearizable, %d sessions: %d violations",
		r.Records, r.Acked, r.Unknown, r.Refused, r.Reads, r.Delivered, r.Streams, r.EndAnswers, r.Linear, r.Sessions, n)
}

// check is one run over a history.
type check struct {
	*Report
	h    *History
	log  *Log
	next uint64 // log.Next()

	owner []int32 // by place in the log: the produce its record came from, or nobody
	sent  []int64 // by place: when that was sent first
	// stands is where the records of unacknowledged produces are, by event, as far
	// as their content says it: those that share it with another are left out.
	stands map[int32]uint64
	shared map[int32]bool // unacknowledged, and with the content of another
}

// nobody stands for an event that there is not.
const nobody = -1

// Check holds everything in h against everything else. It takes time and memory in
// proportion to the number of events and records.
func Check(h *History) *Report {
	r := &Report{h: h, Count: map[Rule]int{}}
	c := &check{Report: r, h: h, log: &Log{}, stands: map[int32]uint64{}, shared: map[int32]bool{}}
	if len(h.Logs) > 0 {
		c.log = &h.Logs[0]
	}
	c.next, r.Records = c.log.Next(), len(c.log.Records)
	c.count()
	c.nodes()
	c.claim()
	c.ranges()
	c.contents()
	c.order()
	c.streams()
	c.producers()
	c.sessions()
	return r
}

func (c *check) count() {
	for i := range c.h.Events {
		e := &c.h.Events[i]
		switch {
		case e.Op == Produce && e.Outcome == OK:
			c.Acked++
		case e.Op == Produce && e.Outcome == Refused:
			c.Refused++
		case e.Op == Produce:
			c.Unknown++
		case e.Op == Deliver:
			c.Delivered++
		case e.Op == Open:
			c.Streams++
		case e.Op == Consume && e.Outcome == OK:
			c.Reads++
		}
		if e.answersEnd() {
			c.EndAnswers++
		}
		if e.Linear && (e.Outcome == OK || e.answersEnd()) {
			c.Linear++
		}
	}
}

// nodes compares every node's log with the first.
func (c *check) nodes() {
	if len(c.h.Logs) == 0 {
		return
	}
	for _, l := range c.h.Logs[1:] {
		if l.Next() != c.next {
			c.broken(Nodes, nil, "%s ends at %d and %s at %d", c.log.Node, c.next, l.Node, l.Next())
		}
		for at := max(l.Base, c.log.Base); at < min(l.Next(), c.next); at++ {
			if a, b := c.log.Records[at-c.log.Base], l.Records[at-l.Base]; a != b {
				c.broken(Nodes, nil, "at %d %s has %016x of time %d and %s %016x of time %d", at, c.log.Node, a.Sum, a.Time, l.Node, b.Sum, b.Time)
			}
		}
	}
}

// at is the record at off, when the log has it.
func (c *check) at(off uint64) (r Record, place int, ok bool) {
	if off < c.log.Base || off >= c.next {
		return Record{}, 0, false
	}
	place = int(off - c.log.Base)
	return c.log.Records[place], place, true
}

// level is the bucket of a length of log: 0 for all that ends at or before the base,
// and the last one for all that is longer than the log.
func (c *check) level(length uint64) int {
	if length < c.log.Base {
		return 0
	}
	return int(min(length-c.log.Base, uint64(len(c.log.Records))+1))
}

// ranges looks at single answers, and at what they say there is.
func (c *check) ranges() {
	for i := range c.h.Events {
		e := &c.h.Events[i]
		if k := e.knows(); k > c.next && e.Op != Produce {
			c.broken(Unseen, []int{i}, "the log was said to go to %d, and ends at %d", k, c.next)
		}
		switch {
		case e.Op == Consume && e.Outcome == OK && e.Offset != e.Asked:
			c.broken(Range, []int{i}, "the record at %d for the one at %d", e.Offset, e.Asked)
		case e.Outcome == OutOfRange && e.Asked >= e.Lowest && (e.Asked < e.Next || e.Op == Open && e.Asked == e.Next):
			c.broken(Range, []int{i}, "%d was refused and is there, or next", e.Asked)
		case e.answersEnd() && e.Outcome != PositionUnknown && (e.Lowest > e.Next || e.Lowest > c.log.Base && len(c.h.Logs) > 0):
			c.broken(Range, []int{i}, "the log was said to begin at %d, and begins at %d", e.Lowest, c.log.Base)
		}
	}
}

// contents holds every record read against the log, and where the log has none
// against the first reader.
func (c *check) contents() {
	beyond := map[uint64]int{} // offset → first reader
	first := make([]int32, len(c.log.Records))
	for i := range c.h.Events {
		e := &c.h.Events[i]
		if e.Op != Consume && e.Op != Deliver || e.Outcome != OK {
			continue
		}
		rec, place, ok := c.at(e.Offset)
		if !ok {
			switch j, seen := beyond[e.Offset]; {
			case !seen:
				beyond[e.Offset] = i
			case c.h.Events[j].Sum != e.Sum || c.h.Events[j].Time != e.Time:
				c.broken(Content, []int{j, i}, "two readers saw two records at %d", e.Offset)
			}
			continue
		}
		if rec.Sum == e.Sum && rec.Time == e.Time {
			if first[place] == 0 {
				first[place] = int32(i) + 1
			}
			continue
		}
		events := []int{i}
		if j := first[place]; j != 0 {
			events = append(events, int(j)-1)
		}
		if j := c.owner[place]; j != nobody {
			events = append(events, int(j))
		}
		c.broken(Content, events, "at %d the log has %016x of time %d, and %016x of time %d was read", e.Offset, rec.Sum, rec.Time, e.Sum, e.Time)
	}
}
