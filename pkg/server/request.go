package server

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/logd-io/logd/pkg/apierr"
)

// produceRecord is the record of a log.v1.ProduceRequest. A record that comes in
// several parts is their concatenation, which is how protobuf merges messages.
// A request without one is an empty record.
func produceRecord(b []byte) ([]byte, error) {
	var rec []byte
	parts := 0
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, malformed("", protowire.ParseError(n))
		}
		b = b[n:]
		n, err := fieldLen(num, typ, b)
		if err != nil {
			return nil, malformed("", err)
		}
		if num == 1 {
			if typ != protowire.BytesType {
				return nil, malformed("record", fmt.Errorf("wire type %d", typ))
			}
			part, _ := protowire.ConsumeBytes(b)
			switch parts++; parts {
			case 1:
				rec = part
			case 2: // the first part is the message's: what follows it there stays
				rec = append(rec[:len(rec):len(rec)], part...)
			default: // ours to grow, so that a thousand pieces are not joined a thousand times
				rec = append(rec, part...)
			}
		}
		b = b[n:]
	}
	return rec, nil
}

// maxTraceparent is the length of a traceparent of the version there is.
const maxTraceparent = 55

// appendRequest is a node.v1.AppendRequest; records points into the message.
type appendRequest struct {
	producer [16]byte
	epoch    uint32
	firstSeq uint64
	count    uint32
	records  []byte
	key      [16]byte
	trace    []byte // the traceparent
}

func parseAppend(b []byte) (r appendRequest, err error) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return r, malformed("", protowire.ParseError(n))
		}
		b = b[n:]
		n, err := fieldLen(num, typ, b)
		if err != nil {
			return r, malformed("", err)
		}
		val := b[:n]
		b = b[n:]
		want := typ
		switch num {
		case 1, 5, 6, 7:
			want = protowire.BytesType
		case 2, 3, 4:
			want = protowire.VarintType
		}
		if typ != want {
			return r, malformed("", fmt.Errorf("field %d has wire type %d", num, typ))
		}
		switch num {
		case 1:
			err = id16(&r.producer, val, "producer_id")
		case 2:
			err = uint32Field(&r.epoch, val, "epoch")
		case 3:
			r.firstSeq, _ = protowire.ConsumeVarint(val)
		case 4:
			err = uint32Field(&r.count, val, "count")
		case 5:
			r.records, _ = protowire.ConsumeBytes(val)
		case 6:
			err = id16(&r.key, val, "request_key")
		case 7:
			if r.trace, _ = protowire.ConsumeBytes(val); len(r.trace) > maxTraceparent {
				r.trace = nil // it is no reason to refuse a batch
			}
		}
		if err != nil {
			return r, err
		}
	}
	switch {
	case r.count == 0:
		return r, apierr.Invalid{Field: "count", Why: "a batch holds at least one record"}
	case r.key != [16]byte{} && r.count != 1:
		return r, apierr.Invalid{Field: "request_key", Why: fmt.Sprintf("a batch with a request key holds one record, not %d", r.count)}
	case r.firstSeq+uint64(r.count) < r.firstSeq:
		return r, apierr.Invalid{Field: "first_sequence", Why: "the sequence overflows"}
	}
	return r, nil
}

// id16 reads an id that is absent, empty or 16 bytes other than zero.
func id16(dst *[16]byte, val []byte, field string) error {
	b, _ := protowire.ConsumeBytes(val)
	switch {
	case len(b) == 0:
		*dst = [16]byte{}
		return nil
	case len(b) != len(dst):
		return apierr.Invalid{Field: field, Why: fmt.Sprintf("%d bytes, not 16", len(b))}
	}
	copy(dst[:], b)
	if *dst == [16]byte{} {
		return apierr.Invalid{Field: field, Why: "all zero"}
	}
	return nil
}

// uint32Field refuses what protobuf would silently truncate: a shortened count
// or epoch means something else.
func uint32Field(dst *uint32, val []byte, field string) error {
	n, _ := protowire.ConsumeVarint(val)
	if n > 1<<32-1 {
		return apierr.Invalid{Field: field, Why: fmt.Sprintf("%d does not fit 32 bits", n)}
	}
	*dst = uint32(n)
	return nil
}

// produceResponse is a log.v1.ProduceResponse.
func produceResponse(offset uint64) *frame {
	var b []byte
	if offset != 0 {
		b = protowire.AppendTag(b, 1, protowire.VarintType)
		b = protowire.AppendVarint(b, offset)
	}
	return &frame{out: [][]byte{b}}
}

// fetchResponse is a node.v1.FetchResponse whose records are not copied. With a cluster
// it has what a backup needs.
func fetchResponse(batches []wireBatch, r room, visible, lowest uint64, cluster string) *frame {
	out := make([][]byte, 0, 2*len(batches)+1)
	for _, b := range batches {
		inner := protowire.AppendTag(nil, 1, protowire.VarintType)
		inner = protowire.AppendVarint(inner, b.first)
		inner = protowire.AppendTag(inner, 2, protowire.VarintType)
		inner = protowire.AppendVarint(inner, uint64(b.count))
		if cluster != "" {
			inner = protowire.AppendTag(inner, 4, protowire.VarintType)
			inner = protowire.AppendVarint(inner, uint64(b.stamp))
		}
		inner = protowire.AppendTag(inner, 3, protowire.BytesType)
		inner = protowire.AppendVarint(inner, uint64(len(b.records)))
		head := protowire.AppendTag(make([]byte, 0, len(inner)+12), 1, protowire.BytesType)
		head = protowire.AppendVarint(head, uint64(len(inner)+len(b.records)))
		out = append(out, append(head, inner...), b.records)
	}
	tail := protowire.AppendTag(nil, 2, protowire.VarintType)
	tail = protowire.AppendVarint(tail, visible)
	tail = protowire.AppendTag(tail, 3, protowire.VarintType)
	tail = protowire.AppendVarint(tail, lowest)
	if cluster != "" {
		tail = protowire.AppendTag(tail, 4, protowire.BytesType)
		tail = protowire.AppendString(tail, cluster)
	}
	return &frame{out: append(out, tail), room: r.buf}
}

// appendResponse is a node.v1.AppendResponse.
func appendResponse(seq, first uint64, count uint32, duplicate bool) *frame {
	var b []byte
	put := func(num protowire.Number, v uint64) {
		if v != 0 {
			b = protowire.AppendTag(b, num, protowire.VarintType)
			b = protowire.AppendVarint(b, v)
		}
	}
	put(1, seq)
	put(2, first)
	put(3, uint64(count))
	put(4, protowire.EncodeBool(duplicate))
	return &frame{out: [][]byte{b}}
}
