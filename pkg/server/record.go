package server

import (
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/logd-io/logd/pkg/apierr"
)

// Field numbers of log.v1.Record and log.v1.Header.
const (
	recordValue     = 1
	recordOffset    = 2
	recordTerm      = 3
	recordType      = 4
	recordKey       = 5
	recordHeaders   = 6
	recordTimestamp = 7

	headerKey   = 1
	headerValue = 2
)

// stampBytes is the most a stamped record grows: tag and varint of the timestamp,
// and its longer length prefix.
const stampBytes = 1 + 10 + 1

// recordFacts is what the door learns about a record without decoding it.
type recordFacts struct {
	stamped  bool // has a timestamp other than zero
	reserved bool // has an offset, term or type, which have to go
}

// intact says that the record can be stored as it came.
func (f recordFacts) intact() bool { return f.stamped && !f.reserved }

// inspect checks that b is a log.v1.Record any protobuf implementation reads the
// same way: known fields have their wire type, header keys are UTF-8, and there
// are no groups, which some implementations limit and others do not. Unknown
// fields are kept.
func inspect(b []byte, limit int) (recordFacts, error) {
	if len(b) > limit {
		return recordFacts{}, fmt.Errorf("record of %d bytes, at most %d", len(b), limit)
	}
	var f recordFacts
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return f, protowire.ParseError(n)
		}
		b = b[n:]
		n, err := fieldLen(num, typ, b)
		if err != nil {
			return f, err
		}
		val := b[:n]
		b = b[n:]
		want := typ
		switch num {
		case recordValue, recordKey:
			want = protowire.BytesType
		case recordOffset, recordTerm, recordType:
			want, f.reserved = protowire.VarintType, true
		case recordHeaders:
			want = protowire.BytesType
			if typ == want {
				h, _ := protowire.ConsumeBytes(val)
				if err := inspectHeader(h); err != nil {
					return f, err
				}
			}
		case recordTimestamp:
			want = protowire.VarintType
			if typ == want {
				ts, _ := protowire.ConsumeVarint(val)
				f.stamped = ts != 0 // the last value wins
			}
		}
		if typ != want {
			return f, fmt.Errorf("field %d has wire type %d, not %d", num, typ, want)
		}
	}
	return f, nil
}

func inspectHeader(b []byte) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		n, err := fieldLen(num, typ, b)
		if err != nil {
			return err
		}
		if (num == headerKey || num == headerValue) && typ != protowire.BytesType {
			return fmt.Errorf("header field %d has wire type %d", num, typ)
		}
		if num == headerKey {
			if key, _ := protowire.ConsumeBytes(b[:n]); !utf8.Valid(key) {
				return fmt.Errorf("header key is not UTF-8")
			}
		}
		b = b[n:]
	}
	return nil
}

// fieldLen is the length of the field's value at the start of b.
func fieldLen(num protowire.Number, typ protowire.Type, b []byte) (int, error) {
	switch {
	case num > protowire.MaxValidNumber: // ConsumeTag lets it through, decoders do not
		return 0, fmt.Errorf("field number %d", num)
	case typ == protowire.StartGroupType || typ == protowire.EndGroupType:
		return 0, fmt.Errorf("field %d is a group", num)
	}
	n := protowire.ConsumeFieldValue(num, typ, b)
	if n < 0 {
		return 0, protowire.ParseError(n)
	}
	return n, nil
}

// appendStored appends {uvarint length, record} as the log keeps it: without
// offset, term and type, and with a timestamp. rec has passed inspect.
func appendStored(dst, rec []byte, f recordFacts, now int64) []byte {
	kept := rec
	if f.reserved {
		kept = withoutReserved(rec)
	}
	size := len(kept)
	if !f.stamped {
		size += protowire.SizeTag(recordTimestamp) + protowire.SizeVarint(uint64(now))
	}
	dst = protowire.AppendVarint(dst, uint64(size))
	dst = append(dst, kept...)
	if !f.stamped {
		dst = protowire.AppendTag(dst, recordTimestamp, protowire.VarintType)
		dst = protowire.AppendVarint(dst, uint64(now))
	}
	return dst
}

func withoutReserved(rec []byte) []byte {
	kept := make([]byte, 0, len(rec))
	for len(rec) > 0 {
		num, _, n := protowire.ConsumeField(rec)
		if num != recordOffset && num != recordTerm && num != recordType {
			kept = append(kept, rec[:n]...)
		}
		rec = rec[n:]
	}
	return kept
}

// storedBatch checks count records and gives them as the log keeps them. What
// needs no change is not copied; raw must not change afterwards.
func storedBatch(raw []byte, count uint32, limit int, now int64) ([]byte, error) {
	var out []byte // nil while everything so far is intact
	rest := raw
	for i := uint32(0); i < count; i++ {
		at := len(raw) - len(rest)
		rec, n := protowire.ConsumeBytes(rest)
		if n < 0 {
			return nil, malformed(fmt.Sprintf("records[%d]", i), protowire.ParseError(n))
		}
		rest = rest[n:]
		f, err := inspect(rec, limit)
		switch {
		case err != nil:
			return nil, malformed(fmt.Sprintf("records[%d]", i), err)
		case f.intact() && out == nil:
		case f.intact():
			out = append(out, raw[at:at+n]...)
		default:
			if out == nil {
				// What is left of a hostile count does not decide about memory.
				grow := min(int(count-i)*stampBytes, len(raw)-at+stampBytes)
				out = append(make([]byte, 0, len(raw)+grow), raw[:at]...)
			}
			out = appendStored(out, rec, f, now)
		}
	}
	if len(rest) > 0 {
		return nil, apierr.Invalid{Field: "records", Why: fmt.Sprintf("%d bytes after the %d records of count", len(rest), count)}
	}
	if out == nil {
		return raw, nil
	}
	return out, nil
}

// splitRecord takes the first record off a stored batch.
func splitRecord(records []byte) (rec, rest []byte, err error) {
	rec, n := protowire.ConsumeBytes(records)
	if n < 0 {
		return nil, nil, fmt.Errorf("stored batch: %w", protowire.ParseError(n))
	}
	return rec, records[n:], nil
}

// consumeResponse is a log.v1.ConsumeResponse with the stored record and its
// offset behind it, where it overrules any other: in protobuf the last value wins.
func consumeResponse(rec []byte, offset uint64) *frame {
	size := len(rec) + protowire.SizeTag(recordOffset) + protowire.SizeVarint(offset)
	b := make([]byte, 0, size+12)
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	b = append(b, rec...)
	b = protowire.AppendTag(b, recordOffset, protowire.VarintType)
	b = protowire.AppendVarint(b, offset)
	return &frame{out: [][]byte{b}}
}

func malformed(field string, err error) error {
	return apierr.Invalid{Field: field, Why: err.Error()}
}
