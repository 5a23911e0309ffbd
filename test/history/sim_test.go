package history_test

import (
	"fmt"
	"math/rand/v2"

	"github.com/logd-io/logd/test/history"
)

// simulated is the history of a few clients of a correct log in one process. Every
// operation takes effect at some moment between its start and its end; time goes on
// now and then, so that events meet. Some produces are told nothing or refused, some
// records are sent twice, some requests repeated, and reads that are not linearizable
// are of a log that lags, as far as their session lets it.
type simulated struct {
	rng   *rand.Rand
	h     *history.History
	now   int64
	log   []uint64
	keys  map[uint64]uint64 // request → offset
	sums  uint64
	floor []uint64 // by client, what its session knows
}

// pendingOp is what a client is in.
type pendingOp struct {
	event  int
	done   bool // it has taken effect
	offset uint64
	length uint64 // of the log, as a read saw it
}

func simulate(rng *rand.Rand, clients, ops int) *history.History {
	s := &simulated{rng: rng, h: &history.History{}, keys: map[uint64]uint64{}, floor: make([]uint64, clients)}
	for i := range clients {
		name := fmt.Sprint("client ", i)
		s.h.Conns = append(s.h.Conns, history.Who{Name: name, Session: name})
	}
	busy := make([]*pendingOp, clients)
	for left := ops; ; {
		s.now += int64(rng.IntN(2))
		c := rng.IntN(clients)
		switch op := busy[c]; {
		case op == nil && left > 0:
			left--
			busy[c] = s.begin(c)
		case op == nil:
			idle := true
			for _, b := range busy {
				idle = idle && b == nil
			}
			if idle {
				records := make([]history.Record, len(s.log))
				for i, sum := range s.log {
					records[i].Sum = sum
				}
				s.h.Logs = []history.Log{{Node: "a", Records: records}}
				return s.h
			}
		case !op.done:
			s.effect(c, op)
		default:
			s.end(c, op)
			busy[c] = nil
		}
	}
}

func (s *simulated) begin(c int) *pendingOp {
	e := history.Event{Conn: int32(c), Start: s.now, End: history.Forever}
	switch s.rng.IntN(6) {
	case 0, 1, 2:
		e.Op = history.Produce
		if s.sums == 0 || s.rng.IntN(8) > 0 {
			s.sums++
		}
		e.Sum = s.sums
		if s.rng.IntN(4) == 0 {
			e.Key = e.Sum
		}
	case 3, 4:
		e.Op = history.Consume
		e.Linear = s.rng.IntN(2) == 0
		e.Asked = uint64(s.rng.IntN(len(s.log) + 2))
	default:
		e.Op = history.Ends
	}
	s.h.Events = append(s.h.Events, e)
	return &pendingOp{event: len(s.h.Events) - 1}
}

func (s *simulated) effect(c int, op *pendingOp) {
	e := &s.h.Events[op.event]
	op.done = true
	if e.Op != history.Produce {
		op.length = uint64(len(s.log))
		if !e.Linear {
			op.length = s.floor[c] + s.rng.Uint64N(op.length-s.floor[c]+1)
		}
		return
	}
	switch s.rng.IntN(8) {
	case 0:
		e.Outcome = history.Refused
		return
	case 1: // unknown, and lost
		return
	}
	known, ok := s.keys[e.Key]
	if e.Key == 0 || !ok {
		known = uint64(len(s.log))
		s.log = append(s.log, e.Sum)
		s.keys[e.Key] = known
	}
	op.offset = known
	if s.rng.IntN(6) > 0 {
		e.Outcome = history.OK
	}
}

func (s *simulated) end(c int, op *pendingOp) {
	e := &s.h.Events[op.event]
	switch {
	case e.Op == history.Produce && e.Outcome == history.Unknown:
		return // it is never heard of again
	case e.Op == history.Produce:
		if e.Outcome == history.OK {
			e.Offset = op.offset
			s.floor[c] = max(s.floor[c], op.offset+1)
		}
	case e.Op == history.Ends:
		e.Outcome, e.Next = history.OK, op.length
		s.floor[c] = max(s.floor[c], op.length)
	case e.Asked < op.length:
		e.Outcome, e.Offset, e.Sum = history.OK, e.Asked, s.log[e.Asked]
		s.floor[c] = max(s.floor[c], e.Asked+1)
	default:
		e.Outcome, e.Next = history.OutOfRange, op.length
		s.floor[c] = max(s.floor[c], op.length)
	}
	e.End = s.now
}
