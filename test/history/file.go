package history

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// line is one line of a file: a connection, an event, the head of a log, or one of
// its records. Connections come first, and the records of a log after its head.
type line struct {
	Conn *Who `json:"conn,omitempty"`

	Op      string `json:"op,omitempty"`
	Outcome string `json:"is,omitempty"`
	Linear  bool   `json:"linear,omitempty"`
	By      int32  `json:"by,omitempty"`
	Stream  int32  `json:"stream,omitempty"`
	Start   int64  `json:"start,omitempty"`
	End     int64  `json:"end,omitempty"` // 0: never
	Asked   uint64 `json:"asked,omitempty"`
	Offset  uint64 `json:"at,omitempty"`
	Lowest  uint64 `json:"lowest,omitempty"`
	Next    uint64 `json:"next,omitempty"`
	Sum     uint64 `json:"sum,omitempty"`
	Time    int64  `json:"time,omitempty"`
	Key     uint64 `json:"key,omitempty"`

	Log *string `json:"log,omitempty"` // the node's name; At is its first offset
	Rec bool    `json:"rec,omitempty"`
}

// Write writes h as lines of JSON, as Read reads them.
func (h *History) Write(w io.Writer) error {
	buf := bufio.NewWriterSize(w, 1<<16)
	enc := json.NewEncoder(buf)
	for _, who := range h.Conns {
		if err := enc.Encode(line{Conn: &who}); err != nil {
			return err
		}
	}
	for i := range h.Events {
		e := &h.Events[i]
		l := line{
			Op: e.Op.String(), Outcome: e.Outcome.String(), Linear: e.Linear, By: e.Conn, Stream: e.Stream,
			Start: e.Start, End: e.End, Asked: e.Asked, Offset: e.Offset, Lowest: e.Lowest, Next: e.Next,
			Sum: e.Sum, Time: e.Time, Key: e.Key,
		}
		if e.End == Forever {
			l.End = 0
		}
		if err := enc.Encode(l); err != nil {
			return err
		}
	}
	for _, log := range h.Logs {
		if err := enc.Encode(line{Log: &log.Node, Offset: log.Base}); err != nil {
			return err
		}
		for _, rec := range log.Records {
			if err := enc.Encode(line{Rec: true, Sum: rec.Sum, Time: rec.Time}); err != nil {
				return err
			}
		}
	}
	return buf.Flush()
}

// Read reads what Write wrote.
func Read(r io.Reader) (*History, error) {
	h := &History{}
	dec := json.NewDecoder(bufio.NewReaderSize(r, 1<<16))
	for n := 1; ; n++ {
		var l line
		if err := dec.Decode(&l); errors.Is(err, io.EOF) {
			return h, nil
		} else if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if err := h.add(l); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
}

func (h *History) add(l line) error {
	switch {
	case l.Conn != nil:
		h.Conns = append(h.Conns, *l.Conn)
	case l.Log != nil:
		h.Logs = append(h.Logs, Log{Node: *l.Log, Base: l.Offset})
	case l.Rec:
		if len(h.Logs) == 0 {
			return errors.New("a record of no log")
		}
		log := &h.Logs[len(h.Logs)-1]
		log.Records = append(log.Records, Record{Sum: l.Sum, Time: l.Time})
	default:
		op, outcome := slices.Index(opNames[:], l.Op), slices.Index(outcomeNames[:], l.Outcome)
		if op <= 0 || outcome < 0 {
			return fmt.Errorf("op %q that is %q", l.Op, l.Outcome)
		}
		if l.By < 0 || int(l.By) >= len(h.Conns) || l.Stream < 0 {
			return fmt.Errorf("connection %d, stream %d", l.By, l.Stream)
		}
		if l.End == 0 {
			l.End = Forever
		}
		h.Events = append(h.Events, Event{
			Op: Op(op), Outcome: Outcome(outcome), Linear: l.Linear, Conn: l.By, Stream: l.Stream,
			Start: l.Start, End: l.End, Asked: l.Asked, Offset: l.Offset, Lowest: l.Lowest, Next: l.Next,
			Sum: l.Sum, Time: l.Time, Key: l.Key,
		})
	}
	return nil
}
