package forward

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/proxy/route"
)

var appendDesc = grpc.StreamDesc{StreamName: "Append", ClientStreams: true, ServerStreams: true}

// Why a stream of ours is ended by us.
var (
	errMoved      = errors.New("another node leads now")
	errAckTimeout = errors.New("the leader does not acknowledge")
	errClosing    = errors.New("the proxy is closing")
	errIdle       = errors.New("idle")
	errBroken     = errors.New("the stream has ended")
)

// appendStream is one Append stream to one leader. An appender has at most one.
type appendStream struct {
	a      *appender
	up     route.Upstream
	ctx    context.Context //nolint:containedctx // the stream's life
	cancel context.CancelCauseFunc
	began  int64
	opened bool              // the node's connection took the stream; guarded by a.mu
	cs     grpc.ClientStream // set with opened
	turn   sync.Mutex        // held from taking a batch until it is sent; taken before a.mu, or tried under it
	done   chan struct{}     // closed when nobody sends or receives any more
	err    error             // how it ended; readable after done
}

// open starts a stream; it never blocks.
func (a *appender) open(up route.Upstream) *appendStream {
	ctx, cancel := context.WithCancelCause(a.f.ours(upstream(context.Background(), a.principal)))
	s := &appendStream{a: a, up: up, ctx: ctx, cancel: cancel, began: a.f.now(), done: make(chan struct{})}
	a.mu.Lock()
	a.acks, a.idle, a.paused = 0, false, false
	if len(a.inflight) == 0 && a.seq != 0 {
		// Nothing depends on the old numbers, and the log may have forgotten them.
		a.renumber()
	}
	a.mu.Unlock()
	go s.send()
	return s
}

// send opens the stream upstream, then sends what is in flight and what comes.
func (s *appendStream) send() {
	defer close(s.done)
	defer s.cancel(errBroken)
	release := s.up.Acquire()
	defer release()
	cs, err := s.up.Conn().NewStream(s.ctx, &appendDesc, nodev1.Node_Append_FullMethodName, grpc.ForceCodecV2(s.a.f.codec))
	if err != nil {
		s.err = err
		return
	}
	received := make(chan struct{})
	go func() { // ends when the stream does
		defer close(received)
		s.err = s.recv(cs)
		s.cancel(errBroken)
	}()
	s.a.mu.Lock()
	s.opened, s.cs, s.a.stream = true, cs, s
	s.a.mu.Unlock()
	for s.ctx.Err() == nil {
		sent, err := s.sendNext()
		if err != nil {
			break // recv has the reason
		}
		if !sent {
			select {
			case <-s.a.work:
			case <-s.ctx.Done():
			}
		}
	}
	<-received
	s.a.mu.Lock()
	s.a.stream = nil
	s.a.mu.Unlock()
	s.turn.Lock() // nobody has it any more
}

// sendNext sends one batch, if there is one to be sent now.
func (s *appendStream) sendNext() (sent bool, err error) {
	s.turn.Lock()
	defer s.turn.Unlock()
	m := s.next()
	if m == nil {
		return false, nil
	}
	return true, s.cs.SendMsg(m)
}

// sendNow is sendNext for who has the turn already. The sender looks after what is
// left, and recv has the reason when it fails.
func (s *appendStream) sendNow() {
	defer s.turn.Unlock()
	if m := s.next(); m != nil {
		_ = s.cs.SendMsg(m)
	}
}

// next makes a batch ready to be sent: the oldest in flight from an earlier stream, or
// a new one as the window allows. With nil the sender has to be woken for the next one.
// The turn is held.
func (s *appendStream) next() *encodedMessage {
	a := s.a
	var fin finished
	defer func() { fin.tell(a.f) }()
	a.mu.Lock()
	defer a.mu.Unlock()
	b := a.unsent()
	if b != nil {
		a.f.metrics.resent.Inc()
	} else {
		if whom := a.room(); whom != nobody {
			b = a.take(whom, &fin)
		}
		if b == nil {
			a.idle = true
			return nil
		}
		producer, epoch := a.producer, a.epoch
		a.mu.Unlock()
		b.begin(a.f.cfg.Tracer)
		b.build(producer, epoch)
		a.f.metrics.batchRecords.Observe(float64(b.count))
		a.mu.Lock()
		b.built = true
	}
	b.sent, b.sentAt = true, a.f.now()
	b.sentTo(s.up.ID())
	return b.message()
}

// unsent is the oldest batch in flight that is not on the open stream. mu is held.
func (a *appender) unsent() *batch {
	for _, b := range a.inflight {
		if !b.sent {
			return b
		}
	}
	return nil
}

// recv takes acknowledgements until the stream ends, and answers how.
func (s *appendStream) recv(cs grpc.ClientStream) error {
	var r nodev1.AppendResponse
	for {
		if err := cs.RecvMsg(&r); err != nil {
			if errors.Is(err, io.EOF) {
				return errBroken
			}
			return err
		}
		if err := s.a.acknowledge(&r, s.up.ID()); err != nil {
			s.a.f.log.Error("append stream broken off", "node", s.up.ID(), "err", err,
				"first_sequence", r.GetFirstSequence(), "count", r.GetCount())
			return err
		}
	}
}
