package forward

import (
	"math/bits"
	"sync"
)

// The sizes of pooled buffers: powers of two. Smaller ones are left to the garbage
// collector, larger messages are not taken by gRPC.
const (
	leastPooled = 12 // 4 KiB
	mostPooled  = 22 // 4 MiB
)

// bufferPool is a pool for fetched messages and what is made of them, both filled
// before they are read. gRPC's own clears what it hands out, and above 32 KiB has one
// size: a message of 256 KiB would cost clearing 1 MiB.
type bufferPool struct {
	sizes [mostPooled - leastPooled + 1]sync.Pool // of *[]byte with that capacity
}

var fetchBuffers bufferPool

// Get answers n bytes with anything in them.
func (p *bufferPool) Get(n int) *[]byte {
	if n <= 1<<(leastPooled-1) || n > 1<<mostPooled {
		b := make([]byte, n)
		return &b
	}
	i := max(0, bits.Len(uint(n-1))-leastPooled)
	if b, ok := p.sizes[i].Get().(*[]byte); ok {
		*b = (*b)[:n]
		return b
	}
	b := make([]byte, n, 1<<(leastPooled+i))
	return &b
}

// Put takes back what Get answered.
func (p *bufferPool) Put(b *[]byte) {
	size := uint(cap(*b))
	i := bits.Len(size) - 1 - leastPooled
	if size&(size-1) == 0 && i >= 0 && i < len(p.sizes) {
		p.sizes[i].Put(b)
	}
}
