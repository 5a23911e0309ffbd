package forward

import (
	"crypto/rand"
	"errors"
	"net"
	"sync"

	"github.com/logd-io/logd/pkg/apierr"
)

// appender is one principal's ordered way into the log: a queue of records, and
// at most window batches whose outcome is not known yet.
//
// While it has work it runs one goroutine that chooses the leader (run), and with
// an open stream two more (stream.send, stream.recv). It keeps its producer id
// when it goes idle.
type appender struct {
	f         *Forwarder
	principal string

	mu       sync.Mutex
	queue    fairQueue            // guarded by mu
	clients  map[net.Addr]*client // of unary produces, by connection; guarded by mu
	sweepAt  int                  // so many clients, and the idle ones are forgotten; guarded by mu
	inflight []*batch             // frozen, oldest first, at most window; guarded by mu
	producer [16]byte             // guarded by mu
	epoch    uint32               // guarded by mu; moves only while inflight is empty
	seq      uint64               // of the next batch in epoch; guarded by mu
	running  bool                 // run has been started and has not ended; guarded by mu
	retired  bool                 // no longer in the registry: nothing may be queued; guarded by mu
	paused   bool                 // no leader is known: nothing new is sent; guarded by mu
	stream   *appendStream        // that takes batches, or nil; guarded by mu
	idle     bool                 // the sender sleeps on work; guarded by mu
	waiting  bool                 // run sleeps on news without a stream; guarded by mu
	// stalled is when the leader stopped making progress, 0 while it makes some.
	// Until then nothing expires. stalledSince sets it. Guarded by mu.
	stalled    int64
	overloaded *apierr.Overloaded // the last refusal, if it was one; guarded by mu
	nextDue    int64              // run wakes by then; guarded by mu
	lastAck    int64              // guarded by mu
	acks       int                // batches acknowledged on the stream that is open now; guarded by mu

	crowd    peak      // records waiting and under way; guarded by mu
	most     peak      // bytes held by the client that held most; guarded by mu
	hurried  []*client // light ones, those with something waiting among them; guarded by mu
	unevenAt int64     // a light client's record last came beside a heavy one's, 0: never; guarded by mu

	work chan struct{} // room for one: the sender has something to look at
	news chan struct{} // room for one: run has something to look at
}

func newAppender(f *Forwarder, principal string) *appender {
	return &appender{
		f: f, principal: principal, producer: newProducer(),
		clients: make(map[net.Addr]*client), sweepAt: idleClients,
		work: make(chan struct{}, 1), news: make(chan struct{}, 1),
	}
}

func newProducer() (id [16]byte) {
	_, _ = rand.Read(id[:]) // never fails
	return id
}

var errRetired = errors.New("appender is retired")

// enqueue takes o, which came over the connection from, if there is room for it:
// errFull and errShare mean that there is none. After an error o is still the caller's.
// When little is going on, the caller's goroutine sends it; that does not block.
func (a *appender) enqueue(o *op, from net.Addr) error {
	o.queued = a.f.now()
	a.mu.Lock()
	s, err := a.push(o, from)
	a.mu.Unlock()
	if s != nil {
		s.sendNow()
	}
	return err
}

// push is enqueue up to the sending, for which it answers with a stream, whose turn
// it has, or wakes the sender. mu is held.
func (a *appender) push(o *op, from net.Addr) (*appendStream, error) {
	if a.retired {
		return nil, errRetired
	}
	var c *client
	if o.lane != nil {
		c = &o.lane.client
	} else {
		c = a.clientOf(from)
	}
	if c.over {
		return nil, apierr.NotSent{}
	}
	if err := a.f.limit.take(c.held, o.size, o.lane != nil); err != nil {
		return nil, err
	}
	if !a.running {
		if !a.f.spawn(a.run) {
			a.f.limit.release(o.load())
			return nil, apierr.Draining{}
		}
		a.running = true
	}
	o.client = c
	c.held.add(load{1, int64(o.size)})
	a.weigh(c, o.queued)
	a.queue.pushBack(o)
	a.crowd.see(int64(a.queue.n+a.underWay()), o.queued)
	if a.stalled != 0 {
		a.f.metrics.held.Inc()
		if o.due != 0 && o.due < a.nextDue-int64(expireStep) {
			signal(a.news)
		}
	}
	if s := a.direct(o.queued); s != nil {
		return s, nil
	}
	a.rouse()
	return nil, nil
}

// direct is the stream that whoever queued what waits may send it on, with the turn to,
// or nil. It spares waking the sender, where that is what a call waits for: nothing is
// under way, and no crowd is coming of which a batch would be worth more. As nothing is
// under way gRPC has room, so that it does not block. mu is held.
func (a *appender) direct(now int64) *appendStream {
	s := a.stream
	if !a.idle || s == nil || s.ctx.Err() != nil || len(a.inflight) > 0 || a.room() == nobody ||
		a.crowd.lately(now) >= crowded || !s.turn.TryLock() {
		return nil
	}
	return s
}

// rouse wakes whoever has to do with the queue's head. mu is held.
func (a *appender) rouse() {
	if a.idle && a.room() != nobody {
		a.idle = false
		signal(a.work)
	}
	if a.waiting {
		a.waiting = false
		signal(a.news)
	}
}

// abandon gives up on o for its client. finished means o has its outcome and its
// signal is on the way; otherwise err is what the client is told, and o is not
// the caller's any more.
func (a *appender) abandon(o *op) (finished bool, err error) {
	a.mu.Lock()
	switch o.state {
	case opDone:
		a.mu.Unlock()
		return true, nil
	case opInFlight:
		o.gone = true
		a.mu.Unlock()
		return false, apierr.OutcomeUnknown{}
	}
	a.queue.remove(o)
	all, streams := o.load()
	o.client.held.sub(all)
	err = a.late()
	a.mu.Unlock()
	a.f.metrics.dropped.Inc()
	a.f.limit.release(all, streams)
	a.f.ops.put(o)
	return false, err
}

// leave drops what waits of a lane whose client is gone, and lets what is in
// flight finish for nobody. It says whether anything is.
func (a *appender) leave(l *lane) (inFlight bool) {
	var fin finished
	a.mu.Lock()
	l.client.over = true
	a.drop(&l.client, &fin)
	inFlight = l.client.held.count > 0
	a.mu.Unlock()
	fin.tell(a.f)
	return inFlight
}

// drop ends what waits of a client that is over. mu is held.
func (a *appender) drop(c *client, fin *finished) {
	for o := c.waiting.head; o != nil; o = c.waiting.head {
		a.queue.remove(o)
		fin.add(o, 0, false, apierr.NotSent{})
		a.f.metrics.dropped.Inc()
	}
}

// close ends everything: the forwarder is closing and no stream is open. What is
// queued later starts run again, which is refused.
func (a *appender) close() {
	var fin finished
	a.mu.Lock()
	a.fail(&fin, len(a.inflight), apierr.OutcomeUnknown{})
	for c := a.queue.first(); c != nil; c = a.queue.first() {
		o := c.waiting.head
		a.queue.remove(o)
		fin.add(o, 0, false, apierr.Draining{})
	}
	a.running = false
	a.mu.Unlock()
	fin.tell(a.f)
}
