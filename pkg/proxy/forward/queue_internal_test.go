package forward

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/mem"
)

// check requires that the line is a heap of exactly the clients with something
// waiting.
func (q *fairQueue) check(t *testing.T, clients []*client) {
	t.Helper()
	n := 0
	for i, c := range q.line {
		require.Equal(t, i, c.slot)
		require.Positive(t, c.waiting.n)
		require.GreaterOrEqual(t, c.start, q.line[max(0, i-1)/2].start)
		require.LessOrEqual(t, c.start, q.latest)
		n += c.waiting.n
	}
	require.Equal(t, n, q.n)
	for _, c := range clients {
		require.Equal(t, c.waiting.n > 0, slices.Contains(q.line, c))
	}
}

const maxOpBytes = 3000

// What was served and put back was not had: whose turn it was, its turn it is again.
func TestARecallCostsNothing(t *testing.T) {
	const size, batch = 2000, 5
	var q fairQueue
	had, owed := &client{}, &client{}
	serve := func(c *client) *op { return q.serve(c, c.waiting.head.size) }
	for _, c := range []*client{had, owed} {
		for range 4 * batch {
			q.pushBack(&op{client: c, size: size})
		}
	}
	for range batch {
		serve(had)
	}
	for range 3 {
		var b []*op
		for range batch {
			require.Same(t, owed, q.first(), "the other has had %d more", batch-len(b))
			b = append(b, serve(owed))
		}
		for _, o := range slices.Backward(b) {
			q.pushFront(o)
		}
		q.check(t, []*client{had, owed})
	}
}

// Whatever comes, goes and is put back, a client's ops leave in their order, and of
// two clients that have something waiting all the time none is served more than the
// other by a record and a step.
func TestFairQueue(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		var q fairQueue
		clients := make([]*client, 1+rng.IntN(20))
		model := map[*client][]*op{}
		served := map[*client]int{} // since the two were last idle
		var a, b *client            // never without something waiting
		for i := range clients {
			clients[i] = &client{}
		}
		if len(clients) > 2 {
			a, b = clients[0], clients[1]
		}
		push := func(c *client) {
			o := &op{client: c, size: 1 + rng.IntN(maxOpBytes)}
			q.pushBack(o)
			model[c] = append(model[c], o)
		}
		pop := func(c *client) *op {
			o := q.serve(c, c.waiting.head.size)
			require.Same(t, model[c][0], o)
			model[c] = model[c][1:]
			served[c] += o.size
			return o
		}
		for range 500 {
			for _, c := range []*client{a, b} {
				for c != nil && c.waiting.n < 20 {
					push(c)
				}
			}
			switch c := clients[rng.IntN(len(clients))]; rng.IntN(6) {
			case 0, 1:
				for range rng.IntN(5) {
					push(c)
				}
			case 2:
				for range rng.IntN(15) {
					if q.first() == nil {
						break
					}
					pop(q.first())
				}
			case 3: // its caller has left
				if n := c.waiting.n; n > 1 {
					i := rng.IntN(n)
					q.remove(model[c][i])
					model[c] = slices.Delete(slices.Clone(model[c]), i, i+1)
				}
			case 4: // a batch that comes back
				var batch []*op
				for range rng.IntN(10) {
					if q.first() == nil {
						break
					}
					batch = append(batch, pop(q.first()))
				}
				for _, o := range slices.Backward(batch) {
					q.pushFront(o)
					model[o.client] = append([]*op{o}, model[o.client]...)
					served[o.client] -= o.size
				}
			case 5: // one that goes ahead
				if c.waiting.n > 0 && c != a && c != b {
					pop(c)
				}
			}
			q.check(t, clients)
			if a != nil {
				require.InDelta(t, served[a], served[b], 2*(maxOpBytes+chargeStep))
			}
		}
	}
}

// A client that has been away is served before one that has been served meanwhile,
// and no better than others for having been away longer.
func TestFairQueueDoesNotSaveUp(t *testing.T) {
	var q fairQueue
	flooder, light := &client{}, &client{}
	push := func(c *client, n int) {
		for range n {
			q.pushBack(&op{client: c})
		}
	}
	push(flooder, 1000)
	for range 500 {
		q.serve(q.first(), chargeStep)
	}
	push(light, 100)
	require.Same(t, light, q.first())
	got := map[*client]int{}
	for range 100 {
		got[q.serve(q.first(), chargeStep).client]++
	}
	require.InDelta(t, 50, got[light], 1)
}

// A ProduceStream may outlive its appender. What it was served by that one is not held
// against it by the next, where it shares evenly with those who come there first.
func TestFairQueueForgivesWhatAnotherServed(t *testing.T) {
	old, other := &client{}, &client{}
	fill := func(q *fairQueue, c *client) {
		for range 100 {
			q.pushBack(&op{client: c})
		}
	}
	var before, q fairQueue
	fill(&before, old)
	for range 100 {
		before.serve(old, 1<<20)
	}
	fill(&q, other)
	fill(&q, old)
	got := map[*client]int{}
	for range 100 {
		got[q.serve(q.first(), chargeStep).client]++
		q.check(t, []*client{old, other})
	}
	require.InDelta(t, 50, got[old], 1)
}

// What is held takes at most about twice the memory that it counts, whatever its size.
func TestBuffersFitWhatTheyHold(t *testing.T) {
	for size := 1; size <= 1<<20; size += 1 + size/3 {
		pieces := mem.BufferSlice{mem.SliceBuffer(make([]byte, size/2)), mem.SliceBuffer(make([]byte, size-size/2))}
		var m message
		require.NoError(t, newCodec().Unmarshal(pieces, &m))
		require.Len(t, m.bytes(), size)
		require.LessOrEqual(t, cap(m.bytes()), 2*size+opCost, "a message of %d bytes", size)

		b := batch{ops: []*op{{rec: m.bytes(), buf: m.buf}}, bytes: framedLen(size), count: 1}
		b.build([16]byte{}, 0)
		require.LessOrEqual(t, cap(b.records.ReadOnlyData()), 2*size+opCost, "a batch of %d bytes", size)
		b.free()
	}
}
