package server

import (
	"math/bits"
	"sync"

	"google.golang.org/grpc/mem"
)

// room is where one read puts what comes from the disk: memory that is used again.
// New memory is zeroed, mapped in page by page and collected again, which costs as
// much as reading into it. The zero value is ready.
type room struct {
	// buf is empty, and holds on to the memory: whoever frees it last gives that
	// back. Nil when nothing came from the disk.
	buf mem.Buffer
}

// get is memory of n bytes, whatever is in them.
func (r *room) get(n int) []byte {
	if r.buf != nil {
		return make([]byte, n) // a read that had to look twice; it is rare
	}
	p := rooms.Get(n)
	b := *p
	*p = b[:0]
	r.buf = mem.NewBuffer(p, &rooms)
	return b
}

// free lets the next read have the memory.
func (r *room) free() {
	if r.buf != nil {
		r.buf.Free()
		r.buf = nil
	}
}

// rooms has memory that was read into before.
var rooms roomPool

// Rooms that are kept have a power of two of bytes, from 1<<minRoom to 1<<maxRoom.
const (
	minRoom = 14
	maxRoom = 22
)

// roomPool is a [mem.BufferPool]. Those of gRPC clear what they give.
type roomPool struct {
	byBits [maxRoom + 1]sync.Pool // of *[]byte with 1<<index bytes
}

// Get gives memory of n bytes, whatever is in them.
func (p *roomPool) Get(n int) *[]byte {
	class := max(minRoom, bits.Len(uint(max(n, 1)-1)))
	if class > maxRoom {
		b := make([]byte, n)
		return &b
	}
	b, ok := p.byBits[class].Get().(*[]byte)
	if !ok {
		b = new([]byte)
		*b = make([]byte, 1<<class)
	}
	*b = (*b)[:n]
	return b
}

// Put takes back what Get gave, or lets it go when it is too large to keep.
func (p *roomPool) Put(b *[]byte) {
	if class := bits.Len(uint(cap(*b)) - 1); class <= maxRoom && cap(*b) == 1<<class {
		p.byBits[class].Put(b)
	}
}
