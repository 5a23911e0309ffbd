package commitlog

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// These see the codec, which is not exported; everything else is tested from
// outside.

func TestFrameVerifiesOnlyWhereItWasWritten(t *testing.T) {
	e := Entry{Index: 7, Term: 3, Type: 2, AppendedAt: 99, Data: []byte("hello")}
	b := appendFrame(nil, &e, 1<<32|5, 640, 3, 6)
	require.Len(t, b, 56)
	h, ok := decodeHeader(b, 1<<32|5, 640)
	require.True(t, ok)
	require.True(t, h.verifyPayload(b))
	require.Equal(t, e, h.entry(b))
	require.Equal(t, uint16(3), h.ordinal)
	require.Equal(t, uint64(6), h.commit)
	for name, at := range map[string]struct {
		id    uint64
		place int64
	}{"another place": {1<<32 | 5, 648}, "another segment": {2<<32 | 5, 640}, "another segment's random half": {1<<32 | 6, 640}} {
		_, ok := decodeHeader(b, at.id, at.place)
		require.False(t, ok, name)
	}
	for bit := range 8 * len(b) {
		c := bytes.Clone(b)
		c[bit/8] ^= 1 << (bit % 8)
		h, ok := decodeHeader(c, 1<<32|5, 640)
		require.False(t, ok && h.verifyPayload(c), "bit %d", bit)
	}
}
