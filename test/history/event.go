package history

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"time"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
)

// Op is what an event is about.
type Op uint8

// The operations.
const (
	Produce Op = iota + 1 // one record was sent, alone or on a ProduceStream
	Consume               // the record at one offset was asked for
	Open                  // a ConsumeStream was asked for; it ends with the stream
	Deliver               // a ConsumeStream delivered a record
	Ends                  // GetOffsets
)

// Outcome is what became of it.
type Outcome uint8

// The outcomes.
const (
	Unknown         Outcome = iota // no answer, or one that leaves it open
	OK                             // acknowledged, read, told
	Refused                        // it certainly had no effect, and never will
	OutOfRange                     // the log was said to be [Lowest, Next)
	PositionUnknown                // the log was said to end at Next, before the session's position
)

// Forever is the End of what was never answered.
const Forever = math.MaxInt64

// Event is one thing a client did, and what it was told. Times are nanoseconds
// since the recording began.
type Event struct {
	Op      Op
	Outcome Outcome
	Linear  bool   // a linearizable read
	Conn    int32  // index in History.Conns
	Stream  int32  // the ProduceStream or ConsumeStream it is of, from 1; 0: none
	Start   int64  // before the request can have been sent
	End     int64  // after the answer had come
	Asked   uint64 // Consume, Open: the offset asked for
	Offset  uint64 // of the record, when OK
	Lowest  uint64 // Ends, OutOfRange
	Next    uint64 // Ends, OutOfRange, PositionUnknown
	Sum     uint64 // Produce, Consume, Deliver: the record's Sum
	Time    int64  // its timestamp; 0 in a Produce that leaves it to the log
	Key     uint64 // Produce: of principal and request id; 0: it had none
}

// knows is the length of log that e proves to exist by its end; 0 when it proves
// nothing.
func (e *Event) knows() uint64 {
	switch {
	case e.Outcome == OutOfRange || e.Outcome == PositionUnknown || e.Outcome == OK && e.Op == Ends:
		return e.Next
	case e.Outcome == OK && e.Op != Open:
		return e.Offset + 1
	}
	return 0
}

// answersEnd says whether e told its client that the log ends at Next.
func (e *Event) answersEnd() bool {
	return e.Op == Ends && e.Outcome == OK || e.Outcome == OutOfRange || e.Outcome == PositionUnknown
}

// Who is who was connected.
type Who struct {
	Name      string `json:"name"`
	Session   string `json:"session,omitempty"`   // empty: nothing is promised to it as a session
	Principal string `json:"principal,omitempty"` // whose request ids it sends
}

// Record is a record as it is in a log.
type Record struct {
	Sum  uint64
	Time int64
}

// Log is what a node holds at the end: the records from offset Base on.
type Log struct {
	Node    string
	Base    uint64
	Records []Record
}

// Next is the offset after the last record.
func (l *Log) Next() uint64 { return l.Base + uint64(len(l.Records)) }

// Add appends what was read from the node, in order.
func (l *Log) Add(rec *logv1.Record) error {
	if len(l.Records) == 0 {
		l.Base = rec.GetOffset()
	}
	if rec.GetOffset() != l.Next() {
		return fmt.Errorf("%s: offset %d where %d is due", l.Node, rec.GetOffset(), l.Next())
	}
	l.Records = append(l.Records, Record{Sum: Sum(rec), Time: rec.GetTimestamp()})
	return nil
}

// History is what was recorded. The events of one stream are in the order in which
// they happened; otherwise the order means nothing. The first log is the one that
// clients are held against.
type History struct {
	Conns  []Who
	Events []Event
	Logs   []Log
}

// Clone is a copy that shares nothing with h.
func (h *History) Clone() *History {
	c := &History{
		Conns:  append([]Who(nil), h.Conns...),
		Events: append([]Event(nil), h.Events...),
	}
	for _, l := range h.Logs {
		l.Records = append([]Record(nil), l.Records...)
		c.Logs = append(c.Logs, l)
	}
	return c
}

// Sum stands for all of a record that a client decides: value, key and headers, by
// FNV-1a.
func Sum(rec *logv1.Record) uint64 {
	h := fnv.New64a()
	var n [8]byte
	part := func(b []byte) {
		binary.LittleEndian.PutUint64(n[:], uint64(len(b)))
		_, _ = h.Write(n[:]) // it never fails
		_, _ = h.Write(b)
	}
	part(rec.GetValue())
	part(rec.GetKey())
	for _, f := range rec.GetHeaders() {
		part([]byte(f.GetKey()))
		part(f.GetValue())
	}
	return h.Sum64()
}

var (
	opNames      = [...]string{Produce: "produce", Consume: "consume", Open: "open", Deliver: "deliver", Ends: "ends"}
	outcomeNames = [...]string{Unknown: "unknown", OK: "ok", Refused: "refused", OutOfRange: "out-of-range", PositionUnknown: "position-unknown"}
)

func (o Op) String() string      { return opNames[o] }
func (o Outcome) String() string { return outcomeNames[o] }

// Format is an event as a line for people.
func (h *History) Format(e *Event) string {
	who := Who{Name: "?"}
	if int(e.Conn) < len(h.Conns) {
		who = h.Conns[e.Conn]
	}
	s := who.Name
	if who.Session != "" && who.Session != who.Name {
		s += " (session " + who.Session + ")"
	}
	s += ": " + e.Op.String()
	if e.Linear {
		s += " linearizable"
	}
	if e.Op == Consume || e.Op == Open {
		s += fmt.Sprintf(" at %d", e.Asked)
	}
	switch {
	case e.Outcome != OK && e.Op == Produce:
		s += fmt.Sprintf(" of %016x → %s", e.Sum, e.Outcome)
	case e.answersEnd():
		s += fmt.Sprintf(" → %s [%d, %d)", e.Outcome, e.Lowest, e.Next)
	case e.Outcome == OK && e.Op != Open:
		s += fmt.Sprintf(" → %016x at %d", e.Sum, e.Offset)
	default:
		s += " → " + e.Outcome.String()
	}
	if e.Key != 0 {
		s += fmt.Sprintf(", request %016x", e.Key)
	}
	if e.Stream != 0 {
		s += fmt.Sprintf(", stream %d", e.Stream)
	}
	end := "never"
	if e.End != Forever {
		end = time.Duration(e.End).String()
	}
	return s + fmt.Sprintf("  [%s … %s]", time.Duration(e.Start), end)
}
