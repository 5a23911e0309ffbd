package proxy

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/logd-io/logd/pkg/internal/netlimit"
)

// unread bounds the streams whose clients do not read. Each makes the proxy hold
// the windows of a call, for as long as its client pleases. A few may: a consumer
// may be busy with a record. When there are more than most, those that have not
// read for longest are ended to make room.
//
// A send waits for its client inside gRPC, where nothing but the end of the stream
// ends it. So a handler runs on a goroutine of its own, and the stream ends under it.
// What gRPC has queued for it stays, though, until the client makes room or the
// connection goes: so one that gives us many such streams is closed.
type unread struct {
	most int
	m    *metrics

	mu      sync.Mutex
	streams map[*sending]struct{} // guarded by mu

	handlers sync.WaitGroup // that run
	stuck    atomic.Int64   // at the last look
}

// endedOfOne is how many streams of one connection are ended before it is closed. One
// of them is forgotten an hour.
const endedOfOne = 64

// sending is a stream that notes when it is in a send.
type sending struct {
	grpc.ServerStream
	turns atomic.Uint64 // odd: in a send
	end   chan struct{} // closed to end the stream; by look alone
	conn  *netlimit.Conn

	seen  uint64 // turns at the last look; look's alone
	looks int    // looks at which it was in that same send; look's alone
}

func (s *sending) SendMsg(m any) error {
	s.turns.Add(1)
	err := s.ServerStream.SendMsg(m)
	s.turns.Add(1)
	return err
}

func newUnread(most int, m *metrics) *unread {
	return &unread{most: most, m: m, streams: make(map[*sending]struct{})}
}

func (u *unread) stream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	s := &sending{ServerStream: ss, end: make(chan struct{})}
	if p, ok := peer.FromContext(ss.Context()); ok {
		if held, ok := p.AuthInfo.(netlimit.Held); ok {
			s.conn, _ = held.Conn.(*netlimit.Conn)
		}
	}
	u.mu.Lock()
	u.streams[s] = struct{}{}
	u.mu.Unlock()
	done := make(chan error, 1) // the one result, which nobody may wait for
	u.handlers.Go(func() {      // waited for by wait; ends with the stream
		done <- handler(srv, s)
		u.mu.Lock()
		delete(u.streams, s)
		u.mu.Unlock()
	})
	select {
	case err := <-done:
		return err
	case <-s.end:
		u.m.unreadEnded.Inc()
		return overloaded()
	}
}

// look ends the streams that are too many.
func (u *unread) look() {
	u.mu.Lock()
	defer u.mu.Unlock()
	var stuck []*sending
	for s := range u.streams {
		turns := s.turns.Load()
		if turns%2 == 0 || turns != s.seen {
			s.seen, s.looks = turns, 0
			continue
		}
		s.looks++
		stuck = append(stuck, s)
	}
	u.stuck.Store(int64(len(stuck)))
	if len(stuck) <= u.most {
		return
	}
	slices.SortFunc(stuck, func(a, b *sending) int { return cmp.Compare(b.looks, a.looks) })
	for _, s := range stuck[:len(stuck)-u.most] {
		delete(u.streams, s)
		close(s.end)
		if s.conn != nil && s.conn.Strike() == endedOfOne {
			u.m.refusedConns.WithLabelValues("unread").Inc()
			_ = s.conn.Close() // its reader tells gRPC
		}
	}
}

// wait blocks until no handler runs. The server is to be stopped before.
func (u *unread) wait() { u.handlers.Wait() }
