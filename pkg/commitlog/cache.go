package commitlog

// entryOverhead is what an entry in the cache costs besides its data.
const entryOverhead = 96

// A chunk's entries stand side by side; its size is a compromise between the memory
// of a small cache and the pointers of a large one.
const (
	chunkBits    = 8
	chunkEntries = 1 << chunkBits
)

// cache holds the newest entries, without a gap up to the log's last, as many
// as fit in limit bytes. It holds the callers' slices and copies nothing. It
// does no locking, and no push costs more than a few chunks: a ring of entries that
// doubled would copy all of them while readers and the writer wait.
type cache struct {
	limit  int64
	bytes  int64    // ≤ limit
	chunks []*chunk // ring; the entry at index is in chunks[index>>chunkBits & mask]; length a power of two
	spare  *chunk   // the last one that emptied, or nil
	first  uint64   // index of the oldest
	n      int      // entries
}

// chunk is the cached entries at the indexes that share all but the low chunkBits.
type chunk [chunkEntries]cached

type cached struct {
	entry Entry
	place int64 // of its frame
}

func (c *cache) get(index uint64) (*cached, bool) {
	if index < c.first || index-c.first >= uint64(c.n) {
		return nil, false
	}
	return &(*c.chunk(index))[index%chunkEntries], true
}

// chunk is where the chunk of index stands, or would.
func (c *cache) chunk(index uint64) **chunk {
	return &c.chunks[index>>chunkBits&uint64(len(c.chunks)-1)]
}

// push adds the entry behind the newest, and drops the oldest for it.
func (c *cache) push(e *Entry, place int64) {
	if c.n == 0 {
		c.first = e.Index
	}
	if e.Index>>chunkBits-c.first>>chunkBits >= uint64(len(c.chunks)) {
		c.grow()
	}
	at := c.chunk(e.Index)
	if *at == nil {
		if *at = c.spare; *at == nil {
			*at = new(chunk)
		}
		c.spare = nil
	}
	(*at)[e.Index%chunkEntries] = cached{*e, place}
	c.n++
	c.bytes += cost(e)
	for c.bytes > c.limit {
		c.drop(c.first)
		c.first++
		c.n--
		if c.n == 0 || c.first%chunkEntries == 0 {
			c.release(c.first - 1)
		}
	}
}

// truncate drops the entries from index on.
func (c *cache) truncate(from uint64) {
	for c.n > 0 && c.first+uint64(c.n) > from {
		last := c.first + uint64(c.n) - 1
		c.drop(last)
		c.n--
		if c.n == 0 || last%chunkEntries == 0 {
			c.release(last)
		}
	}
}

// drop forgets the entry at index.
func (c *cache) drop(index uint64) {
	it := &(*c.chunk(index))[index%chunkEntries]
	c.bytes -= cost(&it.entry)
	*it = cached{}
}

// release takes the chunk of index, which is empty, out of the ring.
func (c *cache) release(index uint64) {
	at := c.chunk(index)
	c.spare, *at = *at, nil
}

// grow doubles the ring of chunks.
func (c *cache) grow() {
	old := c.chunks
	c.chunks = make([]*chunk, max(4, 2*len(old)))
	if c.n == 0 {
		return
	}
	for id := c.first >> chunkBits; id <= (c.first+uint64(c.n)-1)>>chunkBits; id++ {
		*c.chunk(id << chunkBits) = old[id&uint64(len(old)-1)]
	}
}

func cost(e *Entry) int64 { return int64(len(e.Data)) + entryOverhead }
