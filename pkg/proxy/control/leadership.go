package control

// leadership is who leads, out of what nodes have said in any order.
//
// A node that has given up a term as its leader cannot lead that term again, so
// its own word that it does not lead outweighs everybody else's that it does,
// until it takes that word back (it had spoken before it won).
type leadership struct {
	term     uint64 // highest heard of; never falls
	leader   string // who leads term; empty: nobody as far as anyone said
	own      bool   // leader has said so itself: it stays for the term
	resigned bool   // leader itself said that it does not lead term
}

// hear takes in that from says that leader ("" for nobody) leads term. It
// reports a contradiction: two nodes that lead one term, which Raft rules out. A
// node that says so of itself is then believed before one that others spoke of.
func (l *leadership) hear(from string, term uint64, leader string) (contradiction bool) {
	switch {
	case term < l.term:
	case term > l.term:
		*l = leadership{term: term, leader: leader, own: leader != "" && from == leader}
	case leader == "":
		if from == l.leader && from != "" {
			l.resigned = true
		}
	case l.leader == "":
		l.leader, l.own = leader, from == leader
	case leader != l.leader:
		if from == leader && !l.own {
			l.leader, l.own, l.resigned = leader, true, false
		}
		return true
	case from == leader:
		l.own, l.resigned = true, false
	}
	return false
}

// current answers the node to send produces to; empty: hold.
func (l *leadership) current() string {
	if l.resigned {
		return ""
	}
	return l.leader
}
