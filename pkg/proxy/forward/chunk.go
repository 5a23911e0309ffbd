package forward

import (
	"sync/atomic"

	"google.golang.org/grpc/mem"
)

// chunkBytes is how much of a fetched batch is encoded for clients at a time.
const chunkBytes = 32 << 10

// What a chunk takes beside its bytes, for the bounds: itself and its place in a ring,
// and what says where each message is.
const (
	chunkOverhead   = 200
	messageOverhead = 64
)

// chunk is a run of consecutive records, each encoded as the ConsumeResponse that
// every client gets. It is made once and never changes, so any number of streams send
// its messages at the same time.
type chunk struct {
	first uint64       // offset of the first record
	msgs  []mem.Buffer // the messages, side by side in memory
	by    string       // the node it is from
	size  int64        // in bytes, with what it takes beside them

	// holders are the ring and the tails that are sending it. When the last lets go,
	// the memory is used again as soon as the transports have written it.
	holders atomic.Int32
}

func (c *chunk) end() uint64 { return c.first + uint64(len(c.msgs)) }

// bytesFrom is what a client gets that has all before cursor.
func (c *chunk) bytesFrom(cursor uint64) (n int) {
	for _, m := range c.msgs[cursor-c.first:] {
		n += m.Len()
	}
	return n
}

func (c *chunk) hold() { c.holders.Add(1) }

func (c *chunk) release() {
	if c.holders.Add(-1) == 0 {
		for _, m := range c.msgs {
			m.Free()
		}
	}
}

// nextChunk encodes the first of records, which are [at, end): as many as fit into
// chunkBytes, and at least one. rest are the others. The caller holds the chunk.
func nextChunk(records []byte, at, end uint64) (c *chunk, rest []byte, err error) {
	size, n := 0, 0
	for ahead := records; at+uint64(n) < end; n++ {
		rec, after, err := nextRecord(ahead)
		if err != nil {
			return nil, nil, err
		}
		more := consumeLen(len(rec), at+uint64(n))
		if n > 0 && size+more > chunkBytes {
			break
		}
		size += more
		ahead = after
	}
	buf := fetchBuffers.Get(size)
	data := (*buf)[:0]
	ends := make([]int, n)
	for i := range n {
		rec, after, err := nextRecord(records)
		if err != nil {
			return nil, nil, err
		}
		data = appendConsume(data, rec, at+uint64(i))
		ends[i], records = len(data), after
	}
	whole := mem.NewBuffer(buf, &fetchBuffers)
	c = &chunk{first: at, msgs: make([]mem.Buffer, n), size: int64(chunkOverhead + cap(data) + n*messageOverhead)}
	c.hold()
	from := 0
	for i := range n {
		c.msgs[i] = whole.Slice(from, ends[i])
		from = ends[i]
	}
	whole.Free() // the messages hold it
	return c, records, nil
}
