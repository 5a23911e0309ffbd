package server

import (
	"errors"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

// sender sends on one stream and knows since when it has been at it, because
// gRPC's Send has no deadline of its own: it waits for the receiver's window.
type sender struct {
	stream grpc.ServerStream
	born   time.Time    // what since counts from, on the clock that never jumps
	since  atomic.Int64 // when the send under way began, in ns; 0: none is
}

func newSender(stream grpc.ServerStream) *sender { return &sender{stream: stream, born: time.Now()} }

func (s *sender) send(m any) error {
	s.since.Store(max(1, int64(time.Since(s.born))))
	defer s.since.Store(0)
	return s.stream.SendMsg(m)
}

func (s *sender) stuckFor() time.Duration {
	since := s.since.Load()
	if since == 0 {
		return 0
	}
	return time.Since(s.born) - time.Duration(since)
}

// supervise runs work on a goroutine of its own and returns what it returns,
// unless a send is stuck for longer than the limit: then the stream is ended
// under it, with stuck. stopping is called once when the server begins to stop.
func (s *Server) supervise(snd *sender, stuck error, stopping func(), work func() error) error {
	done := make(chan error, 1) // room for the one result, which nobody may wait for
	s.helpers.Go(func() { done <- work() })
	tick := time.NewTicker(max(s.cfg.SendTimeout/4, time.Millisecond))
	defer tick.Stop()
	stop := s.stopping
	for {
		select {
		case err := <-done:
			return err
		case <-stop:
			stop = nil
			stopping()
		case <-tick.C:
			if d := snd.stuckFor(); d > s.cfg.SendTimeout {
				s.logger.Debug("stream ended: its receiver does not read", "stuck_for", d)
				return stuck
			}
		}
	}
}

// errEnded says that a handler is over; it never reaches a caller.
var errEnded = errors.New("stream is over")
