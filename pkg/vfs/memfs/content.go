package memfs

// page is a sector of a file. Nobody changes one once it is part of a content,
// so that filesystems share them: a clone copies pointers.
type page [SectorBytes]byte

// blockSectors is how many sectors a filesystem allocates at once: 4 KiB.
const blockSectors = 8

var zeroPage page

// content is the bytes of a file, sparse: a page that is nil, or beyond the
// slice, was never written and reads as zeros. No page reaches beyond size but
// the last, and that with zeros.
type content struct {
	size  int64
	pages []*page
}

func (c *content) clone() content {
	return content{size: c.size, pages: append([]*page(nil), c.pages...)}
}

func (c *content) page(sector int) *page {
	if sector < len(c.pages) {
		return c.pages[sector]
	}
	return nil
}

func (c *content) set(sector int, p *page) {
	if sector >= len(c.pages) {
		if p == nil {
			return
		}
		c.pages = append(c.pages, make([]*page, sector+1-len(c.pages))...)
	}
	c.pages[sector] = p
}

// read copies what is stored from off on, and returns how much that was.
func (c *content) read(b []byte, off int64) int {
	if off >= c.size {
		return 0
	}
	b = b[:min(int64(len(b)), c.size-off)]
	for n := 0; n < len(b); {
		at := off + int64(n)
		from := int(at % SectorBytes)
		dst := b[n:min(len(b), n+SectorBytes-from)]
		if p := c.page(int(at / SectorBytes)); p != nil {
			copy(dst, p[from:])
		} else {
			clear(dst)
		}
		n += len(dst)
	}
	return len(b)
}

// with returns the pages that b, written at off, makes of c, the first of them
// sector number first. c is not changed.
func (c *content) with(b []byte, off int64) (first int, pages []*page) {
	first = int(off / SectorBytes)
	last := int((off + int64(len(b)) - 1) / SectorBytes)
	room := make([]page, last-first+1)
	pages = make([]*page, len(room))
	for i := range room {
		pages[i] = &room[i]
	}
	for _, sector := range []int{first, last} {
		if p := c.page(sector); p != nil {
			room[sector-first] = *p
		}
	}
	for at := int(off % SectorBytes); len(b) > 0; at = 0 {
		n := copy(room[0][at:], b)
		b, room = b[n:], room[1:]
	}
	return first, pages
}

// cutPage returns p with zeros from place on, and nil for nil.
func cutPage(p *page, place int64) *page {
	if p == nil || place >= SectorBytes {
		return p
	}
	q := *p
	clear(q[place:])
	return &q
}

// truncate sets the size.
func (c *content) truncate(size int64) {
	if size < c.size {
		if n := int((size + SectorBytes - 1) / SectorBytes); n < len(c.pages) {
			c.pages = c.pages[:n]
		}
		if sector := int(size / SectorBytes); sector < len(c.pages) {
			c.pages[sector] = cutPage(c.pages[sector], size%SectorBytes)
		}
	}
	c.size = size
}
