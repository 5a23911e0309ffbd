package replica

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/raftstore"
)

var onceSeed = flag.Uint64("once-seed", 1, "first seed of the differential test of the producer table")

// history is a model of machine.decide that forgets nothing and says from the whole
// log what is inside the window: the last producerWindow batches of a producer in
// its current epoch, of the last so many producers by the place of their last
// batch; and the last so many request keys by the place of their first record.
type history struct {
	producers, keys int // the caps
	next            uint64
	placed          []placed // everything that took a sequence, in log order
	keyed           []keyed  // every key that was added, in log order
}

type placed struct {
	h      header
	offset uint64
	began  bool // the producer was not known just before it
}

type keyed struct {
	key    [16]byte
	offset uint64
}

// of gives what is known of a producer: its batches since it was last unknown, in
// its current epoch. Nil: it is not known.
func (m *history) of(id [16]byte) (owner uint64, epoch uint32, batches []placed) {
	others := map[[16]byte]bool{}
	last := -1
	for i := len(m.placed) - 1; i >= 0 && last < 0; i-- {
		switch other := m.placed[i].h.producer; {
		case other == id:
			last = i
		default:
			others[other] = true
		}
	}
	if last < 0 || len(others) >= m.producers {
		return 0, 0, nil
	}
	epoch = m.placed[last].h.epoch
	for i := last; i >= 0; i-- {
		if p := m.placed[i]; p.h.producer == id {
			if p.h.epoch != epoch {
				break
			}
			batches = append(batches, p)
			if p.began {
				break
			}
		}
	}
	slices.Reverse(batches)
	return m.placed[last].h.owner, epoch, batches
}

func (m *history) key(key [16]byte) (offset uint64, ok bool) {
	for _, k := range m.keyed[max(0, len(m.keyed)-m.keys):] {
		if k.key == key {
			return k.offset, true
		}
	}
	return 0, false
}

func (m *history) decide(h *header) outcome {
	sequenced := h.producer != [16]byte{}
	began := false
	if sequenced {
		owner, epoch, batches := m.of(h.producer)
		began = batches == nil
		var next uint64
		if !began {
			last := batches[len(batches)-1].h
			next = last.firstSeq + uint64(last.count)
		}
		known := slices.IndexFunc(batches[max(0, len(batches)-producerWindow):], func(p placed) bool {
			return p.h.firstSeq == h.firstSeq && p.h.count == h.count
		})
		switch {
		case began && h.firstSeq != 0, !began && owner != h.owner:
			return outcome{verdict: unknownProducer}
		case began:
		case h.epoch < epoch:
			return outcome{verdict: fenced, epoch: epoch}
		case h.epoch > epoch && h.firstSeq != 0:
			return outcome{verdict: gap}
		case h.epoch > epoch, h.firstSeq == next:
		case known >= 0:
			p := batches[max(0, len(batches)-producerWindow):][known]
			return outcome{verdict: duplicate, count: h.count, offset: p.offset}
		default:
			return outcome{verdict: gap, offset: next}
		}
	}
	o := outcome{verdict: accepted, count: h.count, offset: m.next}
	if h.keyed() {
		if off, ok := m.key(h.key); ok {
			o.verdict, o.offset = duplicate, off
		} else {
			m.keyed = append(m.keyed, keyed{h.key, m.next})
		}
	}
	if sequenced {
		m.placed = append(m.placed, placed{h: *h, offset: o.offset, began: began})
	}
	if o.verdict == accepted {
		m.next += uint64(h.count)
	}
	return o
}

// script makes batches that producers with a window in flight would send, through
// failovers: in sequence, repeated, with other bounds, out of order, in old epochs.
type script struct {
	rng  *rand.Rand
	sent map[[16]byte][]header // recent batches of each producer
}

func (s *script) next() header {
	r := s.rng
	if r.IntN(8) == 0 { // directly to a node
		h := header{count: 1 + r.Uint32N(3)}
		if r.IntN(2) == 0 {
			h.count, h.key = 1, [16]byte{byte(1 + r.IntN(12))}
		}
		return h
	}
	id := [16]byte{byte(1 + r.IntN(7))}
	sent := s.sent[id]
	h := header{producer: id, owner: 1, count: 1 + r.Uint32N(3)}
	if n := len(sent); n > 0 {
		last := sent[n-1]
		h.epoch, h.firstSeq = last.epoch, last.firstSeq+uint64(last.count)
		switch r.IntN(16) {
		case 0, 1, 2, 3, 4: // again, from anywhere in the window and a little beyond
			h = sent[n-1-r.IntN(min(n, producerWindow+2))]
		case 5: // with another count
			h = sent[n-1-r.IntN(n)]
			h.count = 1 + r.Uint32N(4)
		case 6:
			h.firstSeq += 1 + r.Uint64N(3)
		case 7:
			h.epoch, h.firstSeq = h.epoch+1, 0
		case 8:
			h.epoch, h.firstSeq = h.epoch+1, r.Uint64N(3)
		case 9:
			h.epoch -= min(h.epoch, 1)
		case 10:
			h.owner = 2
		case 11:
			h.epoch, h.firstSeq = 0, 0
		}
	}
	if h.count == 1 && h.key == [16]byte{} && r.IntN(4) == 0 {
		h.key = [16]byte{byte(1 + r.IntN(12))}
	}
	s.sent[id] = append(sent, h)
	if len(sent) > 2*producerWindow {
		s.sent[id] = slices.Clone(s.sent[id][1:])
	}
	return h
}

// I4: the tables decide as one that had the whole log before it would, whatever was
// forgotten and however often the state went through a checkpoint. Both machines,
// the one that was restored and the one that never was, forget the same.
func TestOnceAgainstTheWholeLog(t *testing.T) {
	const maxP, maxK = 4, 6
	capped := func(m *machine) *machine {
		m.producers.max, m.keys.max = maxP, maxK
		return m
	}
	seen := map[verdict]int{}
	for seed := *onceSeed; seed < *onceSeed+60; seed++ {
		rng := rand.New(rand.NewPCG(seed, 0))
		s := &script{rng: rng, sent: map[[16]byte][]header{}}
		model := &history{producers: maxP, keys: maxK}
		whole, restored := capped(newMachine()), capped(newMachine())
		for i := range 600 {
			h := s.next()
			want := model.decide(&h)
			at := fmt.Sprintf("seed %d, batch %d: %+v", seed, i, h)
			require.Equal(t, want, whole.decide(&h), at)
			require.Equal(t, want, restored.decide(&h), "restored; %s", at)
			require.Equal(t, model.next, whole.next, at)
			seen[want.verdict]++
			if rng.IntN(10) == 0 {
				m, err := decodeMachine(restored.encode())
				require.NoError(t, err, at)
				restored = capped(m)
			}
		}
		require.Equal(t, whole.encode(), restored.encode(), "seed %d", seed)
	}
	t.Logf("seeds from %d on; verdicts: %v", *onceSeed, seen)
	for v := accepted; v <= unknownProducer; v++ {
		require.Greater(t, seen[v], 100, "verdict %d hardly came up", v)
	}
}

// The figures README states, and that full tables fit a checkpoint.
func TestTheWindow(t *testing.T) {
	m := newMachine()
	id := func(i int) (id [16]byte) {
		id[0], id[1], id[2], id[15] = byte(i), byte(i>>8), byte(i>>16), 1
		return id
	}
	h := func(p int, seq uint64) *header {
		return &header{producer: id(p), owner: 1, firstSeq: seq, count: 1}
	}
	for p := range 4096 {
		for seq := range uint64(6) {
			require.Equal(t, accepted, m.decide(h(p, seq)).verdict)
		}
	}
	require.Equal(t, outcome{verdict: gap, offset: 6}, m.decide(h(0, 0)), "six batches back")
	for seq := range uint64(5) {
		require.Equal(t, outcome{verdict: duplicate, count: 1, offset: 1 + seq}, m.decide(h(0, 1+seq)))
	}
	// A repeat does not keep a producer: it takes no place in the log.
	require.Equal(t, accepted, m.decide(h(4096, 0)).verdict)
	require.Equal(t, unknownProducer, m.decide(h(0, 6)).verdict)
	require.Equal(t, duplicate, m.decide(h(1, 5)).verdict)

	key := func(i int) *header { return &header{key: id(i), count: 1} }
	base := m.next
	for i := range 65536 {
		require.Equal(t, accepted, m.decide(key(i)).verdict)
	}
	require.Equal(t, outcome{verdict: duplicate, count: 1, offset: base}, m.decide(key(0)))
	require.Equal(t, accepted, m.decide(key(65536)).verdict)
	require.Equal(t, accepted, m.decide(key(0)).verdict, "it was forgotten, and is new")
	require.Equal(t, duplicate, m.decide(key(2)).verdict)
	require.Less(t, len(m.encode()), raftstore.MaxStateBytes)
}
