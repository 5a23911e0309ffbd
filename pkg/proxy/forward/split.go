package forward

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of node.v1.FetchResponse and Batch.
const (
	fetchBatches = 1
	fetchVisible = 2
	batchFirst   = 1
	batchCount   = 2
	batchRecords = 3
)

// errMalformed is a node's message that does not parse.
var errMalformed = errors.New("malformed answer of a node")

// wireBatch is a fetched batch, its records as they are stored.
type wireBatch struct {
	first   uint64
	count   uint32
	records []byte // count times {uvarint length, record}
}

// eachBatch calls fn for the batches of an encoded FetchResponse, in order.
func eachBatch(resp []byte, fn func(wireBatch) error) error {
	for len(resp) > 0 {
		num, typ, n := protowire.ConsumeTag(resp)
		if n < 0 {
			return errMalformed
		}
		resp = resp[n:]
		if num != fetchBatches || typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, typ, resp); n < 0 {
				return errMalformed
			}
			resp = resp[n:]
			continue
		}
		v, n := protowire.ConsumeBytes(resp)
		if n < 0 {
			return errMalformed
		}
		resp = resp[n:]
		b, err := parseBatch(v)
		if err != nil {
			return err
		}
		if err := fn(b); err != nil {
			return err
		}
	}
	return nil
}

// visibleOf is the end of the answering node's log in an encoded FetchResponse that
// eachBatch took; 0 when it does not say.
func visibleOf(resp []byte) (visible uint64) {
	for len(resp) > 0 {
		num, typ, n := protowire.ConsumeTag(resp)
		if n < 0 {
			return visible
		}
		resp = resp[n:]
		if num == fetchVisible && typ == protowire.VarintType {
			visible, _ = protowire.ConsumeVarint(resp)
		}
		if n = protowire.ConsumeFieldValue(num, typ, resp); n < 0 {
			return visible
		}
		resp = resp[n:]
	}
	return visible
}

func parseBatch(v []byte) (b wireBatch, err error) {
	for len(v) > 0 {
		num, typ, n := protowire.ConsumeTag(v)
		if n < 0 {
			return b, errMalformed
		}
		v = v[n:]
		switch {
		case num == batchFirst && typ == protowire.VarintType:
			b.first, n = protowire.ConsumeVarint(v)
		case num == batchCount && typ == protowire.VarintType:
			var count uint64
			count, n = protowire.ConsumeVarint(v)
			b.count = uint32(count)
		case num == batchRecords && typ == protowire.BytesType:
			b.records, n = protowire.ConsumeBytes(v)
		default:
			n = protowire.ConsumeFieldValue(num, typ, v)
		}
		if n < 0 {
			return b, errMalformed
		}
		v = v[n:]
	}
	if b.first+uint64(b.count) < b.first {
		return b, errMalformed
	}
	return b, nil
}

func (b wireBatch) has(offset uint64) bool {
	return offset >= b.first && offset-b.first < uint64(b.count)
}

// nextRecord takes the first record off a batch's records.
func nextRecord(records []byte) (rec, rest []byte, err error) {
	rec, n := protowire.ConsumeBytes(records)
	if n < 0 {
		return nil, nil, errMalformed
	}
	return rec, records[n:], nil
}

// recordAt is the record at offset in an encoded FetchResponse.
func recordAt(resp []byte, offset uint64) (found []byte, err error) {
	ok := false
	err = eachBatch(resp, func(b wireBatch) error {
		if ok || !b.has(offset) {
			return nil
		}
		rest := b.records
		for at := b.first; ; at++ {
			var err error
			if found, rest, err = nextRecord(rest); err != nil {
				return err
			}
			if at == offset {
				ok = true
				return nil
			}
		}
	})
	if err == nil && !ok {
		err = fmt.Errorf("%w: offset %d is not in it", errMalformed, offset)
	}
	return found, err
}
