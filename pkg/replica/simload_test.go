package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// simFramed frames messages as producers do.
func simFramed(msgs ...string) []byte {
	var b []byte
	for _, m := range msgs {
		b = append(binary.AppendUvarint(b, uint64(len(m))), m...)
	}
	return b
}

// openBatch is a batch that its producer has not heard of yet.
type openBatch struct {
	batch Batch
	msgs  []string
	since uint64 // see oracle.sent
}

// simProxy is a producer as a proxy is one: a window of batches in flight, the
// same sequence again until it is decided, through whoever leads.
type simProxy struct {
	w      *world
	rng    *rand.Rand
	number uint64
	id     [16]byte
	epoch  uint32
	seq    uint64
	made   int
	open   []openBatch
	flight []*Pending
	on     *simNode // flight was submitted there; in open's order
	keyed  *simKeys
	next   func() uint64 // numbers for producer ids
}

// simKeys are keyed records that another proxy may be asked for again.
type simKeys struct {
	mu     sync.Mutex
	recent []openBatch // guarded by mu
}

func (k *simKeys) add(b openBatch) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.recent = append(k.recent, b); len(k.recent) > 16 {
		k.recent = k.recent[1:]
	}
}

// pick gives one of them, if there is any.
func (k *simKeys) pick(rng *rand.Rand) (b openBatch, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.recent) == 0 {
		return b, false
	}
	return k.recent[rng.IntN(len(k.recent))], true
}

func (p *simProxy) fresh() {
	p.number = p.next()
	p.id = [16]byte{1}
	binary.BigEndian.PutUint64(p.id[8:], p.number)
	p.epoch, p.seq, p.open, p.flight = 0, 0, nil, nil
}

// make adds a batch to the window.
func (p *simProxy) make(n *simNode) {
	count := uint64(1 + p.rng.IntN(3))
	b := openBatch{since: p.w.o.sent()}
	b.batch = Batch{Producer: p.id, Owner: 7, Epoch: p.epoch, FirstSeq: p.seq, Timestamp: time.Now().Add(n.host.skew).UnixNano()}
	again, known := p.keyed.pick(p.rng)
	switch k := p.rng.IntN(12); {
	case known && k == 0: // a client's repeat through another proxy
		b.batch.Key, b.msgs, count = again.batch.Key, again.msgs, 1
	case k < 3:
		count = 1
		b.batch.Key = [16]byte{9, byte(p.epoch)}
		binary.BigEndian.PutUint64(b.batch.Key[8:], p.number<<24+p.seq)
		fallthrough
	default:
		for i := range count {
			msg := fmt.Sprintf("%d.%d/%d", p.number, p.epoch, p.seq+i)
			if p.rng.IntN(16) == 0 {
				msg += fmt.Sprintf(" %0*d", 100+p.rng.IntN(400), 0)
			}
			b.msgs = append(b.msgs, msg)
		}
	}
	b.batch.Count = uint32(count)
	p.seq += count
	p.made++
	p.open = append(p.open, b)
}

func (p *simProxy) submit(n *simNode, b *openBatch) (*Pending, error) {
	batch := b.batch
	batch.Records = simFramed(b.msgs...)
	return n.r.Submit(batch)
}

// send submits what is not in flight. It reports false when the node takes no
// more.
func (p *simProxy) send(n *simNode) bool {
	for i := len(p.flight); i < len(p.open); i++ {
		x, err := p.submit(n, &p.open[i])
		if err != nil {
			return false
		}
		if p.rng.IntN(32) == 0 { // the same once more while it is in flight
			p.twice(n, &p.open[i])
		}
		p.flight = append(p.flight, x)
	}
	return true
}

// twice submits a batch that is in flight already: it has to be answered alike.
func (p *simProxy) twice(n *simNode, b *openBatch) {
	x, err := p.submit(n, b)
	if err != nil {
		return
	}
	msgs := b.msgs
	p.w.wg.Add(1)
	go func() {
		defer p.w.wg.Done()
		if res, err := wait(x, 5*time.Second); err == nil && n.alive.Load() {
			p.w.o.acks(n, res, msgs, 0)
		}
	}()
}

func wait(x *Pending, d time.Duration) (Result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return x.Wait(ctx)
}

// hear takes the outcome of the oldest batch. It reports false when everything
// has to be sent again.
func (p *simProxy) hear() bool {
	res, err := wait(p.flight[0], 2*time.Second)
	if !p.on.alive.Load() {
		return false
	}
	var unknown *UnknownProducerError
	var gap *GapError
	var fence *FencedError
	first := &p.open[0]
	switch {
	case err == nil:
		p.w.o.acks(p.on, res, first.msgs, first.since)
		if first.batch.Key != [16]byte{} {
			p.keyed.add(*first)
		}
		p.open, p.flight = p.open[1:], p.flight[1:]
		return true
	case errors.As(err, &unknown):
		if !p.w.o.evicted(p.id) {
			p.w.o.violate("once", "producer %x, sequence %d: %v", p.id[8:], first.batch.FirstSeq, err)
		}
		p.fresh() // what was open is never decided, at least not for us
		return false
	case errors.As(err, &fence):
		p.w.o.violate("once", "producer %x in epoch %d: %v", p.id[8:], p.epoch, err)
	case errors.As(err, &gap) && gap.Want > first.batch.FirstSeq:
		if !p.w.o.evicted(p.id) {
			p.w.o.violate("once", "producer %x, sequence %d, the oldest it has not heard of: %v", p.id[8:], first.batch.FirstSeq, err)
		}
		p.fresh()
		return false
	}
	return false
}

// run produces until everything stops, and then until what is open is decided,
// or it is clear that nobody leads any more.
func (p *simProxy) run() {
	w := p.w
	p.fresh()
	for {
		pace := time.Duration(1+p.rng.IntN(120)) * time.Millisecond
		if p.rng.IntN(40) == 0 {
			pace = time.Duration(p.rng.IntN(5000)) * time.Millisecond
		}
		if !w.pause(pace) {
			return
		}
		n := p.on
		if n == nil || !n.alive.Load() || n.r.View().State != StateLeader {
			if n = w.leader(); n == nil {
				continue
			}
		}
		if n != p.on {
			p.on, p.flight = n, nil
		}
		for len(p.open) < producerWindow && p.rng.IntN(4) > 0 {
			p.make(n)
		}
		if p.rng.IntN(200) == 0 {
			p.mischief(n)
		}
		ok := p.send(n)
		for k := 1 + p.rng.IntN(producerWindow); ok && k > 0 && len(p.flight) > 0; k-- {
			ok = p.hear()
		}
		if !ok {
			p.on, p.flight = nil, nil
		}
	}
}

// mischief does what a producer must not, and expects to be refused.
func (p *simProxy) mischief(n *simNode) {
	b := openBatch{batch: Batch{Producer: p.id, Owner: 7, Epoch: p.epoch, FirstSeq: p.seq + 100, Count: 1}, msgs: []string{fmt.Sprintf("mischief %d", p.rng.Uint64())}}
	kind := p.rng.IntN(5)
	switch kind {
	case 0: // a gap
	case 1: // a stranger
		b.batch.Producer, b.batch.FirstSeq = [16]byte{66, byte(p.rng.IntN(256))}, 5
	case 2: // somebody else's id
		if p.made == 0 {
			return
		}
		b.batch.Owner = 8
	case 3: // a zombie
		if p.epoch == 0 {
			return
		}
		b.batch.Epoch, b.batch.FirstSeq = p.epoch-1, 0
	case 4: // begin again: what is open is given up
		p.epoch++
		p.seq, p.open, p.flight = 0, nil, nil
		return
	}
	heard := p.seq > 0 && len(p.open) == 0 // the table knows this epoch
	x, err := p.submit(n, &b)
	if err != nil {
		return
	}
	if res, err := wait(x, 2*time.Second); err == nil && n.alive.Load() && (heard || kind == 1) && !p.w.o.evicted(p.id) {
		p.w.o.violate("once", "%s takes mischief of kind %d by producer %x at offset %d", n.id, kind, p.id[8:], res.FirstOffset)
	}
}

// anonymous produces without sequences: what was sent and not heard of is sent
// again, and then may be there twice.
func (w *world) anonymous(rng *rand.Rand) {
	for i := 0; ; i++ {
		msg := fmt.Sprintf("anonymous/%d", i)
		since := w.o.sent()
		for decided := false; !decided; {
			if !w.pause(time.Duration(50+rng.IntN(1000)) * time.Millisecond) {
				return
			}
			n := w.leader()
			if n == nil {
				continue
			}
			x, err := n.r.Submit(Batch{Count: 1, Records: simFramed(msg), Timestamp: time.Now().UnixNano()})
			if err != nil {
				continue
			}
			res, err := wait(x, 2*time.Second)
			var not *NotLeaderError
			switch {
			case err == nil && n.alive.Load():
				w.o.acks(n, res, []string{msg}, since)
				decided = true
			case err != nil && n.alive.Load() && (errors.As(err, &not) || errors.Is(err, ErrDraining)):
			default:
				w.o.unsure(msg)
			}
		}
	}
}

// reader follows the log through one node after another, from where it was.
func (w *world) reader(rng *rand.Rand) {
	var next uint64
	type life struct { // of a node's state machine
		n *simNode
		e *engine
	}
	seen := map[life]uint64{}
	for w.pause(time.Duration(20+rng.IntN(400)) * time.Millisecond) {
		up := w.up()
		if len(up) == 0 {
			continue
		}
		n := up[rng.IntN(len(up))]
		log := n.r.Log()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err := n.r.WaitPosition(ctx, next, 50*time.Millisecond)
		cancel()
		var beyond *PositionUnknownError
		if errors.As(err, &beyond) && n.alive.Load() {
			w.o.violate("committed stays readable", "%s leads and knows no position %d: %v", n.id, next, err)
		}
		e := n.r.engine.Load()
		visible := log.Visible()
		if now := (life{n, e}); e != nil && e == n.r.engine.Load() {
			if visible < seen[now] {
				w.o.violate("visible", "%s showed offsets up to %d, now %d", n.id, seen[now], visible)
			}
			seen[now] = visible
		}
		if visible == 0 {
			continue
		}
		if rng.IntN(16) == 0 {
			next = uint64(rng.Int64N(int64(visible)))
		}
		from := max(next, log.Lowest())
		if from >= visible {
			continue
		}
		batches, err := log.Read(from, 1<<(8+rng.IntN(8)))
		if err != nil || len(batches) == 0 {
			continue // it fell out of the log meanwhile, or the node died
		}
		w.o.reads(n, batches, visible)
		last := batches[len(batches)-1]
		next = last.FirstOffset + uint64(last.Count)
	}
}
