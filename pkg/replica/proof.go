package replica

import "slices"

// What may be concluded from what other voters say. Two things cannot be had from
// a peer: the end of a log whose last entries are damaged, and a forgotten vote.
// For both the others can show that nothing depends on them.

// witness is what a voter said. Its standing was asked for before its entries, so
// that its term was at least that when it showed them.
type witness struct {
	id string
	Standing
	// lacks: from the entry in question on, it has nothing that we may have stored.
	lacks bool
}

// neverCommitted says whether no entry of ours from some index on is committed,
// or can ever be because we once acknowledged it. own is the highest term we may
// have acknowledged anything in, 0 when that is forgotten.
//
// An entry of ours is committed in a term U ≤ own by the leader of U, when a
// majority of a configuration, us included, has acknowledged it in U. Each of
// these others has it from then on, for good. So a voter that lacks it is either
// not among them, or acknowledges it later; and it does that in no term below its
// own. Voters of a term above own therefore acknowledge it never, and those in
// own, or above, only to the leader of own. That leader has the entry itself: if
// it is among those who lack it, the entry is not in its log, and it can count
// nobody for it. If every other voter lacks it, so does whoever led.
//
// What is left, we and those who were not heard, must not be a majority: of no
// configuration that any of us knows, nor of one with a voter more or less. The
// damage may hide one such change; a second would be appended only after the
// first was committed, which those who were heard would have.
func neverCommitted(self string, own uint64, configs [][]string, said []witness) bool {
	configs = slices.Clone(configs)
	var lack, above []string
	leads := false
	for _, w := range said {
		configs = append(configs, w.Voters)
		if !w.Running || !w.lacks {
			continue
		}
		if own != 0 && w.Term >= own {
			leads = leads || w.Leads && w.Term == own
			if w.Term > own {
				above = append(above, w.id)
			}
		}
		lack = append(lack, w.id)
	}
	asked := 0
	for _, voters := range configs {
		if len(voters) == 0 {
			continue
		}
		asked++
		if holders(self, voters, lack) == 1 && few(1, len(voters)) {
			continue // nobody else has it
		}
		silent := above
		if leads && own != 0 {
			silent = atLeast(said, own)
		}
		if !few(holders(self, voters, silent), len(voters)) {
			return false
		}
	}
	return asked > 0
}

// atLeast lists those who lack the entry and are in the term own or above.
func atLeast(said []witness, own uint64) (ids []string) {
	for _, w := range said {
		if w.Running && w.lacks && w.Term >= own {
			ids = append(ids, w.id)
		}
	}
	return ids
}

// holders counts the voters that may hold an entry: all but those who lack it.
// This node counts, whether it is in the configuration or not.
func holders(self string, voters, lack []string) int {
	n := 1
	for _, v := range voters {
		if v != self && !slices.Contains(lack, v) {
			n++
		}
	}
	return n
}

// few says whether so many are no majority of n voters, nor of n+1 with the new
// one among them, nor of n-1.
func few(holders, n int) bool {
	majority := func(n int) int { return n/2 + 1 }
	return holders < majority(n) && holders+1 < majority(n+1) && (n < 2 || holders < majority(n-1))
}

// unheardTerms is by how much a term is raised when not every voter was heard.
const unheardTerms = 1 << 20

// safeTerm gives a term in which this node, having forgotten its term and vote,
// has certainly not voted, nor promised anything in a later one. least is a term
// it has seen; ok is false while too few voters were heard.
//
// A vote is given to a candidate, which has stored its term X before it asks. If
// every other voter was heard, X is not above the highest term told, so one above
// that is free. An own candidacy died with the process: votes that others gave us,
// and requests still under way, are counted by nobody. The same holds for what we
// acknowledged: its leader told its term, too.
//
// If some were not heard, one of them may be the candidate, at a term X nobody
// else knows. It needs a majority's pre-vote for each term it tries, and so, since
// those who were not heard are with us no majority, one from a voter that was
// heard; and that one must never have seen the request for the vote itself, which
// follows on the same connection. Terms rise so one at a time, an election timeout
// each. unheardTerms of them, all unseen, are days of it: we go above.
func safeTerm(self string, least uint64, configs [][]string, said []witness) (term uint64, ok bool) {
	configs = slices.Clone(configs)
	var heard []string
	term = least
	for _, w := range said {
		configs = append(configs, w.Voters)
		if w.Term > 0 {
			heard = append(heard, w.id)
			term = max(term, w.Term)
		}
	}
	all, asked := true, 0
	for _, voters := range configs {
		if len(voters) == 0 {
			continue
		}
		asked++
		unheard := holders(self, voters, heard)
		if unheard >= len(voters)/2+1 {
			return 0, false
		}
		all = all && unheard == 1
	}
	if !all {
		term += unheardTerms
	}
	return term + 1, asked > 0
}
