package commitlog

import (
	"encoding/binary"
	"hash/crc32"
)

// A frame is an entry on disk, little endian, at a place that is a multiple of
// 8:
//
//	 0       4            8        16       24     25      26        28
//	+-------+------------+--------+--------+------+-------+---------+-------------+
//	| len   | header crc | index  | term   | type | flags | ordinal | payload crc |
//	| u32   | u32        | u64    | u64    | u8   | u8    | u16     | u32         |
//	+-------+------------+--------+--------+------+-------+---------+-------------+
//	 32               40               48                48+len
//	+----------------+----------------+------------------+----------------+
//	| appended at    | commit index   | payload          | zeros to a     |
//	| i64 unix ns    | u64            |                  | multiple of 8  |
//	+----------------+----------------+------------------+----------------+
//
// Both CRCs are crc32c. The header's covers bytes 0–4 and 8–48 and is seeded
// with the segment's id and the frame's place, so a header verifies only where
// it was written. The payload's stands in the header, so index and term of a
// damaged payload are still known.
//
// ordinal counts the frames before this one in the same write. Frames of one
// write may survive a power loss in any combination; recovery needs to know
// that a good frame behind a damaged one proves nothing when both were written
// at once. commit index is the highest the writer knew when it wrote.
const (
	frameHeaderBytes = 48
	frameAlign       = 8
	// maxOrdinal bounds the frames of one write; Append makes several of more.
	maxOrdinal = 1<<16 - 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frameHeader is a decoded header.
type frameHeader struct {
	length     uint32
	payloadCRC uint32
	index      uint64
	term       uint64
	typ        uint8
	ordinal    uint16
	appendedAt int64
	commit     uint64
}

// bytes is the room the whole frame takes.
func (h *frameHeader) bytes() int64 { return frameBytes(int(h.length)) }

// frameBytes is the room a frame with so much payload takes.
func frameBytes(payload int) int64 {
	return frameHeaderBytes + (int64(payload)+frameAlign-1)&^(frameAlign-1)
}

func crc(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// headerSeed spreads the upper half of an id.
const headerSeed = 0x9e3779b1

// headerCRC is the CRC of the frame header b at place of segment id. Its
// initial value differs for any two places of a segment, and for two segments
// but for one chance in 2^32; and a CRC carries every such difference through.
func headerCRC(b []byte, id uint64, place int64) uint32 {
	seed := uint32(id) ^ uint32(id>>32)*headerSeed
	seed += uint32(place / frameAlign)
	seed = crc32.Update(seed, castagnoli, b[0:4])
	return crc32.Update(seed, castagnoli, b[8:frameHeaderBytes])
}

var zeros [frameHeaderBytes]byte

// appendFrame encodes e as the frame at place of segment id.
func appendFrame(buf []byte, e *Entry, id uint64, place int64, ordinal uint16, commit uint64) []byte {
	begin := len(buf)
	buf = append(buf, zeros[:]...)
	h := buf[begin:]
	le := binary.LittleEndian
	le.PutUint32(h[0:], uint32(len(e.Data)))
	le.PutUint64(h[8:], e.Index)
	le.PutUint64(h[16:], e.Term)
	h[24] = e.Type
	le.PutUint16(h[26:], ordinal)
	le.PutUint32(h[28:], crc(e.Data))
	le.PutUint64(h[32:], uint64(e.AppendedAt))
	le.PutUint64(h[40:], commit)
	le.PutUint32(h[4:], headerCRC(h, id, place))
	buf = append(buf, e.Data...)
	pad := frameBytes(len(e.Data)) - frameHeaderBytes - int64(len(e.Data))
	return append(buf, zeros[:pad]...)
}

// decodeHeader decodes the frame header that b, at place of segment id, begins
// with. ok is false when none verifies there.
func decodeHeader(b []byte, id uint64, place int64) (h frameHeader, ok bool) {
	if len(b) < frameHeaderBytes {
		return h, false
	}
	le := binary.LittleEndian
	h = frameHeader{
		length:     le.Uint32(b[0:]),
		index:      le.Uint64(b[8:]),
		term:       le.Uint64(b[16:]),
		typ:        b[24],
		ordinal:    le.Uint16(b[26:]),
		payloadCRC: le.Uint32(b[28:]),
		appendedAt: int64(le.Uint64(b[32:])),
		commit:     le.Uint64(b[40:]),
	}
	// The cheap tests come first: a search makes this call at every place.
	if h.index == 0 || h.length > MaxEntryBytes || b[25] != 0 {
		return h, false
	}
	return h, le.Uint32(b[4:]) == headerCRC(b, id, place)
}

// verifyPayload reports whether b, a whole frame with the header h, holds the
// payload that was written, zeros behind it.
func (h *frameHeader) verifyPayload(b []byte) bool {
	end := frameHeaderBytes + int(h.length)
	if int64(len(b)) < h.bytes() || crc(b[frameHeaderBytes:end]) != h.payloadCRC {
		return false
	}
	for _, z := range b[end:h.bytes()] {
		if z != 0 {
			return false
		}
	}
	return true
}

// entry returns the entry in b, a whole frame with the header h, as a view.
func (h *frameHeader) entry(b []byte) Entry {
	end := frameHeaderBytes + int(h.length)
	return Entry{
		Index:      h.index,
		Term:       h.term,
		Type:       h.typ,
		AppendedAt: h.appendedAt,
		Data:       b[frameHeaderBytes:end:end],
	}
}
