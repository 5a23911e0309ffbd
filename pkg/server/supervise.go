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
	since  atomic.Int64 // unix ns when the send under way began; 0: none is
}

func (s *sender) send(m any) error {
	s.since.Store(time.Now().UnixNano())
	defer s.since.Store(0)
	return s.stream.SendMsg(m)
}

func (s *sender) stuckFor() time.Duration {
	since := s.since.Load()
	if since == 0 {
		return 0
	}
	return time.Duration(time.Now().UnixNano() - since)
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
