package commitlog

// entryOverhead is what an entry in the cache costs besides its data.
const entryOverhead = 96

// cache holds the newest entries, without a gap up to the log's last, as many
// as fit in limit bytes. It holds the callers' slices and copies nothing. It
// does no locking.
type cache struct {
	limit int64
	bytes int64    // ≤ limit
	items []cached // ring; the entry at index is items[index & mask]; length a power of two
	first uint64   // index of the oldest
	n     int      // entries
}

type cached struct {
	entry Entry
	place int64 // of its frame
}

func (c *cache) get(index uint64) (*cached, bool) {
	if index < c.first || index-c.first >= uint64(c.n) {
		return nil, false
	}
	return &c.items[index&uint64(len(c.items)-1)], true
}

// push adds the entry behind the newest, and drops the oldest for it.
func (c *cache) push(e *Entry, place int64) {
	if c.n == 0 {
		c.first = e.Index
	}
	if c.n == len(c.items) {
		c.grow()
	}
	c.items[e.Index&uint64(len(c.items)-1)] = cached{*e, place}
	c.n++
	c.bytes += cost(e)
	for c.bytes > c.limit {
		c.drop(c.first)
		c.first++
	}
}

// truncate drops the entries from index on.
func (c *cache) truncate(from uint64) {
	for c.n > 0 && c.first+uint64(c.n) > from {
		c.drop(c.first + uint64(c.n) - 1)
	}
}

func (c *cache) drop(index uint64) {
	it := &c.items[index&uint64(len(c.items)-1)]
	c.bytes -= cost(&it.entry)
	*it = cached{}
	c.n--
}

func (c *cache) grow() {
	items := make([]cached, max(64, 2*len(c.items)))
	for i := range uint64(c.n) {
		it, _ := c.get(c.first + i)
		items[(c.first+i)&uint64(len(items)-1)] = *it
	}
	c.items = items
}

func cost(e *Entry) int64 { return int64(len(e.Data)) + entryOverhead }
