package replica

// answer is what a voter said of its state at an entry. A voter that does not
// remember it will not say more of that entry later.
type answer struct {
	known  bool
	digest uint64
}

// ruling is what follows from the answers of the voters so far.
type ruling int

const (
	rulingWait      ruling = iota // some have not answered, and they may decide it
	rulingInnocent                // a majority of voters is as this node is
	rulingGuilty                  // a majority of voters is as this node is not
	rulingNobody                  // no majority of voters can be of one state
	rulingUndecided               // all answered, and too few remember
)

// rule weighs answers, this node's own digest, and, if self is a voter, its vote.
// majority is the digest of the majority, with how many have it.
func rule(self string, own uint64, voters []string, answers map[string]answer) (r ruling, majority uint64, votes int) {
	need := len(voters)/2 + 1
	counts := make(map[uint64]int)
	open, vague := 0, 0 // voters that have not answered; that do not remember
	for _, id := range voters {
		a, answered := answers[id]
		switch {
		case id == self:
			counts[own]++
		case !answered:
			open++
		case !a.known:
			vague++
		default:
			counts[a.digest]++
		}
	}
	most := 0
	for digest, n := range counts {
		if n > most {
			majority, most = digest, n
		}
	}
	switch {
	case most >= need && majority == own:
		return rulingInnocent, majority, most
	case most >= need:
		return rulingGuilty, majority, most
	case most+open+vague < need:
		return rulingNobody, 0, 0
	case open > 0:
		return rulingWait, 0, 0
	}
	return rulingUndecided, 0, 0
}
