package memfs

import "math/rand/v2"

const pageBytes = 4096

// content is the bytes of a file, sparse: a page that is absent is zeros.
type content struct {
	size  int64
	pages map[int64][]byte // by page number; each pageBytes long
}

func newContent() *content { return &content{pages: map[int64][]byte{}} }

func (c *content) clone() *content {
	d := &content{size: c.size, pages: make(map[int64][]byte, len(c.pages))}
	for n, p := range c.pages {
		d.pages[n] = append([]byte(nil), p...)
	}
	return d
}

// read copies what is stored from off on, and returns how much that was.
func (c *content) read(b []byte, off int64) int {
	if off >= c.size {
		return 0
	}
	b = b[:min(int64(len(b)), c.size-off)]
	for n := 0; n < len(b); {
		at := off + int64(n)
		from := at % pageBytes
		dst := b[n:min(len(b), n+int(pageBytes-from))]
		if p := c.pages[at/pageBytes]; p != nil {
			copy(dst, p[from:])
		} else {
			clear(dst)
		}
		n += len(dst)
	}
	return len(b)
}

func (c *content) write(b []byte, off int64) {
	c.size = max(c.size, off+int64(len(b)))
	for len(b) > 0 {
		p := c.pages[off/pageBytes]
		if p == nil {
			p = make([]byte, pageBytes)
			c.pages[off/pageBytes] = p
		}
		n := copy(p[off%pageBytes:], b)
		b, off = b[n:], off+int64(n)
	}
}

func (c *content) truncate(size int64) {
	for n, p := range c.pages {
		switch start := n * pageBytes; {
		case start >= size:
			delete(c.pages, n)
		case start+pageBytes > size:
			clear(p[size-start:])
		}
	}
	c.size = size
}

// change is one unsynced change of a file: a write, or (data nil) a new length.
type change struct {
	off  int64
	data []byte
	size int64
}

func (c *content) apply(ch change) {
	if ch.data == nil {
		c.truncate(ch.size)
		return
	}
	c.write(ch.data, ch.off)
}

// tear applies what of a change a crash may leave: nothing, all, or any of its
// sectors.
func (c *content) tear(ch change, sector int64, rng *rand.Rand) {
	switch rng.IntN(3) {
	case 0:
		return
	case 1:
		c.apply(ch)
		return
	}
	if ch.data == nil {
		if rng.IntN(2) == 0 {
			c.apply(ch)
		}
		return
	}
	end := ch.off + int64(len(ch.data))
	for at := ch.off; at < end; {
		next := min(end, (at/sector+1)*sector)
		if rng.IntN(2) == 0 {
			c.write(ch.data[at-ch.off:next-ch.off], at)
		}
		at = next
	}
}
