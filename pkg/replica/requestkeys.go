package replica

// maxKeys is how many request keys are remembered, by place in the log.
const maxKeys = 65536

// requestKeys remembers the offsets of the last keyed records, oldest first out.
type requestKeys struct {
	byKey map[[16]byte]uint64
	ring  [][16]byte // keys in log order, from head on; full once len == max
	head  int        // place of the oldest key once the ring is full
	max   int
}

func newRequestKeys(max int) *requestKeys {
	return &requestKeys{byKey: make(map[[16]byte]uint64), max: max}
}

func (k *requestKeys) find(key [16]byte) (offset uint64, ok bool) {
	offset, ok = k.byKey[key]
	return offset, ok
}

// add remembers a key that find did not know.
func (k *requestKeys) add(key [16]byte, offset uint64) {
	if len(k.ring) < k.max {
		k.ring = append(k.ring, key)
	} else {
		delete(k.byKey, k.ring[k.head])
		k.ring[k.head] = key
		k.head = (k.head + 1) % k.max
	}
	k.byKey[key] = offset
}

// each calls f for every key, oldest first.
func (k *requestKeys) each(f func(key [16]byte, offset uint64)) {
	for i := range k.ring {
		key := k.ring[(k.head+i)%len(k.ring)]
		f(key, k.byKey[key])
	}
}
