package main

import (
	"fmt"
	"slices"

	"github.com/logd-io/logd/pkg/commitlog"
)

// model is all that a log, or a store, should be. It is immutable; the calls of
// a workload derive one from another.
type model struct {
	start   commitlog.Start
	entries []commitlog.Entry   // from start.Index+1 on
	batches []commitlog.Applied // published, in offset order; the first may lie below the start
	visible uint64
	synced  uint64 // the offset index is durable up to here
	high    uint64 // the highest visible of this log, before any rewind
	commit  uint64

	// Of a store.
	keys   map[string]string
	checks []check // every checkpoint made in this log, rising; a store may have dropped some
}

type check struct {
	index, term, next uint64
	state             string
}

func (m *model) last() uint64 { return m.start.Index + uint64(len(m.entries)) }

func (m *model) entry(i uint64) (e commitlog.Entry, ok bool) {
	if i <= m.start.Index || i > m.last() {
		return e, false
	}
	return m.entries[i-m.start.Index-1], true
}

func (m *model) term(i uint64) uint64 {
	if i == m.start.Index {
		return m.start.Term
	}
	e, _ := m.entry(i)
	return e.Term
}

func (m *model) newest() (c check) {
	if n := len(m.checks); n > 0 {
		c = m.checks[n-1]
	}
	return c
}

func (m *model) clone() *model {
	c := *m
	c.entries, c.batches, c.checks = slices.Clip(m.entries), slices.Clip(m.batches), slices.Clip(m.checks)
	return &c
}

func (m *model) with(es []commitlog.Entry) *model {
	c := m.clone()
	c.entries = append(c.entries, es...)
	return c
}

// cut drops the entries from from on.
func (m *model) cut(from uint64) *model {
	c := m.clone()
	c.entries = c.entries[:from-m.start.Index-1]
	return c
}

// from moves the start up.
func (m *model) from(s commitlog.Start) *model {
	c := m.clone()
	c.entries = c.entries[s.Index-m.start.Index:]
	c.start = s
	c.commit = max(c.commit, s.Index)
	return c
}

// rewound drops what was published from the offset next on.
func (m *model) rewound(next uint64) *model {
	c := m.clone()
	for len(c.batches) > 0 && c.batches[len(c.batches)-1].FirstOffset >= next {
		c.batches = c.batches[:len(c.batches)-1]
	}
	c.visible, c.synced = next, next
	return c
}

func emptied(m *model, s commitlog.Start) *model {
	return &model{start: s, visible: s.Offset, synced: s.Offset, high: s.Offset, commit: s.Index, keys: m.keys}
}

// expect is what a crash may leave during a call: the log as it was before, as
// it would have been after, or, where neither emptied the other, any prefix
// between the two.
type expect struct {
	what          string
	before, after *model
	emptied       bool
	damaged       bool // a disk lied as well: what is missing is repaired from the model
}

func exactly(what string, m *model) expect { return expect{what: what, before: m, after: m} }

// step is an expectation and the operation of the filesystem from which on it
// holds.
type step struct {
	op int
	expect
}

// history is rising.
type history []step

func (h history) at(op int) (n int) {
	for n+1 < len(h) && h[n+1].op <= op {
		n++
	}
	return n
}

// longer is the side that has all entries there may be.
func (e *expect) longer() *model {
	if e.after.last() > e.before.last() {
		return e.after
	}
	return e.before
}

// match returns the model that a log with this start and last entry is held
// against, cut to it.
func (e *expect) match(start commitlog.Start, last uint64) (*model, error) {
	var side *model
	switch start {
	case e.after.start:
		side = e.after
	case e.before.start:
		side = e.before
	default:
		return nil, fmt.Errorf("it starts at %+v, which nobody set", start)
	}
	if e.emptied && e.before.start != e.after.start {
		if last != side.last() {
			return nil, fmt.Errorf("it ends at entry %d, not %d", last, side.last())
		}
		return side, nil
	}
	low, high := min(e.before.last(), e.after.last()), max(e.before.last(), e.after.last())
	if last < low {
		return nil, fmt.Errorf("it ends at entry %d: acknowledged ones up to %d are lost", last, low)
	}
	if last > high {
		return nil, fmt.Errorf("it ends at entry %d: those behind %d are invented", last, high)
	}
	m := e.longer()
	if start != m.start {
		if start.Index > m.start.Index {
			m = m.from(start)
		} else {
			m = e.before // SetStart changes nothing else
		}
	}
	if last < m.last() {
		m = m.cut(last + 1)
	}
	m = m.clone()
	m.commit = max(e.before.commit, e.after.commit)
	m.synced = max(min(e.before.synced, e.after.synced), start.Offset)
	m.high = max(e.before.high, e.after.high)
	if len(e.after.batches) > 0 && e.after.visible >= e.before.visible {
		m.batches = e.after.batches
	} else {
		m.batches = e.before.batches
	}
	return m, nil
}
