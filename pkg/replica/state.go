package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A checkpoint's state, little endian, counts bounded by the caps of the tables:
//
//	version u8 = 1 | uuid length u8 | uuid
//	| applied u64 | term u64 | next u64 | lowest u64 | bytes u64 | hash u64
//	| producers u32 | producer...   (least recently appended first)
//	| keys u32      | {key 16B, offset u64}...   (oldest first)
//	producer: id 16B | owner u64 | epoch u32 | next sequence u64 | kept u8
//	          | kept × {first sequence u64, offset u64, count u32}
const stateVersion = 1

var errState = errors.New("malformed checkpoint state")

// encode gives the machine's whole state.
func (m *machine) encode() []byte {
	size := 2 + len(m.cluster) + 6*8 + 8 + m.producers.order.Len()*(37+producerWindow*20) + len(m.keys.ring)*24
	b := make([]byte, 0, size)
	b = append(b, stateVersion, byte(len(m.cluster)))
	b = append(b, m.cluster...)
	for _, v := range []uint64{m.applied, m.term, m.next, m.lowest, m.bytes, m.hash} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(m.producers.order.Len()))
	for e := m.producers.order.Front(); e != nil; e = e.Next() {
		p := e.Value.(*producer)
		b = append(b, p.id[:]...)
		b = binary.LittleEndian.AppendUint64(b, p.owner)
		b = binary.LittleEndian.AppendUint32(b, p.epoch)
		b = binary.LittleEndian.AppendUint64(b, p.nextSeq)
		b = append(b, byte(p.kept))
		for _, r := range p.window[:p.kept] {
			b = binary.LittleEndian.AppendUint64(b, r.firstSeq)
			b = binary.LittleEndian.AppendUint64(b, r.offset)
			b = binary.LittleEndian.AppendUint32(b, r.count)
		}
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(m.keys.ring)))
	m.keys.each(func(key [16]byte, offset uint64) {
		b = append(b, key[:]...)
		b = binary.LittleEndian.AppendUint64(b, offset)
	})
	return b
}

// cursor reads fixed fields; bad is set once by the first read past the end.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if c.bad || n > len(c.b) {
		c.bad = true
		return make([]byte, min(n, 255))
	}
	p := c.b[:n]
	c.b = c.b[n:]
	return p
}

func (c *cursor) u8() byte    { return c.take(1)[0] }
func (c *cursor) u32() uint32 { return binary.LittleEndian.Uint32(c.take(4)) }
func (c *cursor) u64() uint64 { return binary.LittleEndian.Uint64(c.take(8)) }
func (c *cursor) id() (id [16]byte) {
	copy(id[:], c.take(16))
	return id
}

// decodeMachine reads what encode wrote. Arbitrary bytes give an error, never
// an allocation beyond a few times their own size.
func decodeMachine(b []byte) (*machine, error) {
	c := &cursor{b: b}
	if v := c.u8(); v != stateVersion {
		return nil, fmt.Errorf("%w: version %d", errState, v)
	}
	m := newMachine()
	m.cluster = string(c.take(int(c.u8())))
	for _, v := range []*uint64{&m.applied, &m.term, &m.next, &m.lowest, &m.bytes, &m.hash} {
		*v = c.u64()
	}
	n := c.u32()
	if n > maxProducers {
		return nil, fmt.Errorf("%w: %d producers", errState, n)
	}
	for range n {
		p := &producer{id: c.id(), owner: c.u64(), epoch: c.u32(), nextSeq: c.u64(), kept: int(c.u8())}
		if c.bad || p.kept > producerWindow || m.producers.byID[p.id] != nil {
			return nil, fmt.Errorf("%w: producer", errState)
		}
		for i := range p.kept {
			p.window[i] = remembered{firstSeq: c.u64(), offset: c.u64(), count: c.u32()}
		}
		m.producers.insert(p)
	}
	n = c.u32()
	if n > maxKeys || c.bad {
		return nil, fmt.Errorf("%w: %d request keys", errState, n)
	}
	for range n {
		key, off := c.id(), c.u64()
		if _, ok := m.keys.find(key); ok || c.bad {
			return nil, fmt.Errorf("%w: request key", errState)
		}
		m.keys.add(key, off)
	}
	if c.bad || len(c.b) != 0 || (m.cluster != "" && checkUUID(m.cluster) != nil) {
		return nil, errState
	}
	return m, nil
}
