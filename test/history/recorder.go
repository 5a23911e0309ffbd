package history

import (
	"context"
	"hash/fnv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
)

// Recorder records what clients do and are told.
type Recorder struct {
	began   time.Time
	streams atomic.Int32 // numbers given to streams

	mu    sync.Mutex
	conns []*Conn // guarded by mu
	logs  []Log   // guarded by mu
}

// NewRecorder begins a recording.
func NewRecorder() *Recorder { return &Recorder{began: time.Now()} }

// Conn is a client's connection whose calls of log.v1 are recorded. It may be used
// by many goroutines; with one each they do not meet.
type Conn struct {
	r     *Recorder
	cc    grpc.ClientConnInterface
	who   Who
	index int32

	mu     sync.Mutex
	events []Event // guarded by mu
}

// Conn records what goes through cc as done by who. All connections of one session
// have its name.
func (r *Recorder) Conn(cc grpc.ClientConnInterface, who Who) *Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := &Conn{r: r, cc: cc, who: who, index: int32(len(r.conns))}
	r.conns = append(r.conns, c)
	return c
}

// AddLog adds what a node holds at the end. Its records belong to r from now on.
func (r *Recorder) AddLog(l Log) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.logs = append(r.logs, l)
}

// History is what was recorded so far. What has not been answered yet is in it,
// with an unknown outcome.
func (r *Recorder) History() *History {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := &History{Logs: append([]Log(nil), r.logs...)}
	n := 0
	for _, c := range r.conns {
		c.mu.Lock()
		n += len(c.events)
		c.mu.Unlock()
	}
	h.Events = make([]Event, 0, n)
	for _, c := range r.conns {
		h.Conns = append(h.Conns, c.who)
		c.mu.Lock()
		h.Events = append(h.Events, c.events...)
		c.mu.Unlock()
	}
	return h
}

func (r *Recorder) now() int64 { return int64(time.Since(r.began)) }

// begin notes what is about to be sent, and answers its place in c.events.
func (c *Conn) begin(e Event) int {
	e.Conn, e.End = c.index, Forever
	c.mu.Lock()
	defer c.mu.Unlock()
	e.Start = c.r.now()
	c.events = append(c.events, e)
	return len(c.events) - 1
}

// end notes at, when an answer came, and what it was.
func (c *Conn) end(i int, at int64, what func(*Event)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := &c.events[i]
	e.End = at
	what(e)
}

// Invoke is one unary call.
func (c *Conn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	var e Event
	switch req := args.(type) {
	case *logv1.ProduceRequest:
		e = produced(req.GetRecord())
		e.Key = c.key(ctx)
	case *logv1.ConsumeRequest:
		e = Event{Op: Consume, Asked: req.GetOffset(), Linear: req.GetLinearizable()}
	case *logv1.GetOffsetsRequest:
		e = Event{Op: Ends}
	default:
		return c.cc.Invoke(ctx, method, args, reply, opts...)
	}
	i := c.begin(e)
	err := c.cc.Invoke(ctx, method, args, reply, opts...)
	c.end(i, c.r.now(), func(e *Event) {
		if err != nil {
			e.failed(err)
			return
		}
		e.Outcome = OK
		switch resp := reply.(type) {
		case *logv1.ProduceResponse:
			e.Offset = resp.GetOffset()
		case *logv1.ConsumeResponse:
			e.read(resp.GetRecord())
		case *logv1.GetOffsetsResponse:
			e.Lowest, e.Next = resp.GetLowest(), resp.GetNext()
		}
	})
	return err
}

// NewStream opens a stream.
func (c *Conn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := c.cc.NewStream(ctx, desc, method, opts...)
	if err != nil {
		return nil, err
	}
	switch method {
	case logv1.Log_ConsumeStream_FullMethodName:
		return &consuming{ClientStream: s, c: c, stream: c.r.streams.Add(1)}, nil
	case logv1.Log_ProduceStream_FullMethodName:
		return &producing{ClientStream: s, c: c, stream: c.r.streams.Add(1)}, nil
	}
	return s, nil
}

// consuming is a ConsumeStream. It is sent to once, before anything is received.
type consuming struct {
	grpc.ClientStream
	c      *Conn
	stream int32
	open   int // place of the Open event
}

func (s *consuming) SendMsg(m any) error {
	if req, ok := m.(*logv1.ConsumeRequest); ok {
		s.open = s.c.begin(Event{Op: Open, Stream: s.stream, Asked: req.GetOffset()})
	}
	return s.ClientStream.SendMsg(m)
}

func (s *consuming) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	at := s.c.r.now()
	if err != nil {
		s.c.end(s.open, at, func(e *Event) { e.failed(err) })
		return err
	}
	if resp, ok := m.(*logv1.ConsumeResponse); ok {
		e := Event{Op: Deliver, Outcome: OK, Conn: s.c.index, Stream: s.stream, Start: at, End: at}
		e.read(resp.GetRecord())
		s.c.mu.Lock()
		s.c.events = append(s.c.events, e)
		s.c.mu.Unlock()
	}
	return nil
}

// producing is a ProduceStream. It is sent to and received from by two goroutines.
type producing struct {
	grpc.ClientStream
	c      *Conn
	stream int32

	mu      sync.Mutex
	pending []int // places of what was sent and has no answer yet, oldest first; guarded by mu
}

func (s *producing) SendMsg(m any) error {
	if req, ok := m.(*logv1.ProduceRequest); ok {
		e := produced(req.GetRecord())
		e.Stream = s.stream
		s.mu.Lock()
		s.pending = append(s.pending, s.c.begin(e))
		s.mu.Unlock()
	}
	return s.ClientStream.SendMsg(m)
}

// RecvMsg gives answers to what was sent, in its order. An error is about the first
// record without an answer; of those behind it nothing is known.
func (s *producing) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	at := s.c.r.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) == 0 {
		return err
	}
	i := s.pending[0]
	s.pending = s.pending[1:]
	if err != nil {
		s.pending = nil
		s.c.end(i, at, func(e *Event) { e.failed(err) })
	} else if resp, ok := m.(*logv1.ProduceResponse); ok {
		s.c.end(i, at, func(e *Event) { e.Outcome, e.Offset = OK, resp.GetOffset() })
	}
	return err
}

func produced(rec *logv1.Record) Event {
	return Event{Op: Produce, Sum: Sum(rec), Time: rec.GetTimestamp()}
}

func (e *Event) read(rec *logv1.Record) {
	e.Offset, e.Sum, e.Time = rec.GetOffset(), Sum(rec), rec.GetTimestamp()
}

// failed says what err leaves known. A produce of which nothing is known has no end:
// it may be appended at any time to come.
func (e *Event) failed(err error) {
	info, _ := apierr.From(err)
	u := func(key string) uint64 { n, _ := info.Uint(key); return n }
	retry := apierr.RetryOf(info.Reason)
	switch {
	case e.Op == Produce && (retry == apierr.RetryElsewhere || retry == apierr.RetryLater || info.Reason == apierr.ReasonInvalid ||
		info.Reason == "" && (info.Code == codes.PermissionDenied || info.Code == codes.Unauthenticated)):
		e.Outcome = Refused
	case e.Op == Produce:
		e.Outcome, e.End = Unknown, Forever
	case info.Reason == apierr.ReasonOutOfRange:
		e.Outcome, e.Lowest, e.Next = OutOfRange, u(apierr.KeyLowest), u(apierr.KeyNext)
	case info.Reason == apierr.ReasonPositionUnknown:
		e.Outcome, e.Next = PositionUnknown, u(apierr.KeyVisible)
	}
}

// requestID is the metadata that makes two sends one.
const requestID = "logd-request-id"

// key stands for the principal and the request id of a call; 0 without one.
func (c *Conn) key(ctx context.Context) uint64 {
	md, _ := metadata.FromOutgoingContext(ctx)
	id := md.Get(requestID)
	if len(id) == 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(c.who.Principal)) // it never fails
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(id[0]))
	return h.Sum64() | 1
}
