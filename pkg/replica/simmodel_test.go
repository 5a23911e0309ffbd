package replica

import "encoding/binary"

// simModel says what the state machine has to decide. It is written down a
// second time, as simply as can be: lists, and everything is looked for.
type simModel struct {
	next      uint64
	producers []*simProducer // least recently appended first
	keys      []simKey       // oldest first
	gone      map[[16]byte]uint64
	lost      map[[16]byte]uint64 // request key → entry at which it was forgotten
	maxProd   int
	maxKeys   int
}

type simProducer struct {
	id      [16]byte
	owner   uint64
	epoch   uint32
	batches []remembered // all of this epoch
}

type simKey struct {
	key    [16]byte
	offset uint64
}

func newSimModel(maxProd, maxKeys int) *simModel {
	return &simModel{maxProd: maxProd, maxKeys: maxKeys, gone: map[[16]byte]uint64{}, lost: map[[16]byte]uint64{}}
}

func (m *simModel) decide(index uint64, h *header) outcome {
	var p *simProducer
	at := -1
	for i, x := range m.producers {
		if x.id == h.producer {
			p, at = x, i
		}
	}
	sequenced := h.producer != [16]byte{}
	if sequenced {
		if o, ok := m.refuse(p, h); ok {
			return o
		}
	}
	o := outcome{verdict: accepted, count: h.count, offset: m.next}
	for _, k := range m.keys {
		if h.keyed() && k.key == h.key {
			o.verdict, o.offset = duplicate, k.offset
		}
	}
	if h.keyed() && o.verdict == accepted {
		m.keys = append(m.keys, simKey{h.key, m.next})
		if len(m.keys) > m.maxKeys {
			m.lost[m.keys[0].key] = index
			m.keys = m.keys[1:]
		}
	}
	if sequenced {
		if p == nil {
			p = &simProducer{id: h.producer, owner: h.owner, epoch: h.epoch}
		} else {
			m.producers = append(m.producers[:at:at], m.producers[at+1:]...)
		}
		if h.epoch > p.epoch {
			p.epoch, p.batches = h.epoch, nil
		}
		p.batches = append(p.batches, remembered{h.firstSeq, o.offset, h.count})
		m.producers = append(m.producers, p)
		if len(m.producers) > m.maxProd {
			m.gone[m.producers[0].id] = index
			m.producers = m.producers[1:]
		}
	}
	if o.verdict == accepted {
		m.next += uint64(h.count)
	}
	return o
}

// refuse gives the verdict on a batch that is not the next one of its producer.
func (m *simModel) refuse(p *simProducer, h *header) (outcome, bool) {
	switch {
	case p == nil && h.firstSeq != 0, p != nil && p.owner != h.owner:
		return outcome{verdict: unknownProducer}, true
	case p == nil:
		return outcome{}, false
	case h.epoch < p.epoch:
		return outcome{verdict: fenced, epoch: p.epoch}, true
	case h.epoch > p.epoch:
		return outcome{verdict: gap}, h.firstSeq != 0
	}
	var want uint64
	for i, b := range p.batches {
		want = b.firstSeq + uint64(b.count)
		if i >= len(p.batches)-producerWindow && b.firstSeq == h.firstSeq && b.count == h.count {
			return outcome{verdict: duplicate, offset: b.offset, count: b.count}, true
		}
	}
	return outcome{verdict: gap, offset: want}, h.firstSeq != want
}

// texts gives the records of a batch.
func texts(records []byte) (out []string) {
	for len(records) > 0 {
		n, w := binary.Uvarint(records)
		out = append(out, string(records[w:w+int(n)]))
		records = records[w+int(n):]
	}
	return out
}
