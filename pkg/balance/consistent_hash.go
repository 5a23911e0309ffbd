package balance

import "github.com/cespare/xxhash/v2"

// ConsistentHash sends equal keys to the same candidate, in every process and over
// restarts. It is rendezvous hashing (Thaler and Ravishankar 1998): a key goes to
// the candidate whose id and it score highest together.
//
// A ring or a Maglev table finds a key's place in less time when there are hundreds
// of candidates. There are a few, and for a few this one is exact: even without
// virtual nodes, nothing to build when they change, and when one goes, or is
// skipped, its own keys alone move, each to the second highest, so evenly over the
// others.
//
// Calls without a key have nothing to be kept together with, and take turns.
type ConsistentHash struct {
	keyless RoundRobin
}

// NewConsistentHash answers a policy; any two agree on every key.
func NewConsistentHash() *ConsistentHash { return new(ConsistentHash) }

// Name implements Policy.
func (*ConsistentHash) Name() string { return NameConsistentHash }

// Build implements Policy.
func (p *ConsistentHash) Build(c []Candidate) Picker {
	seeds := make([]uint64, len(c))
	for i := range c {
		seeds[i] = xxhash.Sum64String(c[i].ID())
	}
	return &consistentHashPicker{keyless: p.keyless.Build(c), candidates: c, seeds: seeds}
}

type consistentHashPicker struct {
	keyless    Picker
	candidates []Candidate // never changed
	seeds      []uint64    // hashes of the candidates' ids, in their order
}

func (p *consistentHashPicker) Pick(key string, skip func(id string) bool) (best int, ok bool) {
	if key == "" {
		return p.keyless.Pick("", skip)
	}
	h := xxhash.Sum64String(key)
	var top uint64
	for i, seed := range p.seeds {
		score := mix(h ^ seed)
		if (!ok || score > top) && (skip == nil || !skip(p.candidates[i].ID())) {
			best, top, ok = i, score, true
		}
	}
	return best, ok
}

// mix makes every bit of x count in every bit of the result; different x give
// different results. It is the finisher of SplitMix64 (Steele, Lea and Flood 2014,
// with Stafford's constants, variant 13).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
