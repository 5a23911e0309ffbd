package balance

import (
	"fmt"
	"slices"
	"strings"
)

// Candidate is an upstream as a policy sees it.
type Candidate interface {
	ID() string
	// InFlight is the number of calls the caller has open to it now.
	InFlight() int64
}

// Picker chooses among the candidates it was built from. It is safe for
// concurrent use and never blocks.
type Picker interface {
	// Pick answers the index of the chosen candidate. Key is what the caller wants
	// kept together ("" for nothing); a policy may ignore it. Skip, when not nil,
	// tells which ids not to choose. ok is false when nobody is left.
	Pick(key string, skip func(id string) bool) (i int, ok bool)
}

// Policy builds Pickers. It is safe for concurrent use, and what it remembers
// from one Picker to the next (a place in the round) is its own.
type Policy interface {
	Name() string
	// Build keeps c, which must not be changed afterwards.
	Build(c []Candidate) Picker
}

// The names ByName knows.
const (
	NameRoundRobin = "round_robin"
	NameLeader     = "leader"
)

// Names lists the policies, sorted.
func Names() []string {
	names := []string{NameLeader, NameRoundRobin}
	slices.Sort(names)
	return names
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
	case NameRoundRobin:
		return NewRoundRobin(), nil
	case NameLeader:
		return Leader{}, nil
	}
	return nil, &UnknownPolicyError{Name: name}
}
