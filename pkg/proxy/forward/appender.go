package forward

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
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
	idle     bool                 // the sender sleeps on work; guarded by mu
	waiting  bool                 // run sleeps on news without a stream; guarded by mu
	// stalled is when the leader stopped making progress, 0 while it makes some.
	// Until then nothing expires. Guarded by mu.
	stalled    int64
	overloaded bool   // the last refusal was OVERLOADED; guarded by mu
	overWhy    string // and for that reason; guarded by mu
	nextDue    int64  // run wakes by then; guarded by mu
	lastAck    int64  // guarded by mu
	acks       int    // batches acknowledged on the stream that is open now; guarded by mu

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
func (a *appender) enqueue(o *op, from net.Addr) error {
	o.queued = a.f.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.retired {
		return errRetired
	}
	var c *client
	if o.lane != nil {
		c = &o.lane.client
	} else {
		c = a.clientOf(from)
	}
	if c.over {
		return apierr.NotSent{}
	}
	if err := a.f.limit.take(c.held, o.size, o.lane != nil); err != nil {
		return err
	}
	if !a.running {
		if !a.f.spawn(a.run) {
			a.f.limit.release(o.load())
			return apierr.Draining{}
		}
		a.running = true
	}
	o.client = c
	c.held.add(load{1, int64(o.size)})
	a.weigh(c, o.queued)
	a.queue.pushBack(o)
	if a.stalled != 0 {
		a.f.metrics.held.Inc()
		if o.due != 0 && o.due < a.nextDue-int64(expireStep) {
			signal(a.news)
		}
	}
	a.rouse()
	return nil
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
	a.mu.Unlock()
	a.f.metrics.dropped.Inc()
	a.f.limit.release(all, streams)
	a.f.ops.put(o)
	return false, apierr.NotSent{}
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

// errProtocol is a node's answer that fits no batch of ours.
var errProtocol = errors.New("the acknowledgement fits no batch that was sent")

// acknowledge gives the oldest batch in flight its outcome.
func (a *appender) acknowledge(r *nodev1.AppendResponse) error {
	var fin finished
	a.mu.Lock()
	if len(a.inflight) == 0 || !a.inflight[0].acknowledgedBy(r) {
		a.mu.Unlock()
		return errProtocol
	}
	b := a.inflight[0]
	a.pop()
	fin.grow(len(b.ops))
	for i, o := range b.ops {
		if o != nil {
			fin.add(o, r.GetFirstOffset()+uint64(i), r.GetDuplicate(), nil)
		}
	}
	fin.end(b)
	if !a.paused {
		a.stalled = 0
	}
	a.overloaded = false
	a.lastAck = a.f.now()
	a.acks++
	if a.queue.n > 0 {
		a.rouse()
	}
	a.mu.Unlock()

	if r.GetDuplicate() {
		a.f.metrics.duplicates.Inc()
	}
	a.f.sends.done(1)
	fin.tell(a.f)
	return nil
}

// pop forgets the oldest batch in flight. mu is held.
func (a *appender) pop() {
	n := copy(a.inflight, a.inflight[1:])
	a.inflight[n] = nil
	a.inflight = a.inflight[:n]
}

// renumber begins the next epoch. mu is held and inflight is empty: only then is
// the outcome of every sequence number known.
func (a *appender) renumber() {
	if len(a.inflight) != 0 {
		panic("forward: renumbering with batches of unknown outcome")
	}
	a.epoch++
	a.seq = 0
}

// settle takes the end of a stream, whose goroutines are over: it decides what is
// known about the batches that were on it.
func (a *appender) settle(err error) {
	var fin finished
	a.mu.Lock()
	a.idle = false
	v := verdictOf(err)
	var over apierr.Overloaded
	info, _ := apierr.From(err)
	a.overloaded = v == refusedForNow && info.Reason == apierr.ReasonOverloaded && errors.As(info.Err(), &over)
	a.overWhy = over.Why
	tainted := false
	for _, b := range a.inflight {
		if b.sent && v == unknown {
			b.tainted = true
		}
		b.sent = false
		tainted = tainted || b.tainted
	}
	switch {
	case len(a.inflight) == 0 || v == unknown:
	case tainted && v == refusedForNow:
		// Stays frozen: it is sent again with the same sequences.
	case tainted:
		a.fail(&fin, len(a.inflight), apierr.OutcomeUnknown{})
		a.renumber()
	case v == refusedContent:
		if first := a.inflight[0]; len(first.ops) == 1 {
			a.fail(&fin, 1, refusal(err))
		} else {
			for _, o := range first.ops {
				if o != nil {
					o.alone = true
				}
			}
		}
		a.recall(&fin)
	case v == refusedCaller:
		a.fail(&fin, len(a.inflight), refusal(err))
		a.renumber()
	default:
		a.recall(&fin)
	}
	switch apierr.ReasonOf(err) {
	case apierr.ReasonFenced, apierr.ReasonUnknownProducer:
		// Somebody else's, or forgotten: under another id the first batch is taken.
		if len(a.inflight) == 0 {
			a.producer = newProducer()
		}
	}
	a.mu.Unlock()
	fin.tell(a.f)
}

// fail gives the n oldest batches in flight err as their outcome. mu is held.
func (a *appender) fail(fin *finished, n int, err error) {
	for range n {
		b := a.inflight[0]
		for _, o := range b.ops {
			if o != nil {
				fin.add(o, 0, false, err)
			}
		}
		fin.end(b)
		a.pop()
	}
}

// recall puts what is in flight, and was certainly not appended, back at the head
// of its clients' queues in its order. mu is held.
func (a *appender) recall(fin *finished) {
	for i := len(a.inflight) - 1; i >= 0; i-- {
		b := a.inflight[i]
		if b.built {
			b.unbuild()
		}
		for j := len(b.ops) - 1; j >= 0; j-- {
			switch o := b.ops[j]; {
			case o == nil:
			case o.gone || o.client.over:
				fin.add(o, 0, false, apierr.NotSent{})
				a.f.metrics.dropped.Inc()
			default:
				o.state = opWaiting
				a.queue.pushFront(o)
			}
		}
		fin.end(b)
		a.inflight[i] = nil
	}
	a.inflight = a.inflight[:0]
	a.renumber()
}

// expireStep is how long at least passes between two looks at what has expired: each
// goes through all that waits, and every client may have a deadline of its own.
const expireStep = 5 * time.Millisecond

// expire ends what has waited too long for a leader, and answers when to look
// again; 0 means that nothing can expire as things are.
func (a *appender) expire(now int64) (next int64) {
	var fin finished
	a.mu.Lock()
	defer func() {
		a.mu.Unlock()
		fin.tell(a.f)
	}()
	if a.stalled == 0 {
		return 0
	}
	over := func(o *op) bool {
		due := max(o.queued, a.stalled) + int64(a.f.cfg.HoldTimeout)
		if o.due != 0 {
			due = min(due, o.due)
		}
		if due <= now {
			return true
		}
		if next == 0 || due < next {
			next = due
		}
		return false
	}
	building := false
	for _, b := range a.inflight {
		if !b.built {
			building = true // its sender is busy with the ops
			continue
		}
		for i, o := range b.ops {
			if o != nil && over(o) {
				b.ops[i] = nil
				fin.add(o, 0, false, apierr.OutcomeUnknown{})
				fin.keep(b, o)
				a.f.metrics.expired.Inc()
			}
		}
	}
	if building {
		// What waits is behind those ops, and of a stream must not be told before them.
		return now + int64(expireStep)
	}
	var late []*op
	for _, c := range a.queue.line {
		for o := c.waiting.head; o != nil; o = o.next {
			if c.over || over(o) {
				late = append(late, o)
			}
		}
	}
	for _, o := range late {
		a.queue.remove(o)
		var err error = apierr.NotSent{}
		if a.overloaded {
			err = apierr.Overloaded{RetryAfter: pushback, Why: a.overWhy}
		}
		fin.add(o, 0, false, err)
		a.f.metrics.expired.Inc()
	}
	if next != 0 {
		next = max(next, now+int64(expireStep))
	}
	return next
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

// finished gathers ops that got their outcome under an appender's mu, to tell
// their clients after it.
type finished struct {
	unary   []*op
	spent   []*op
	all     load
	streams load // of all
}

func (fin *finished) grow(n int) { fin.unary = make([]*op, 0, n) }

// add gives o its outcome. The appender's mu is held, and o is in no queue or
// batch any more.
func (fin *finished) add(o *op, offset uint64, duplicate bool, err error) {
	o.state, o.offset, o.duplicate, o.err = opDone, offset, duplicate, err
	all, streams := o.load()
	fin.all.add(all)
	fin.streams.add(streams)
	o.client.held.sub(all)
	switch {
	case o.lane != nil:
		if err != nil {
			o.client.over = true
		}
		o.lane.finish(outcome{offset, o.size}, err)
		fin.spent = append(fin.spent, o)
	case o.gone:
		fin.spent = append(fin.spent, o)
	default:
		fin.unary = append(fin.unary, o)
	}
}

// keep leaves the bytes of o, which was added, counted: they are part of b, which may
// have to be sent again for as long as its outcome is unknown.
func (fin *finished) keep(b *batch, o *op) {
	rec := load{bytes: int64(o.size - opCost)}
	b.kept.add(rec)
	fin.all.sub(rec)
	if o.lane != nil {
		b.keptOfStreams.add(rec)
		fin.streams.sub(rec)
	}
}

// end lets b go, of which all ops have been added or queued again.
func (fin *finished) end(b *batch) {
	fin.all.add(b.kept)
	fin.streams.add(b.keptOfStreams)
	b.free()
}

func (fin *finished) tell(f *Forwarder) {
	f.limit.release(fin.all, fin.streams)
	for _, o := range fin.spent {
		f.ops.put(o)
	}
	for _, o := range fin.unary {
		o.done <- struct{}{}
	}
}

// verdict is what the end of an append stream says about the batches on it. The
// node answers a stream in order, so a refusal is about the oldest batch without
// an acknowledgement, and those behind it were refused with it.
type verdict int

const (
	unknown        verdict = iota // may have been appended
	refusedForNow                 // was not appended; somebody or some time may take it
	refusedNumber                 // was not appended under these numbers
	refusedContent                // was not appended and never will be
	refusedCaller                 // was not appended: the caller may not
)

func verdictOf(err error) verdict {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return unknown
	}
	info, ok := apierr.From(err)
	if !ok {
		switch info.Err().(type) { //nolint:errorlint // Err makes the value anew
		case apierr.Unauthenticated, apierr.PermissionDenied:
			return refusedCaller
		}
		return unknown
	}
	switch info.Reason {
	case apierr.ReasonNotLeader, apierr.ReasonDraining, apierr.ReasonOverloaded, apierr.ReasonNotSent:
		return refusedForNow
	case apierr.ReasonSequenceGap, apierr.ReasonUnknownProducer, apierr.ReasonFenced:
		return refusedNumber
	case apierr.ReasonInvalid:
		return refusedContent
	}
	return unknown
}

// refusal is a node's definite refusal as the client is told it.
func refusal(err error) error {
	info, _ := apierr.From(err)
	return info.Err()
}
