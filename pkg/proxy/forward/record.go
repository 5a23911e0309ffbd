package forward

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/logd-io/logd/pkg/apierr"
)

// Field numbers of log.v1.
const (
	produceRequestRecord  = 1
	produceResponseOffset = 1
	consumeResponseRecord = 2
	recordValue           = 1
	recordOffset          = 2
	recordTerm            = 3
	recordType            = 4
	recordKey             = 5
	recordHeaders         = 6
	recordTimestamp       = 7
	headerKey             = 1
	headerValue           = 2
)

// recordOf is the encoded Record of an encoded ProduceRequest: a part of req, or
// a new slice when the request brings the record in pieces, which protobuf
// merges, and merging encoded messages is joining them. A request without one is an
// empty record.
func recordOf(req []byte, limit int) ([]byte, error) {
	var rec []byte
	parts := 0
	for b := req; len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, apierr.Invalid{Why: "malformed request"}
		}
		b = b[n:]
		if num == produceRequestRecord && typ == protowire.BytesType {
			part, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return nil, apierr.Invalid{Field: "record", Why: "malformed"}
			}
			b = b[n:]
			switch parts++; parts {
			case 1:
				rec = part
			case 2: // the first part is the request's: what follows it there stays
				rec = append(rec[:len(rec):len(rec)], part...)
			default: // ours to grow, so that a thousand pieces are not joined a thousand times
				rec = append(rec, part...)
			}
			continue
		}
		if n = fieldLen(num, typ, b); n < 0 || num == produceRequestRecord {
			return nil, apierr.Invalid{Why: "malformed request"}
		}
		b = b[n:]
	}
	if len(rec) > limit {
		return nil, apierr.Invalid{Field: "record", Why: fmt.Sprintf("%d bytes, the limit is %d", len(rec), limit)}
	}
	return rec, checkRecord(rec)
}

// fieldLen is the length of a field's value, negative when it is malformed, has a
// number that decoders refuse and ConsumeTag does not, or is a group, which some
// protobuf implementations limit and others do not.
func fieldLen(num protowire.Number, typ protowire.Type, b []byte) int {
	if num > protowire.MaxValidNumber || typ == protowire.StartGroupType || typ == protowire.EndGroupType {
		return -1
	}
	return protowire.ConsumeFieldValue(num, typ, b)
}

// checkRecord refuses what a protobuf decoder of any language may refuse: a record
// in the log that nobody can decode would stop every consumer behind it. Nodes
// check the same, and what they refused would have cost a batch.
func checkRecord(rec []byte) error {
	for len(rec) > 0 {
		num, typ, n := protowire.ConsumeTag(rec)
		if n < 0 {
			return apierr.Invalid{Field: "record", Why: "malformed"}
		}
		rec = rec[n:]
		want, known := recordFieldType(num)
		if known && typ != want {
			return apierr.Invalid{Field: "record", Why: fmt.Sprintf("field %d has wire type %d, not %d", num, typ, want)}
		}
		if num == recordHeaders {
			h, n := protowire.ConsumeBytes(rec)
			if n < 0 {
				return apierr.Invalid{Field: "record.headers", Why: "malformed"}
			}
			if err := checkHeader(h); err != nil {
				return err
			}
			rec = rec[n:]
			continue
		}
		if n = fieldLen(num, typ, rec); n < 0 {
			return apierr.Invalid{Field: "record", Why: "malformed"}
		}
		rec = rec[n:]
	}
	return nil
}

func recordFieldType(num protowire.Number) (protowire.Type, bool) {
	switch num {
	case recordValue, recordKey, recordHeaders:
		return protowire.BytesType, true
	case recordOffset, recordTerm, recordType, recordTimestamp:
		return protowire.VarintType, true
	}
	return 0, false
}

func checkHeader(h []byte) error {
	for len(h) > 0 {
		num, typ, n := protowire.ConsumeTag(h)
		if n < 0 {
			return apierr.Invalid{Field: "record.headers", Why: "malformed"}
		}
		h = h[n:]
		if num == headerKey || num == headerValue {
			if typ != protowire.BytesType {
				return apierr.Invalid{Field: "record.headers", Why: fmt.Sprintf("field %d has wire type %d", num, typ)}
			}
			v, n := protowire.ConsumeBytes(h)
			if n < 0 {
				return apierr.Invalid{Field: "record.headers", Why: "malformed"}
			}
			if num == headerKey && !utf8.Valid(v) {
				return apierr.Invalid{Field: "record.headers.key", Why: "not UTF-8"}
			}
			h = h[n:]
			continue
		}
		if n = fieldLen(num, typ, h); n < 0 {
			return apierr.Invalid{Field: "record.headers", Why: "malformed"}
		}
		h = h[n:]
	}
	return nil
}

// framedLen is the length of rec in a batch: {uvarint length, record}.
func framedLen(rec int) int { return protowire.SizeBytes(rec) }

// consumeLen is the length of an encoded ConsumeResponse with rec at offset:
//
//	0x12 | length | rec as stored | 0x10 | offset
//
// Of a field that comes twice protobuf takes the last, so an offset the producer
// had put into the record does not show.
func consumeLen(rec int, offset uint64) int {
	return 1 + protowire.SizeBytes(rec+1+protowire.SizeVarint(offset))
}

func appendConsume(b, rec []byte, offset uint64) []byte {
	b = protowire.AppendTag(b, consumeResponseRecord, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(len(rec)+1+protowire.SizeVarint(offset)))
	b = append(b, rec...)
	b = protowire.AppendTag(b, recordOffset, protowire.VarintType)
	return protowire.AppendVarint(b, offset)
}

// produced is an encoded ProduceResponse.
type produced uint64

func (p produced) encoded() mem.BufferSlice {
	b := make([]byte, 0, 1+binary.MaxVarintLen64)
	if p != 0 {
		b = protowire.AppendTag(b, produceResponseOffset, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(p))
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}
}

// encodedMessage is a message whose bytes are at hand. It can be sent once.
type encodedMessage struct {
	data mem.BufferSlice
}

func (m *encodedMessage) encoded() mem.BufferSlice { return m.data }
