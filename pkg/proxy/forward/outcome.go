package forward

import (
	"errors"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
)

// errProtocol is a node's answer that fits no batch of ours.
var errProtocol = errors.New("the acknowledgement fits no batch that was sent")

// acknowledge gives the oldest batch in flight its outcome, on the word of that node.
func (a *appender) acknowledge(r *nodev1.AppendResponse, by string) error {
	fin := finished{by: by}
	a.mu.Lock()
	if len(a.inflight) == 0 || !a.inflight[0].acknowledgedBy(r) {
		a.mu.Unlock()
		return errProtocol
	}
	b := a.inflight[0]
	a.pop()
	b.over(by, r.GetFirstOffset(), r.GetDuplicate())
	fin.grow(len(b.ops))
	for i, o := range b.ops {
		if o != nil {
			fin.add(o, r.GetFirstOffset()+uint64(i), r.GetDuplicate(), nil)
		}
	}
	fin.end(b)
	if !a.paused {
		a.stalledSince(0)
	}
	a.overloaded = nil
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

// settle takes the end of a stream to that node, whose goroutines are over: it decides
// what is known about the batches that were on it.
func (a *appender) settle(err error, by string) {
	fin := finished{by: by}
	a.mu.Lock()
	a.idle = false
	v := verdictOf(err)
	a.overloaded = nil
	if over := new(apierr.Overloaded); v == refusedForNow && errors.As(refusal(err), over) {
		a.overloaded = over
	}
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
	if v == refusedCaller {
		a.refuseWaiting(&fin, refusal(err))
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

// refuseWaiting gives all that waits err as its outcome: it is the same caller's, and
// on another stream it would be refused as well, a window at a time. mu is held.
func (a *appender) refuseWaiting(fin *finished, err error) {
	for c := a.queue.first(); c != nil; c = a.queue.first() {
		o := c.waiting.head
		a.queue.remove(o)
		fin.add(o, 0, false, err)
	}
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
