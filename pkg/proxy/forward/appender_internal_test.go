package forward

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/proxy/route"
)

// What waits of a stream is not told of before what is being made a batch of: it
// would hear that nothing more was sent, and then the batch would be appended.
// (DESIGN.md F12)
func TestNothingExpiresBehindABatchInTheMaking(t *testing.T) {
	f, err := New(Config{Holder: new(route.Holder), HoldTimeout: time.Nanosecond})
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	a := newAppender(f, "p")
	a.running = true // nobody drives it but the test
	l := newLane()
	queue := func() {
		rec := []byte("r")
		require.True(t, l.admit(t.Context(), len(rec), 10, 1000))
		require.NoError(t, a.enqueue(&op{lane: l, rec: rec, buf: mem.SliceBuffer(rec), size: len(rec), done: make(chan struct{}, 1)}, nil))
	}
	queue()
	a.mu.Lock()
	b := a.take(anybody, new(finished)) // and is about to build it
	a.stalledSince(1)
	a.mu.Unlock()
	queue()
	now := a.f.now() + int64(time.Hour)
	require.Equal(t, now+int64(expireStep), a.expire(now), "it looks again soon")
	l.mu.Lock()
	require.NoError(t, l.err)
	l.mu.Unlock()

	b.build(a.producer, a.epoch)
	a.mu.Lock()
	b.built, b.sent = true, true
	a.mu.Unlock()
	require.NoError(t, a.acknowledge(&nodev1.AppendResponse{Count: 1, FirstOffset: 7}, "a"))
	a.mu.Lock()
	a.stalledSince(1)
	a.mu.Unlock()
	a.expire(now)
	told, err := l.taken(nil)
	require.Len(t, told, 1)
	require.Equal(t, uint64(7), told[0].offset)
	require.Error(t, err, "and then the one that waited")
}

// A leader that was asked nothing for long is not late with a batch that is just being
// made: the stream would end, and be opened again, for nothing. (DESIGN.md F13)
func TestNobodyIsLateWithABatchInTheMaking(t *testing.T) {
	f, err := New(Config{Holder: new(route.Holder)})
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	a := newAppender(f, "p")
	a.running = true // nobody drives it but the test
	a.lastAck = f.now() - 2*int64(f.cfg.AckTimeout)
	s := &appendStream{a: a, began: a.lastAck, opened: true}
	rec := []byte("r")
	require.NoError(t, a.enqueue(&op{rec: rec, buf: mem.SliceBuffer(rec), size: len(rec), done: make(chan struct{}, 1)}, nil))
	var fin finished
	b := a.take(anybody, &fin) // as the sender does, and then builds it
	_, cause := a.check(s)
	require.NoError(t, cause)
	b.sentAt -= 2 * int64(f.cfg.AckTimeout)
	_, cause = a.check(s)
	require.ErrorIs(t, cause, errAckTimeout, "it is when time has passed since")
}

// named is an upstream of which only the id is asked for.
type named struct {
	route.Upstream
	id string
}

func (n named) ID() string { return n.id }

// What nobody else's batch is under way for is sent by who queued it, which spares a
// call that waits alone the sender's waking up. (DESIGN.md F7)
func TestALoneCallIsSentByItsOwn(t *testing.T) {
	f, err := New(Config{Holder: new(route.Holder)})
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	a := newAppender(f, "p")
	a.running = true // nobody drives it but the test
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	cs := &sentBatches{ctx: ctx}
	s := &appendStream{a: a, up: named{id: "a"}, ctx: ctx, cancel: cancel, cs: cs}
	queue := func(n int) {
		t.Helper()
		for range n {
			rec := []byte("r")
			o := &op{rec: rec, buf: mem.SliceBuffer(rec), size: len(rec), done: make(chan struct{}, 1)}
			require.NoError(t, a.enqueue(o, nil))
		}
	}
	acknowledge := func() {
		t.Helper()
		b := a.inflight[0]
		require.NoError(t, a.acknowledge(&nodev1.AppendResponse{FirstSequence: b.first, Count: b.count}, "a"))
	}
	wants := func(sent int, woken bool) {
		t.Helper()
		require.Equal(t, sent, cs.n)
		select {
		case <-a.work:
			require.True(t, woken, "the sender is woken")
		default:
			require.False(t, woken, "nobody wakes the sender")
		}
	}
	a.idle, a.stream = true, s // as when the sender sleeps
	queue(1)
	wants(1, false)
	require.True(t, a.inflight[0].sent)
	queue(1) // beside what is under way it is the sender's
	wants(1, true)
	s.turn.Lock()
	s.sendNow()
	wants(2, false)
	acknowledge()
	acknowledge()

	s.turn.Lock() // the sender is at work
	a.idle = true
	queue(1)
	wants(2, true)
	s.sendNow()
	wants(3, false)
	acknowledge()

	a.crowd.see(crowded, a.f.now()) // more are coming: the sender may find them too
	a.idle = true
	queue(1)
	wants(3, true)
	s.turn.Lock()
	s.sendNow()
	acknowledge()
	a.crowd = peak{}

	cancel(errMoved)
	a.idle = true
	queue(1)
	wants(4, true)
	a.stream = nil
	require.Empty(t, a.inflight, "it was never sent")
}

// sentBatches counts what is sent on a stream.
type sentBatches struct {
	grpc.ClientStream
	ctx context.Context // the stream's
	n   int
}

func (s *sentBatches) SendMsg(m any) error {
	s.n++
	m.(*encodedMessage).data.Free()
	return s.ctx.Err()
}

// A record in very many pieces costs no more than its bytes.
func TestARecordInManyPieces(t *testing.T) {
	req := bytes.Repeat([]byte{produceRequestRecord<<3 | 2, 2, recordValue<<3 | 2, 0}, 100_000)
	rec, err := recordOf(req, 1<<20)
	require.NoError(t, err)
	require.Len(t, rec, 200_000)
	require.Less(t, testing.AllocsPerRun(1, func() { _, _ = recordOf(req, 1<<20) }), 100.0)
	require.Equal(t, byte(produceRequestRecord<<3|2), req[4], "the request is as it was")
}
