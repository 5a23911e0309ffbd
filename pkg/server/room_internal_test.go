package server

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/mem"
)

// What gRPC has written is read into again, and not before: the frame's pieces are
// read to their end while another read asks for room.
func TestRoomIsFreeWhenAllIsWritten(t *testing.T) {
	var r room
	b := r.get(100_000)
	require.Len(t, b, 100_000)
	for i := range b {
		b[i] = byte(i)
	}
	out, err := codec{}.Marshal(&frame{out: [][]byte{[]byte("head"), b[:60_000], b[60_000:], []byte("tail")}, room: r.buf})
	require.NoError(t, err)
	reader := out.Reader() // as the transport does: its own references
	out.Free()

	var second room
	other := second.get(100_000)
	clear(other) // would be the first's, had it been given back
	got := make([]byte, reader.Remaining())
	n, err := reader.Read(got)
	require.NoError(t, err)
	require.Equal(t, len(got), n)
	require.Equal(t, "head", string(got[:4]))
	require.Equal(t, b, got[4:len(got)-4])
	for i := range b {
		require.Equal(t, byte(i), b[i])
	}
	require.NoError(t, reader.Close())
	second.free()
	require.Nil(t, second.buf)
}

func TestRoomsAreUsedAgain(t *testing.T) {
	p := new(roomPool)
	for _, n := range []int{0, 1, 1 << minRoom, 1<<minRoom + 1, 300_000, 1 << maxRoom, 1<<maxRoom + 1, 9 << 20} {
		b := p.Get(n)
		require.Len(t, *b, n)
		*b = (*b)[:0]
		p.Put(b)
		require.Len(t, *p.Get(n), n)
	}
}

var _ mem.BufferPool = (*roomPool)(nil)
