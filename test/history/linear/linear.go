// Package linear checks histories, or samples of them, with Porcupine: a search for
// an order of the operations that an append-only log could have done one after the
// other. It knows nothing of how package history checks, and takes exponential time
// where that takes linear; the two have to agree.
//
// The log of the model appends a record and says where, and reads the record at an
// offset or says where it ends. A read that is not linearizable may be of any moment
// before its answer, since all it is promised is that what it saw had been committed.
package linear

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/logd-io/logd/test/history"
)

// kind is what an operation does to the model.
type kind uint8

const (
	appends kind = iota // a record; told where
	unsure              // a record, and nobody was told where
	reads               // the record at an offset
	ends                // asks where the log ends
	never               // what no log does: one request at two offsets
)

type input struct {
	kind   kind
	offset uint64
	sum    uint64
}

// model is a log of the offsets from base on. Its states are slices of sums. What
// nobody was told the place of goes only where final, which is what is read in the
// end, has it: any other step leads nowhere, and there are too many of them.
func model(base uint64, final []history.Record) porcupine.Model {
	end := base + uint64(len(final))
	return porcupine.Model{
		Init: func() any { return []uint64(nil) },
		Step: func(state, in, _ any) (bool, any) {
			log, op := state.([]uint64), in.(input)
			next := base + uint64(len(log))
			switch op.kind {
			case appends:
				return op.offset == next, append(slices.Clip(log), op.sum)
			case unsure:
				if next == end {
					return true, log // beyond the window, or never
				}
				return next < end && final[next-base].Sum == op.sum, append(slices.Clip(log), op.sum)
			case reads:
				return op.offset >= base && op.offset < next && log[op.offset-base] == op.sum, log
			case ends:
				return op.offset == next, log
			}
			return false, log
		},
		Equal: func(a, b any) bool { return slices.Equal(a.([]uint64), b.([]uint64)) },
		Hash: func(state any) uint64 {
			h := uint64(14695981039346656037)
			for _, sum := range state.([]uint64) {
				h = (h ^ sum) * 1099511628211
			}
			return h
		},
	}
}

// Check looks for an order of what h says about the offsets [from, to) of the log:
// the appends to them, the reads of them, the answers that the log ends at one of
// them or at to, and what the log holds there in the end. That is a part of h that
// is linearizable by itself when h is. It answers also how many operations it took.
func Check(h *history.History, from, to uint64, limit time.Duration) (porcupine.CheckResult, int) {
	ops := operations(h, from, to)
	log := &h.Logs[0]
	return porcupine.CheckOperationsTimeout(model(from, log.Records[from-log.Base:to-log.Base]), ops, limit), len(ops)
}

// forever is the return of what was never answered.
const forever = int64(history.Forever)

func operations(h *history.History, from, to uint64) []porcupine.Operation {
	log := &h.Logs[0]
	within := map[uint64]int{} // how often
	for off := from; off < to; off++ {
		within[log.Records[off-log.Base].Sum]++
	}
	var ops []porcupine.Operation
	add := func(in input, call, ret int64) {
		ops = append(ops, porcupine.Operation{Input: in, Call: call, Return: ret})
	}
	type request struct{ key, sum uint64 }
	byKey := map[request]int{} // place in ops
	last := int64(0)
	for i := range h.Events {
		e := &h.Events[i]
		last = max(last, e.Start)
		if e.End != forever {
			last = max(last, e.End)
		}
		past := int64(-1) // before everything
		if e.Linear {
			past = e.Start
		}
		switch {
		case e.Op == history.Produce && e.Outcome != history.Refused:
			in, ret := input{kind: unsure, sum: e.Sum}, forever
			if e.Outcome == history.OK {
				in, ret = input{kind: appends, sum: e.Sum, offset: e.Offset}, e.End
				if e.Offset < from || e.Offset >= to && to < log.Next() {
					continue
				}
			} else if within[e.Sum] == 0 {
				continue
			}
			if e.Key != 0 {
				k := request{e.Key, e.Sum}
				if at, ok := byKey[k]; ok {
					if was := ops[at].Input.(input); was.kind == appends && in.kind == appends && was.offset != in.offset {
						in.kind = never
						add(in, e.Start, ret)
						continue
					}
					ops[at] = merge(ops[at], in, e.Start, ret)
					continue
				}
				byKey[k] = len(ops)
			}
			add(in, e.Start, ret)
		case (e.Op == history.Consume || e.Op == history.Deliver) && e.Outcome == history.OK:
			if e.Offset >= from && (e.Offset < to || to == log.Next()) {
				add(input{kind: reads, offset: e.Offset, sum: e.Sum}, past, e.End)
			}
		case e.Outcome == history.OutOfRange || e.Outcome == history.PositionUnknown || e.Op == history.Ends && e.Outcome == history.OK:
			if e.Next >= from && (e.Next <= to || to == log.Next()) {
				add(input{kind: ends, offset: e.Next}, past, e.End)
			}
		}
	}
	ops = possible(ops, within)
	// What is there in the end, after everything but what never ends.
	for off := from; off < to; off++ {
		add(input{kind: reads, offset: off, sum: log.Records[off-log.Base].Sum}, last+1, last+1)
	}
	add(input{kind: ends, offset: to}, last+1, last+1)
	return ops
}

// possible leaves out unsure appends for which there is no record: of those with the
// same content the first to be sent can stand for any of the others.
func possible(ops []porcupine.Operation, within map[uint64]int) []porcupine.Operation {
	slices.SortStableFunc(ops, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	return slices.DeleteFunc(ops, func(op porcupine.Operation) bool {
		in := op.Input.(input)
		if in.kind != unsure {
			return false
		}
		within[in.sum]--
		return within[in.sum] < 0
	})
}

// merge is one operation of two tries of one request.
func merge(op porcupine.Operation, in input, call, ret int64) porcupine.Operation {
	op.Call, op.Return = min(op.Call, call), min(op.Return, ret)
	if in.kind == appends {
		op.Input = in
	}
	return op
}

// Sampled is what Sample looked at.
type Sampled struct {
	Windows, Ops int
	Unknown      int // windows that were given up for time
}

// Sample checks windows of width offsets of h's log at random places, and fails on
// the first that has no order.
func Sample(h *history.History, rng *rand.Rand, windows int, width uint64, limit time.Duration) (s Sampled, err error) {
	log := &h.Logs[0]
	if n := uint64(len(log.Records)); n < width {
		width = n
	}
	for range windows {
		from := log.Base + rng.Uint64N(log.Next()-log.Base-width+1)
		got, ops := Check(h, from, from+width, limit)
		s.Windows++
		s.Ops += ops
		switch got {
		case porcupine.Unknown:
			s.Unknown++
		case porcupine.Illegal:
			return s, fmt.Errorf("what is known of the offsets [%d, %d) has no order", from, from+width)
		}
	}
	return s, nil
}
