package commitlog

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// The cache against a list: pushes, cuts, and a log that begins elsewhere once it
// is empty. Whatever the order, it holds the newest entries that fit, and the chunks
// of nothing else.
func TestCacheAgainstAList(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 0))
		c := cache{limit: 1 + r.Int64N(400_000)}
		var held []Entry
		next := 1 + r.Uint64N(3*chunkEntries)
		for range 5000 {
			switch r.IntN(400) {
			case 0:
				from := next - min(r.Uint64N(uint64(len(held))+20), next-1)
				c.truncate(from)
				for len(held) > 0 && held[len(held)-1].Index >= from {
					held = held[:len(held)-1]
				}
				if len(held) == 0 {
					next = 1 + r.Uint64N(1<<20)
				} else {
					next = held[len(held)-1].Index + 1
				}
			default:
				e := Entry{Index: next, Term: seed, Data: make([]byte, r.IntN(400))}
				c.push(&e, int64(next)*8)
				held = append(held, e)
				next++
			}
			var bytes int64
			for _, e := range held {
				bytes += cost(&e)
			}
			for bytes > c.limit {
				bytes -= cost(&held[0])
				held = held[1:]
			}
			require.Equal(t, bytes, c.bytes, "seed %d", seed)
			require.Len(t, held, c.n, "seed %d", seed)
		}
		want := make(map[uint64]bool)
		for i := range held {
			it, ok := c.get(held[i].Index)
			require.True(t, ok, "seed %d", seed)
			require.Equal(t, held[i], it.entry)
			require.Equal(t, int64(held[i].Index)*8, it.place)
			want[held[i].Index>>chunkBits] = true
		}
		_, ok := c.get(next)
		require.False(t, ok)
		if len(held) > 0 {
			_, ok = c.get(held[0].Index - 1)
			require.False(t, ok)
		}
		kept := 0
		for _, ch := range c.chunks {
			if ch != nil {
				kept++
			}
		}
		require.Equal(t, len(want), kept, "seed %d: chunks", seed)
	}
}
