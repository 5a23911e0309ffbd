package balance

import (
	"fmt"
	"strings"
)

// Candidate is an upstream as a policy sees it.
type Candidate interface {
	ID() string
	// InFlight is the number of calls the caller has open to it now. A stream is one
	// for as long as it is open.
	InFlight() int64
}

// Picker chooses among the candidates it was built from. It is safe for
// concurrent use, never blocks and does not allocate.
type Picker interface {
	// Pick answers the index of the chosen candidate. Key is what the caller wants
	// kept together ("" for nothing); a policy may ignore it. Skip, when not nil,
	// tells which ids not to choose; it may be asked about an id more than once in a
	// Pick, and has to say the same. ok is false when nobody is left.
	Pick(key string, skip func(id string) bool) (i int, ok bool)
}

// Policy builds Pickers. It is safe for concurrent use, and what it remembers
// from one Picker to the next (a place in the round) is its own.
type Policy interface {
	Name() string
	// Build keeps c, which nobody changes afterwards.
	Build(c []Candidate) Picker
}

// The names ByName knows.
const (
	NameConsistentHash = "consistent_hash"
	NameLeader         = "leader"
	NameLeastRequest   = "least_request"
	NameRoundRobin     = "round_robin"
)

// Names lists the policies, sorted.
func Names() []string {
	return []string{NameConsistentHash, NameLeader, NameLeastRequest, NameRoundRobin}
}

// UnknownPolicyError reports a policy name that ByName does not know.
type UnknownPolicyError struct{ Name string }

func (e *UnknownPolicyError) Error() string {
	return fmt.Sprintf("unknown balancing policy %q (known: %s)", e.Name, strings.Join(Names(), ", "))
}

// ByName answers a new policy; its memory is shared with no other. The error is
// an *UnknownPolicyError.
func ByName(name string) (Policy, error) {
	switch name {
	case NameConsistentHash:
		return NewConsistentHash(), nil
	case NameLeader:
		return Leader{}, nil
	case NameLeastRequest:
		return NewLeastRequest(), nil
	case NameRoundRobin:
		return NewRoundRobin(), nil
	}
	return nil, &UnknownPolicyError{Name: name}
}

// left counts the candidates that skip does not refuse.
func left(cs []Candidate, skip func(id string) bool) (n int) {
	for _, c := range cs {
		if !skip(c.ID()) {
			n++
		}
	}
	return n
}

// nth is the index of the candidate that comes after n others of those that skip
// does not refuse.
func nth(cs []Candidate, skip func(id string) bool, n int) (i int, ok bool) {
	for i, c := range cs {
		if skip(c.ID()) {
			continue
		}
		if n == 0 {
			return i, true
		}
		n--
	}
	return 0, false
}
