package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
)

// Load is a set of naive producers that write numbered records, one at a time
// each, and never try again. A number is written once, so what is in the log
// can be held against what was acknowledged.
type Load struct {
	Producers int
	Total     uint64   // how many records; 0: until Stop
	Text      []string // lines that records carry in turn

	next    atomic.Uint64
	acked   atomic.Uint64
	failed  atomic.Uint64
	longest atomic.Int64 // of one call, in nanoseconds
	stopped atomic.Bool

	mu      sync.Mutex
	offsets map[uint64]uint64 // number → offset; guarded by mu
	errs    []error           // the first few; guarded by mu
}

// maxErrors is how many errors of producers are kept to be shown.
const maxErrors = 5

// Run produces through the connections in turn, and returns when all records
// have been answered or ctx has ended.
func (l *Load) Run(ctx context.Context, conns ...grpc.ClientConnInterface) {
	l.mu.Lock()
	if l.offsets == nil {
		l.offsets = make(map[uint64]uint64)
	}
	l.mu.Unlock()
	var wg sync.WaitGroup
	for i := range l.Producers {
		wg.Go(func() { l.produce(ctx, logv1.NewLogClient(conns[i%len(conns)])) })
	}
	wg.Wait()
}

func (l *Load) produce(ctx context.Context, client logv1.LogClient) {
	for ctx.Err() == nil && !l.stopped.Load() {
		n := l.next.Add(1) - 1
		if l.Total > 0 && n >= l.Total {
			return
		}
		start := time.Now()
		resp, err := client.Produce(ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: Value(n, l.Text)}})
		took := time.Since(start)
		if err != nil {
			l.fail(fmt.Errorf("record %d, after %s: %w", n, took.Round(time.Millisecond), err))
			continue
		}
		l.acked.Add(1)
		for {
			old := l.longest.Load()
			if int64(took) <= old || l.longest.CompareAndSwap(old, int64(took)) {
				break
			}
		}
		l.mu.Lock()
		l.offsets[n] = resp.GetOffset()
		l.mu.Unlock()
	}
}

func (l *Load) fail(err error) {
	l.failed.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.errs) < maxErrors {
		l.errs = append(l.errs, err)
	}
}

// Stop lets every producer finish the call it is in.
func (l *Load) Stop() { l.stopped.Store(true) }

// Produced is how many records were sent.
func (l *Load) Produced() uint64 {
	if n := l.next.Load(); l.Total == 0 || n < l.Total {
		return n
	}
	return l.Total
}

// Acked is how many records were acknowledged.
func (l *Load) Acked() uint64 { return l.acked.Load() }

// Failed is how many records were answered with an error.
func (l *Load) Failed() uint64 { return l.failed.Load() }

// LongestWait is how long the slowest acknowledged call took.
func (l *Load) LongestWait() time.Duration { return time.Duration(l.longest.Load()) }

// Err joins the first errors of the producers.
func (l *Load) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.errs...)
}

// Offsets is a copy of what was acknowledged: the number of a record → its offset.
func (l *Load) Offsets() map[uint64]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := make(map[uint64]uint64, len(l.offsets))
	for n, off := range l.offsets {
		m[n] = off
	}
	return m
}

// Value is the value of record number n.
func Value(n uint64, text []string) []byte {
	line := ""
	if len(text) > 0 {
		line = text[n%uint64(len(text))]
	}
	return fmt.Appendf(nil, "%010d %s", n, line)
}

// Number is the number in a value made by Value.
func Number(value []byte) (uint64, error) {
	head, _, ok := strings.Cut(string(value), " ")
	if !ok {
		return 0, fmt.Errorf("value %.40q has no number", value)
	}
	return strconv.ParseUint(head, 10, 64)
}

// Tail consumes from offset from on and gives each record to f, until f says
// that it has had enough, ctx ends, or the stream fails. It fails on a record
// that is not at the next offset.
func Tail(ctx context.Context, conn grpc.ClientConnInterface, from uint64, f func(*logv1.Record) (more bool)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := logv1.NewLogClient(conn).ConsumeStream(ctx, &logv1.ConsumeRequest{Offset: from})
	if err != nil {
		return err
	}
	for want := from; ; want++ {
		resp, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return errors.New("the server ended the stream")
		case err != nil:
			return err
		}
		rec := resp.GetRecord()
		if rec.GetOffset() != want {
			return &GapError{Want: want, Got: rec.GetOffset()}
		}
		if !f(rec) {
			return nil
		}
	}
}

// GapError says that a stream did not go on with the next offset.
type GapError struct{ Want, Got uint64 }

func (e *GapError) Error() string {
	return fmt.Sprintf("the stream went on at offset %d instead of %d", e.Got, e.Want)
}

// ReadAll reads [from, next) of a log; next is asked from the same connection.
func ReadAll(ctx context.Context, conn grpc.ClientConnInterface) ([]*logv1.Record, error) {
	off, err := logv1.NewLogClient(conn).GetOffsets(ctx, &logv1.GetOffsetsRequest{})
	if err != nil {
		return nil, err
	}
	return ReadTo(ctx, conn, off.GetLowest(), off.GetNext())
}

// ReadTo reads [from, next) of a log, waiting for records that are not there yet.
func ReadTo(ctx context.Context, conn grpc.ClientConnInterface, from, next uint64) ([]*logv1.Record, error) {
	if from >= next {
		return nil, nil
	}
	recs := make([]*logv1.Record, 0, next-from)
	err := Tail(ctx, conn, from, func(rec *logv1.Record) bool {
		recs = append(recs, rec)
		return rec.GetOffset()+1 < next
	})
	if status.Code(err) == codes.Canceled && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return recs, err
}

// Verdict is what the log holds against what was acknowledged.
type Verdict struct {
	InLog      uint64 // numbered records
	Lost       uint64 // acknowledged, and not in the log at the offset of the acknowledgement
	Duplicates uint64 // records whose number stands earlier in the log
}

// Check holds a whole log, read from offset 0, against acknowledgements.
func Check(recs []*logv1.Record, acked map[uint64]uint64) (Verdict, error) {
	var v Verdict
	at := make(map[uint64]uint64, len(recs))
	for i, rec := range recs {
		if rec.GetOffset() != uint64(i) {
			return v, &GapError{Want: uint64(i), Got: rec.GetOffset()}
		}
		n, err := Number(rec.GetValue())
		if err != nil {
			return v, fmt.Errorf("offset %d: %w", rec.GetOffset(), err)
		}
		v.InLog++
		if _, twice := at[n]; twice {
			v.Duplicates++
			continue
		}
		at[n] = rec.GetOffset()
	}
	for n, off := range acked {
		if got, ok := at[n]; !ok || got != off {
			v.Lost++
		}
	}
	return v, nil
}
