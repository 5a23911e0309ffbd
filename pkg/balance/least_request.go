package balance

import "math/rand/v2"

// LeastRequest draws two different candidates and takes the one with fewer calls in
// flight: the power of two choices (Mitzenmacher 2001, and Envoy's least_request
// with its default of two). Work goes to who is quick to finish it, without the
// herd that taking the least loaded of all makes of callers that count apart.
//
// Envoy may draw the same candidate twice, which among many makes no difference.
// Here there are mostly two, and a quarter of all calls would go to the slow one
// whatever it has in flight.
//
// A stream counts as one call for as long as it is open, however much it moves. So
// streams are spread evenly by their number, but a candidate that holds more of
// them than another gets fewer short calls, until those make up the difference.
type LeastRequest struct {
	random func() uint64 // safe for concurrent use
}

// NewLeastRequest answers a policy with chance of its own.
func NewLeastRequest() *LeastRequest { return &LeastRequest{random: rand.Uint64} }

// Name implements Policy.
func (*LeastRequest) Name() string { return NameLeastRequest }

// Build implements Policy.
func (p *LeastRequest) Build(c []Candidate) Picker {
	return &leastRequestPicker{random: p.random, candidates: c}
}

type leastRequestPicker struct {
	random     func() uint64
	candidates []Candidate // never changed
}

func (p *leastRequestPicker) Pick(_ string, skip func(id string) bool) (int, bool) {
	n := len(p.candidates)
	if skip != nil {
		n = left(p.candidates, skip)
	}
	if n < 2 {
		return p.at(0, skip)
	}
	r := p.random()
	// Two draws of 32 bits; that neither is quite even is far below what counts.
	a := int(r >> 32 % uint64(n))
	b := int(r & (1<<32 - 1) % uint64(n-1))
	if b >= a {
		b++
	}
	i, iok := p.at(a, skip)
	j, jok := p.at(b, skip)
	if !iok || jok && p.candidates[j].InFlight() < p.candidates[i].InFlight() {
		return j, jok
	}
	return i, iok
}

// at is the index of the kth that is left.
func (p *leastRequestPicker) at(k int, skip func(id string) bool) (int, bool) {
	if skip == nil {
		return k, k < len(p.candidates)
	}
	return nth(p.candidates, skip, k)
}
