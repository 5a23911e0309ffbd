package server

import (
	"errors"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/logd-io/logd/pkg/apierr"
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

// cutTimeout is how long the last message to a reader who may not read any more may
// wait for it.
const cutTimeout = time.Second

// supervise runs work on a goroutine of its own and returns what it returns,
// unless a send is stuck for longer than the limit: then the stream is ended
// under it, with stuck. ending is called once, with the reason, when the server
// begins to stop, or when the caller may not go on by rules that have changed; with
// cut a send that is stuck then is not waited for.
func (s *Server) supervise(snd *sender, stuck error, ending func(why error) (cut bool), work func() error) error {
	done := make(chan error, 1) // room for the one result, which nobody may wait for
	s.helpers.Go(func() { done <- work() })
	tick := time.NewTicker(max(s.cfg.SendTimeout/4, time.Millisecond))
	defer tick.Stop()
	leave := &standing{s, callerOf(snd.stream.Context())}
	stop, changed, limit := s.stopping, leave.changed(), s.cfg.SendTimeout
	end := func(why error) {
		stop, changed = nil, nil
		if ending(why) {
			stuck, limit = why, min(limit, cutTimeout)
			tick.Reset(max(limit/4, time.Millisecond))
		}
	}
	for {
		select {
		case err := <-done:
			return err
		case <-stop:
			end(apierr.Draining{})
		case <-changed:
			if err := leave.look(); err != nil {
				end(err)
			} else {
				changed = leave.changed()
			}
		case <-tick.C:
			if d := snd.stuckFor(); d > limit {
				s.logger.Debug("stream ended: its receiver does not read", "stuck_for", d)
				return stuck
			}
		}
	}
}

// errEnded says that a handler is over; it never reaches a caller.
var errEnded = errors.New("stream is over")
