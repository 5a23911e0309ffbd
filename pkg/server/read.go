package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/commitlog"
)

const (
	defaultWait = 50 * time.Millisecond
	// confirmTime bounds the question whether this node still leads: a round of
	// heartbeats, on a path that is an error anyway.
	confirmTime = 2 * time.Second
	// maxWait bounds what a request may ask for.
	maxWait = 30 * time.Second
)

// wireBatch is a batch as it is sent: count stored records from first on.
type wireBatch struct {
	first   uint64
	count   uint32
	records []byte
	stamp   int64 // unix ns
}

// size is of their records, in bytes.
func size(batches []wireBatch) (n int) {
	for _, b := range batches {
		n += len(b.records)
	}
	return n
}

func (b wireBatch) next() uint64 { return b.first + uint64(b.count) }

// read gives batches from exactly off on, together at most limit bytes unless the
// first alone is larger. Their records may lie in r.
func (s *Server) read(off uint64, limit int, r *room) ([]wireBatch, error) {
	got, err := s.log.ReadInto(off, limit, r.get)
	if err != nil {
		return nil, err
	}
	batches := make([]wireBatch, 0, len(got))
	bytes := 0
	for _, g := range got {
		b, err := from(g, off)
		if err != nil {
			return nil, err
		}
		if bytes += len(b.records); len(batches) > 0 && bytes > limit {
			break
		}
		if len(batches) > 0 && b.first != batches[len(batches)-1].next() {
			return nil, fmt.Errorf("read from %d: batch at %d does not follow %d", off, b.first, batches[len(batches)-1].next())
		}
		batches = append(batches, b)
	}
	if len(batches) == 0 {
		return nil, fmt.Errorf("read from %d: no batch", off)
	}
	return batches, nil
}

// from is what the batch holds from off on.
func from(g commitlog.RecordBatch, off uint64) (wireBatch, error) {
	b := wireBatch{first: g.FirstOffset, count: g.Count, records: g.Records, stamp: g.Timestamp}
	for b.first < off && b.count > 0 {
		_, rest, err := splitRecord(b.records)
		if err != nil {
			return b, err
		}
		b.first, b.count, b.records = b.first+1, b.count-1, rest
	}
	if b.count == 0 {
		return b, fmt.Errorf("batch at %d ends before %d", g.FirstOffset, off)
	}
	return b, nil
}

// errBound ends a wait that took as long as it may.
var errBound = errors.New("waited long enough")

// waitFor waits until off is readable, at most for the bound. It does not tell
// which of the two happened.
func (s *Server) waitFor(ctx context.Context, off uint64, bound time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bound, errBound)
	defer cancel()
	err := s.log.Wait(ctx, off)
	if errors.Is(err, errBound) || errors.Is(err, context.DeadlineExceeded) && errors.Is(context.Cause(ctx), errBound) {
		return nil
	}
	return err
}

// beyond is the verdict on an offset that is not readable here. That it does not
// exist knows only a leader that has applied an entry of its own term, or a node
// that has come as far as a linearizable read must (linear); on another the log may
// just not have come that far. A leader that was deposed and does not know it yet would
// deny an offset that its successor has, so one behind next is denied only when a
// majority has confirmed who leads; that next is not there yet was true a moment ago in
// any case. nil: off is readable by now, or is next.
func (s *Server) beyond(ctx context.Context, off uint64, linear bool) error {
	leads := linear || s.replica.View().IsLeader
	if leads && !linear && off > s.log.Visible() {
		ctx, cancel := context.WithTimeout(ctx, confirmTime)
		_, err := s.replica.ReadIndex(ctx)
		cancel()
		if off <= s.log.Visible() {
			return nil
		}
		leads = err == nil
	}
	next := s.log.Visible()
	if leads {
		return apierr.OutOfRange{Offset: off, Lowest: s.log.Lowest(), Next: next}
	}
	return apierr.Behind{Visible: next}
}

// position waits until this node's log is readable up to min, and gives what is
// left of the bound.
func (s *Server) position(ctx context.Context, min uint64, bound time.Duration) (time.Duration, error) {
	if min == 0 || min <= s.log.Visible() {
		return bound, nil
	}
	began := time.Now()
	if err := s.replica.WaitPosition(ctx, min, bound); err != nil {
		return 0, err
	}
	return max(0, bound-time.Since(began)), nil
}

// readable waits until off can be read, as a single read wants it: at the end of
// the log a leader's verdict is immediate when patient is false. linear gives any
// node the leader's say: it has come as far as the leader had.
func (s *Server) readable(ctx context.Context, off uint64, bound time.Duration, patient, linear bool) error {
	next := s.log.Visible()
	if off < next {
		return nil
	}
	if (linear || s.replica.View().IsLeader) && (off > next || !patient) {
		if off < s.log.Visible() { // it came while we asked who leads
			return nil
		}
		if err := s.beyond(ctx, off, linear); err != nil || off < s.log.Visible() {
			return err
		}
	}
	if err := s.waitFor(ctx, off, bound); err != nil {
		return err
	}
	if off < s.log.Visible() {
		return nil
	}
	if err := s.beyond(ctx, off, linear); err != nil || off < s.log.Visible() {
		return err
	}
	return apierr.Behind{Visible: s.log.Visible()} // it was beyond next and is next now
}

// tailable waits until a stream may begin at off: off is in the log or is the
// next one.
func (s *Server) tailable(ctx context.Context, off uint64, bound time.Duration) error {
	if off <= s.log.Visible() {
		return nil
	}
	if !s.replica.View().IsLeader {
		if err := s.waitFor(ctx, off-1, bound); err != nil {
			return err
		}
	}
	if off <= s.log.Visible() {
		return nil
	}
	return s.beyond(ctx, off, false)
}

// waitOf is a request's wait_ms as a duration.
func waitOf(ms uint32) time.Duration {
	if ms == 0 {
		return defaultWait
	}
	return min(time.Duration(ms)*time.Millisecond, maxWait)
}
