package balance

import "sync/atomic"

// RoundRobin gives every candidate its turn.
type RoundRobin struct {
	// turn is shared by all pickers, so that tables that follow each other quickly
	// do not each begin at the first candidate.
	turn atomic.Uint64
}

// NewRoundRobin answers a policy at the beginning of its round.
func NewRoundRobin() *RoundRobin { return new(RoundRobin) }

// Name implements Policy.
func (*RoundRobin) Name() string { return NameRoundRobin }

// Build implements Policy.
func (p *RoundRobin) Build(c []Candidate) Picker {
	return &roundRobinPicker{turn: &p.turn, candidates: c}
}

type roundRobinPicker struct {
	turn       *atomic.Uint64
	candidates []Candidate // never changed
}

func (p *roundRobinPicker) Pick(_ string, skip func(id string) bool) (int, bool) {
	n := uint64(len(p.candidates))
	if n == 0 {
		return 0, false
	}
	turn := p.turn.Add(1) - 1
	if i := int(turn % n); skip == nil || !skip(p.candidates[i].ID()) {
		return i, true
	}
	// The turn of one that is refused goes to the others in turn, by the number of
	// the round: its neighbour alone would get twice its share.
	m := left(p.candidates, skip)
	if m == 0 {
		return 0, false
	}
	return nth(p.candidates, skip, int(turn/n%uint64(m)))
}
