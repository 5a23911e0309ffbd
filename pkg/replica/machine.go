package replica

import (
	"fmt"
	"hash/crc32"

	"github.com/logd-io/logd/pkg/commitlog"
)

// machine is the deterministic core of the state machine: entries in, verdicts
// and offsets out. It does no I/O and reads no clock, so that equal entries in
// equal order leave equal machines (I2).
type machine struct {
	cluster   string // uuid; "" until the first control entry
	applied   uint64 // index of the last entry applied
	term      uint64 // its term
	next      uint64 // offset the next record gets
	lowest    uint64 // lowest offset the cluster still answers for
	bytes     uint64 // payload bytes applied since the beginning of the log
	hash      uint64 // over (index, term, crc) of everything applied
	producers *producers
	keys      *requestKeys
	bugs      bugs // of tests
}

func newMachine() *machine {
	return &machine{producers: newProducers(maxProducers), keys: newRequestKeys(maxKeys)}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// step notes that an entry is applied. It reports false, and nothing may be
// changed, when the entry had been applied before (I3).
func (m *machine) step(index, term uint64, data []byte) bool {
	if index <= m.applied {
		return false
	}
	m.applied, m.term = index, term
	m.bytes += uint64(len(data))
	m.hash = mix(mix(mix(m.hash, index), term), uint64(crc32.Checksum(data, castagnoli)))
	return true
}

// mix is one round of splitmix64 over h and v.
func mix(h, v uint64) uint64 {
	h = h*0x9e3779b97f4a7c15 + v + 0x9e3779b97f4a7c15
	h ^= h >> 30
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 27
	h *= 0x94d049bb133111eb
	return h ^ h>>31
}

// data decides about every batch of a data entry. It appends the outcomes to
// out and the accepted batches to pub.
func (m *machine) data(index uint64, payload []byte, out []outcome, pub []commitlog.Applied) ([]outcome, []commitlog.Applied, error) {
	err := decodeData(payload, func(h *header) {
		o := m.decide(h)
		if o.verdict == accepted {
			pub = append(pub, commitlog.Applied{
				FirstOffset: o.offset, Count: h.count, Index: index,
				Pos: h.pos, Len: h.len, Timestamp: h.timestamp,
			})
		}
		out = append(out, o)
	})
	if err != nil {
		return out, pub, unknownEntry(index, m.term, err)
	}
	return out, pub, nil
}

// decide gives the verdict on one batch and carries it out. Only an accepted
// batch takes offsets.
func (m *machine) decide(h *header) outcome {
	o := outcome{verdict: accepted, count: h.count}
	sequenced := h.producer != [16]byte{}
	if sequenced && m.bugs.expireByClock {
		m.producers.expire()
	}
	if sequenced && !m.bugs.noSequence {
		if o = m.producers.check(h); o.verdict != accepted {
			if o.verdict == duplicate && m.bugs.newOffsets {
				o.offset = m.next
			}
			return o
		}
	}
	o.offset = m.next
	if h.keyed() {
		if off, ok := m.keys.find(h.key); ok {
			// The record came before, through another proxy. The sequence moves
			// on all the same, or this producer's next batch would be a gap.
			o.verdict, o.offset = duplicate, off
		} else {
			m.keys.add(h.key, m.next)
		}
	}
	if sequenced {
		m.producers.append(h, o.offset)
	}
	if o.verdict == accepted {
		m.next += uint64(h.count)
	}
	return o
}

// control carries out a control entry. An announcement changes nothing.
func (m *machine) control(index uint64, payload []byte) error {
	c, err := decodeControl(payload)
	if err != nil {
		return unknownEntry(index, m.term, err)
	}
	switch {
	case c.former != "" && (m.cluster == c.former || m.cluster == ""):
		m.cluster = c.cluster // what was recovered of a cluster is another one
	case c.cluster != "" && m.cluster == "":
		m.cluster = c.cluster
	case c.cluster != "" && m.cluster != c.cluster:
		return fmt.Errorf("apply entry %d: %w", index, &ClusterMismatchError{Bound: m.cluster, Got: c.cluster})
	case c.cluster == "" && c.state == nil:
		// Never beyond the end: the lowest offset must stay one a reader can wait for.
		m.lowest = max(m.lowest, min(c.lowest, m.next))
	}
	return nil
}
