package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// What Raft stores as the data of one entry. Fixed integers are little endian.
//
//	data     kind u8 = 1 | batch count uvarint | batch...
//	batch    producer 16B | owner u64 | epoch u32 | first sequence u64 | count u32
//	         | flags u8 | request key 16B, if flags&1 | timestamp i64
//	         | records length u32 | records
//	records  count × {length uvarint, message}; as received, never decoded here
//
//	control  kind u8 = 2 | type u8 | body
//	  cluster  type 1 | uuid, 36 characters
//	  lowest   type 2 | offset u64
//	  announce type 3 | index u64 | fingerprint u64 | node id
//	           index is the announcement before, 0 for none; the fingerprint, whose
//	           lowest byte is its version, is of the announcing leader's state just
//	           after it
//	  succeed  type 4 | former uuid, 36 characters | uuid, 36 characters
const (
	kindData    = 1
	kindControl = 2

	controlCluster = 1
	controlLowest  = 2
	controlState   = 3
	controlSucceed = 4

	flagKeyed = 1

	batchFixed = 16 + 8 + 4 + 8 + 4 + 1 + 8 + 4
	keyBytes   = 16
)

var errPayload = errors.New("malformed entry payload")

// unknownError is the error for a payload that is sound and of no kind this version
// knows. Whoever applies it says which entry it is.
type unknownError struct{ what string }

func (e *unknownError) Error() string { return "unknown " + e.what }

// unknownEntry names the entry that err is about.
func unknownEntry(index, term uint64, err error) error {
	var u *unknownError
	if errors.As(err, &u) {
		return &UnknownEntryError{Index: index, Term: term, What: u.what}
	}
	return fmt.Errorf("apply entry %d: %w", index, err)
}

// header is a batch as it stands in an entry; its records are
// payload[pos:pos+len].
type header struct {
	producer  [16]byte
	owner     uint64
	epoch     uint32
	firstSeq  uint64
	count     uint32
	key       [16]byte
	timestamp int64
	pos, len  uint32
}

func (h *header) keyed() bool { return h.key != [16]byte{} }

// headerSize is what a batch takes in an entry besides its records.
func headerSize(keyed bool) int {
	if keyed {
		return batchFixed + keyBytes
	}
	return batchFixed
}

// appendHeader writes h for records of n bytes, which the caller appends next.
func appendHeader(dst []byte, h *header, n int) []byte {
	dst = append(dst, h.producer[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, h.owner)
	dst = binary.LittleEndian.AppendUint32(dst, h.epoch)
	dst = binary.LittleEndian.AppendUint64(dst, h.firstSeq)
	dst = binary.LittleEndian.AppendUint32(dst, h.count)
	if h.keyed() {
		dst = append(dst, flagKeyed)
		dst = append(dst, h.key[:]...)
	} else {
		dst = append(dst, 0)
	}
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.timestamp))
	return binary.LittleEndian.AppendUint32(dst, uint32(n))
}

// decodeData calls each for every batch of a data entry, in order. It reads
// headers only and allocates nothing.
func decodeData(payload []byte, each func(h *header)) error {
	if len(payload) == 0 {
		return errPayload
	}
	if payload[0] != kindData {
		return &unknownError{fmt.Sprintf("payload of kind %d", payload[0])}
	}
	n, w := binary.Uvarint(payload[1:])
	if w <= 0 {
		return errPayload
	}
	pos := 1 + w
	if n == 0 || n > uint64(len(payload)-pos)/batchFixed {
		return fmt.Errorf("%w: %d batches in %d bytes", errPayload, n, len(payload))
	}
	var h header
	for range n {
		p := payload[pos:]
		if len(p) < batchFixed {
			return fmt.Errorf("%w: batch header at %d", errPayload, pos)
		}
		h = header{
			owner:    binary.LittleEndian.Uint64(p[16:]),
			epoch:    binary.LittleEndian.Uint32(p[24:]),
			firstSeq: binary.LittleEndian.Uint64(p[28:]),
			count:    binary.LittleEndian.Uint32(p[36:]),
		}
		copy(h.producer[:], p)
		flags, at := p[40], 41
		if flags&^flagKeyed != 0 {
			return &unknownError{fmt.Sprintf("batch with flags %#x", flags)}
		}
		if flags&flagKeyed != 0 {
			if len(p) < batchFixed+keyBytes {
				return fmt.Errorf("%w: batch header at %d", errPayload, pos)
			}
			copy(h.key[:], p[at:])
			at += keyBytes
			if !h.keyed() || h.count != 1 {
				return fmt.Errorf("%w: keyed batch at %d", errPayload, pos)
			}
		}
		h.timestamp = int64(binary.LittleEndian.Uint64(p[at:]))
		h.len = binary.LittleEndian.Uint32(p[at+8:])
		at += 12
		if uint64(h.len) > uint64(len(p)-at) || h.count == 0 || h.count > h.len {
			return fmt.Errorf("%w: %d records in %d bytes at %d", errPayload, h.count, h.len, pos)
		}
		h.pos = uint32(pos + at)
		each(&h)
		pos += at + int(h.len)
	}
	if pos != len(payload) {
		return fmt.Errorf("%w: %d bytes after the last batch", errPayload, len(payload)-pos)
	}
	return nil
}

// control is a decoded control entry; cluster is set, or lowest.
type control struct {
	cluster string
	former  string // the cluster that this one takes the place of; "" for none
	lowest  uint64
	state   *announcement
}

// announcement is what a leader says of its state.
type announcement struct {
	index, digest uint64
	by            string
}

func encodeAnnounce(a announcement) []byte {
	b := binary.LittleEndian.AppendUint64([]byte{kindControl, controlState}, a.index)
	return append(binary.LittleEndian.AppendUint64(b, a.digest), a.by...)
}

func encodeCluster(uuid string) []byte {
	return append([]byte{kindControl, controlCluster}, uuid...)
}

func encodeSucceed(former, uuid string) []byte {
	return append(append([]byte{kindControl, controlSucceed}, former...), uuid...)
}

func encodeLowest(off uint64) []byte {
	return binary.LittleEndian.AppendUint64([]byte{kindControl, controlLowest}, off)
}

// announced is the announcement that a control entry is, nil when it is another.
func announced(payload []byte) *announcement {
	c, _ := decodeControl(payload) // malformed ones are found where they are carried out
	return c.state
}

func decodeControl(payload []byte) (control, error) {
	if len(payload) < 2 || payload[0] != kindControl {
		return control{}, errPayload
	}
	body := payload[2:]
	switch payload[1] {
	case controlCluster:
		if err := checkUUID(string(body)); err != nil {
			return control{}, fmt.Errorf("%w: %w", errPayload, err)
		}
		return control{cluster: string(body)}, nil
	case controlSucceed:
		const n = 36
		if len(body) != 2*n {
			return control{}, fmt.Errorf("%w: succession of %d bytes", errPayload, len(body))
		}
		former, uuid := string(body[:n]), string(body[n:])
		if err := errors.Join(checkUUID(former), checkUUID(uuid)); err != nil {
			return control{}, fmt.Errorf("%w: %w", errPayload, err)
		}
		return control{cluster: uuid, former: former}, nil
	case controlLowest:
		if len(body) != 8 {
			return control{}, fmt.Errorf("%w: lowest offset of %d bytes", errPayload, len(body))
		}
		return control{lowest: binary.LittleEndian.Uint64(body)}, nil
	case controlState:
		if len(body) < 16 || len(body) > 16+maxIDLen {
			return control{}, fmt.Errorf("%w: announcement of %d bytes", errPayload, len(body))
		}
		return control{state: &announcement{
			index: binary.LittleEndian.Uint64(body), digest: binary.LittleEndian.Uint64(body[8:]), by: string(body[16:]),
		}}, nil
	default:
		return control{}, &unknownError{fmt.Sprintf("control entry of type %d", payload[1])}
	}
}

// checkRecords walks the lengths of records and says how it is malformed, if it
// is. A wrong count would shift every later offset.
func checkRecords(records []byte, count uint32) error {
	if count == 0 {
		return &InvalidError{Field: "count", Reason: "a batch holds at least one record"}
	}
	rest := records
	for i := range count {
		n, w := binary.Uvarint(rest)
		if w <= 0 || n > uint64(len(rest)-w) {
			return &InvalidError{Field: "records", Reason: fmt.Sprintf("record %d of %d is cut short", i, count)}
		}
		rest = rest[w+int(n):]
	}
	if len(rest) != 0 {
		return &InvalidError{Field: "records", Reason: fmt.Sprintf("%d bytes after record %d", len(rest), count)}
	}
	return nil
}
