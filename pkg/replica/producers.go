package replica

import "container/list"

const (
	// maxProducers bounds the producer table; beyond it the producer whose last
	// batch lies furthest back in the log is forgotten.
	maxProducers = 4096
	// producerWindow is how many batches of a producer are remembered.
	producerWindow = 5
)

// verdict is what the state machine decided about a batch.
type verdict uint8

const (
	accepted verdict = iota
	duplicate
	gap
	fenced
	unknownProducer
)

// outcome is a verdict with what its error or result carries.
type outcome struct {
	verdict verdict
	count   uint32
	offset  uint64 // accepted, duplicate: first offset; gap: the wanted sequence
	epoch   uint32 // fenced: the current epoch
}

// remembered is one batch a producer got appended.
type remembered struct {
	firstSeq uint64
	offset   uint64
	count    uint32
}

// producer is what is kept of one producer id. Its state changes only with its
// place in the log, so that every node forgets it at the same entry.
type producer struct {
	id      [16]byte
	owner   uint64
	epoch   uint32
	nextSeq uint64
	window  [producerWindow]remembered // oldest first
	kept    int                        // how many of window are used
	place   *list.Element              // in producers.order
}

// remember adds a batch to the window and moves the sequence on.
func (p *producer) remember(r remembered) {
	if p.kept == producerWindow {
		copy(p.window[:], p.window[1:])
		p.kept--
	}
	p.window[p.kept] = r
	p.kept++
	p.nextSeq = r.firstSeq + uint64(r.count)
}

// producers is the table. It is deterministic: equal calls in equal order leave
// equal tables.
type producers struct {
	byID  map[[16]byte]*producer
	order *list.List // of *producer; least recently appended first
	max   int
}

func newProducers(max int) *producers {
	return &producers{byID: make(map[[16]byte]*producer), order: list.New(), max: max}
}

// check decides about h without changing the table.
func (t *producers) check(h *header) outcome {
	p := t.byID[h.producer]
	switch {
	case p == nil:
		if h.firstSeq != 0 {
			return outcome{verdict: unknownProducer}
		}
		return outcome{verdict: accepted, count: h.count}
	case p.owner != h.owner:
		// Says no more than to a stranger: the id is somebody else's.
		return outcome{verdict: unknownProducer}
	case h.epoch < p.epoch:
		return outcome{verdict: fenced, epoch: p.epoch}
	case h.epoch > p.epoch:
		if h.firstSeq != 0 {
			return outcome{verdict: gap, offset: 0}
		}
		return outcome{verdict: accepted, count: h.count}
	case h.firstSeq == p.nextSeq:
		return outcome{verdict: accepted, count: h.count}
	}
	for _, r := range p.window[:p.kept] {
		if r.firstSeq == h.firstSeq && r.count == h.count {
			return outcome{verdict: duplicate, offset: r.offset, count: r.count}
		}
	}
	return outcome{verdict: gap, offset: p.nextSeq}
}

// append notes that h, which check accepted, is in the log at offset.
func (t *producers) append(h *header, offset uint64) {
	p := t.byID[h.producer]
	if p == nil {
		p = &producer{id: h.producer, owner: h.owner, epoch: h.epoch}
		t.insert(p)
	}
	if h.epoch > p.epoch {
		p.epoch, p.nextSeq, p.kept = h.epoch, 0, 0
	}
	p.remember(remembered{firstSeq: h.firstSeq, offset: offset, count: h.count})
	t.order.MoveToBack(p.place)
}

// insert adds p as the most recent one and forgets the oldest beyond the limit.
func (t *producers) insert(p *producer) {
	p.place = t.order.PushBack(p)
	t.byID[p.id] = p
	if len(t.byID) > t.max {
		oldest := t.order.Remove(t.order.Front()).(*producer)
		delete(t.byID, oldest.id)
	}
}
