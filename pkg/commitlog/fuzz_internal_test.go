package commitlog

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

// The checksums are put right before each decoder looks, or no bytes would get
// past them.

func FuzzFrame(f *testing.F) {
	e := Entry{Index: 7, Term: 3, Data: []byte("hello")}
	f.Add(appendFrame(nil, &e, 9, 64, 0, 0), uint64(9), uint32(8))
	f.Add(appendFrame(nil, &Entry{Index: 1}, 1<<32, 64, 9, 1), uint64(1)<<32, uint32(8))
	f.Fuzz(func(t *testing.T, b []byte, id uint64, at uint32) {
		place := int64(at) * frameAlign
		if len(b) >= frameHeaderBytes {
			binary.LittleEndian.PutUint32(b[4:], headerCRC(b, id, place))
		}
		h, ok := decodeHeader(b, id, place)
		if !ok {
			return
		}
		require.LessOrEqual(t, h.length, uint32(MaxEntryBytes))
		require.NotZero(t, h.index)
		if int64(len(b)) >= h.bytes() {
			end := frameHeaderBytes + int(h.length)
			binary.LittleEndian.PutUint32(b[28:], crc(b[frameHeaderBytes:end]))
			binary.LittleEndian.PutUint32(b[4:], headerCRC(b, id, place))
			h, ok = decodeHeader(b, id, place)
			require.True(t, ok)
			if h.verifyPayload(b) {
				got := h.entry(b)
				require.Equal(t, b[:h.bytes()], appendFrame(nil, &got, id, place, h.ordinal, h.commit), "one encoding only")
			}
		}
	})
}

func FuzzOffsetRecord(f *testing.F) {
	f.Add(appendBatch(nil, &batch{Applied: Applied{FirstOffset: 1, Count: 2, Index: 3, Pos: 4, Len: 5, Timestamp: 6}, newest: 7, place: 64}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < offsetRecordBytes {
			return
		}
		binary.LittleEndian.PutUint32(b[48:], crc(b[:48]))
		if r, ok := decodeBatch(b); ok {
			require.NotZero(t, r.Count)
			require.Equal(t, b[:52], appendBatch(nil, &r)[:52], "one encoding only")
		}
	})
}

func FuzzSmallFiles(f *testing.F) {
	for _, magic := range []string{startMagic, durableMagic} {
		b := make([]byte, smallBytes)
		encodeSmall(b, magic, [5]uint64{1, 2, 3, 4, 1})
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= smallBytes {
			binary.LittleEndian.PutUint32(b[48:], crc(b[:48]))
		}
		for _, magic := range []string{startMagic, durableMagic} {
			if v, ok := decodeSmall(b, magic); ok {
				again := make([]byte, smallBytes)
				encodeSmall(again, magic, v)
				require.Equal(t, again[:52], b[:52], "one encoding only")
			}
		}
	})
}

func FuzzSegmentName(f *testing.F) {
	f.Add(segmentName(17, 5<<32|9))
	f.Add("00000000000000000001-.seg")
	f.Fuzz(func(t *testing.T, name string) {
		if first, id, ok := parseSegmentName(name); ok {
			require.Equal(t, name, segmentName(first, id))
		}
	})
}
