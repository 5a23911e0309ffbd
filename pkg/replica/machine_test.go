package replica

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
)

// I2, I4: the producer table's decisions, each as a script of batches.
func TestProducerTable(t *testing.T) {
	p, q := [16]byte{1}, [16]byte{2}
	type step struct {
		h    header
		want outcome
	}
	at := func(id [16]byte, epoch uint32, seq uint64, count uint32) header {
		return header{producer: id, owner: 1, epoch: epoch, firstSeq: seq, count: count}
	}
	ok := func(off uint64, count uint32) outcome { return outcome{count: count, offset: off} }
	dup := func(off uint64, count uint32) outcome {
		return outcome{verdict: duplicate, count: count, offset: off}
	}
	for name, steps := range map[string][]step{
		"in sequence": {
			{at(p, 0, 0, 2), ok(0, 2)}, {at(p, 0, 2, 3), ok(2, 3)}, {at(q, 0, 0, 1), ok(5, 1)}, {at(p, 0, 5, 1), ok(6, 1)},
		},
		"a known batch is answered with its first offset": {
			{at(p, 0, 0, 2), ok(0, 2)}, {at(q, 0, 0, 1), ok(2, 1)}, {at(p, 0, 2, 1), ok(3, 1)},
			{at(p, 0, 0, 2), dup(0, 2)}, {at(p, 0, 2, 1), dup(3, 1)}, {at(p, 0, 3, 1), ok(4, 1)},
		},
		"a gap is refused and changes nothing": {
			{at(p, 0, 0, 1), ok(0, 1)}, {at(p, 0, 2, 1), outcome{verdict: gap, offset: 1}}, {at(p, 0, 1, 1), ok(1, 1)},
		},
		"other bounds than the first time are a gap": {
			{at(p, 0, 0, 4), ok(0, 4)}, {at(p, 0, 0, 2), outcome{verdict: gap, offset: 4}}, {at(p, 0, 2, 4), outcome{verdict: gap, offset: 4}},
		},
		"a new epoch starts at 0 and fences the old one": {
			{at(p, 1, 0, 1), ok(0, 1)}, {at(p, 2, 1, 1), outcome{verdict: gap}}, {at(p, 2, 0, 1), ok(1, 1)},
			{at(p, 1, 1, 1), outcome{verdict: fenced, epoch: 2}}, {at(p, 2, 0, 1), dup(1, 1)},
		},
		"an unknown producer must start at 0": {
			{at(p, 0, 3, 1), outcome{verdict: unknownProducer}}, {at(p, 0, 0, 1), ok(0, 1)},
		},
		"another owner is a stranger": {
			{at(p, 0, 0, 1), ok(0, 1)},
			{header{producer: p, owner: 2, firstSeq: 1, count: 1}, outcome{verdict: unknownProducer}},
			{header{producer: p, owner: 2, epoch: 9, count: 1}, outcome{verdict: unknownProducer}},
			{at(p, 0, 1, 1), ok(1, 1)},
		},
		"five batches are remembered": {
			{at(p, 0, 0, 1), ok(0, 1)}, {at(p, 0, 1, 1), ok(1, 1)}, {at(p, 0, 2, 1), ok(2, 1)},
			{at(p, 0, 3, 1), ok(3, 1)}, {at(p, 0, 4, 1), ok(4, 1)}, {at(p, 0, 0, 1), dup(0, 1)},
			{at(p, 0, 5, 1), ok(5, 1)}, {at(p, 0, 0, 1), outcome{verdict: gap, offset: 6}}, {at(p, 0, 1, 1), dup(1, 1)},
		},
		"without an id nothing is deduplicated": {
			{header{count: 1}, ok(0, 1)}, {header{count: 1}, ok(1, 1)},
		},
		"a request key is answered by its first offset": {
			{header{key: p, count: 1}, ok(0, 1)}, {header{key: q, count: 1}, ok(1, 1)}, {header{key: p, count: 1}, dup(0, 1)},
		},
		"a key known from another proxy moves the sequence on": {
			{header{producer: p, key: p, count: 1}, ok(0, 1)}, {header{producer: q, key: q, count: 1}, ok(1, 1)},
			{header{producer: q, key: p, firstSeq: 1, count: 1}, dup(0, 1)},
			{header{producer: q, key: p, firstSeq: 1, count: 1}, dup(0, 1)},
			{header{producer: q, firstSeq: 2, count: 1}, ok(2, 1)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine()
			for i, s := range steps {
				next := m.next
				got := m.decide(&s.h)
				require.Equal(t, s.want, got, "step %d: %+v", i, s.h)
				if got.verdict == accepted {
					next += uint64(s.h.count)
				}
				require.Equal(t, next, m.next, "step %d: only an accepted batch takes offsets", i)
			}
			again, err := decodeMachine(m.encode())
			require.NoError(t, err)
			require.Equal(t, m.encode(), again.encode())
		})
	}
}

func TestProducersExpireByPlaceInTheLog(t *testing.T) {
	m := newMachine()
	m.producers = newProducers(2)
	id := func(n byte) *header { return &header{producer: [16]byte{n}, count: 1} }
	m.decide(id(1))
	m.decide(id(2))
	m.decide(&header{producer: [16]byte{1}, firstSeq: 1, count: 1}) // 2 is now the oldest
	m.decide(id(3))
	require.Equal(t, unknownProducer, m.decide(&header{producer: [16]byte{2}, firstSeq: 1, count: 1}).verdict)
	require.Equal(t, accepted, m.decide(&header{producer: [16]byte{1}, firstSeq: 2, count: 1}).verdict)
	require.Equal(t, accepted, m.decide(&header{producer: [16]byte{3}, firstSeq: 1, count: 1}).verdict)
	require.Len(t, m.producers.byID, 2)
}

func TestRequestKeysExpireByPlaceInTheLog(t *testing.T) {
	k := newRequestKeys(3)
	for i := range byte(5) {
		k.add([16]byte{i, 1}, uint64(i))
	}
	for i := range byte(5) {
		off, ok := k.find([16]byte{i, 1})
		require.Equal(t, i >= 2, ok, i)
		if ok {
			require.Equal(t, uint64(i), off)
		}
	}
	var order []uint64
	k.each(func(_ [16]byte, off uint64) { order = append(order, off) })
	require.Equal(t, []uint64{2, 3, 4}, order)
}

// I2, I3: a machine restored from the state at any entry, and given the entries
// again from any earlier one on, ends up where the first one did.
func TestRestartAtEveryEntryAppliesNothingTwice(t *testing.T) {
	seed := int64(7)
	t.Logf("seed %d", seed)
	entries := randomEntries(rand.New(rand.NewPCG(uint64(seed), 0)), 40)
	states := [][]byte{newMachine().encode()}
	whole := newMachine()
	var published [][]commitlog.Applied
	for i, e := range entries {
		pub := applyEntry(t, whole, uint64(i+1), e)
		published = append(published, pub)
		states = append(states, whole.encode())
	}
	for at, state := range states {
		for from := 0; from <= at; from++ {
			m, err := decodeMachine(state)
			require.NoError(t, err)
			for i := from; i < len(entries); i++ {
				pub := applyEntry(t, m, uint64(i+1), entries[i])
				if i < at {
					require.Empty(t, pub, "restarted at %d, entry %d again", at, i+1)
				} else {
					require.Equal(t, published[i], pub)
				}
			}
			require.Equal(t, whole.encode(), m.encode(), "restarted at %d from %d", at, from)
		}
	}
}

func applyEntry(t *testing.T, m *machine, index uint64, payload []byte) []commitlog.Applied {
	if !m.step(index, 1, payload) {
		return nil
	}
	if payload[0] == kindControl {
		require.NoError(t, m.control(index, payload))
		return nil
	}
	_, pub, err := m.data(index, payload, nil, nil)
	require.NoError(t, err)
	return pub
}

// randomEntries mixes new batches, repeats, gaps, keys and control entries.
func randomEntries(rng *rand.Rand, n int) [][]byte {
	entries := [][]byte{encodeCluster("00000000-0000-4000-8000-000000000000")}
	for i := 1; i < n; i++ {
		if rng.IntN(8) == 0 {
			entries = append(entries, encodeLowest(uint64(rng.IntN(i))))
			continue
		}
		var bs []Batch
		for j := range 1 + rng.IntN(3) {
			b := Batch{Count: 1, Records: records(fmt.Sprint(i, j))}
			if rng.IntN(3) > 0 {
				b.Producer, b.FirstSeq, b.Epoch = [16]byte{byte(1 + rng.IntN(3))}, uint64(rng.IntN(6)), uint32(rng.IntN(2))
			}
			if rng.IntN(4) == 0 {
				b.Key = [16]byte{byte(1 + rng.IntN(4))}
			}
			bs = append(bs, b)
		}
		entries = append(entries, proposalOf(bs...).encode())
	}
	return entries
}

func TestASecondClusterIsFatal(t *testing.T) {
	m := newMachine()
	require.NoError(t, m.control(1, encodeCluster("00000000-0000-4000-8000-000000000000")))
	require.NoError(t, m.control(2, encodeCluster("00000000-0000-4000-8000-000000000000")))
	var mismatch *ClusterMismatchError
	require.ErrorAs(t, m.control(3, encodeCluster("11111111-0000-4000-8000-000000000000")), &mismatch)
}
