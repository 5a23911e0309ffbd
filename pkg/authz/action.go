package authz

import (
	"fmt"
	"strings"
)

// Action is what a policy speaks of.
type Action uint8

// The actions, as a policy names them.
const (
	Produce     Action = iota // append records
	Consume                   // read records, and where the log begins and ends
	Admin                     // operate the cluster
	Join                      // take part in it as a node
	Impersonate               // a proxy: speak for its clients
)

var actionNames = [...]string{Produce: "produce", Consume: "consume", Admin: "admin", Join: "join", Impersonate: "impersonate"}

func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return fmt.Sprintf("action %d", uint8(a))
}

func isAction(s string) bool {
	for _, name := range actionNames {
		if s == name {
			return true
		}
	}
	return false
}

func actionList() string { return strings.Join(actionNames[:], ", ") }

// powers is a set of actions.
type powers uint8

func of(actions ...Action) (p powers) {
	for _, a := range actions {
		p |= 1 << a
	}
	return p
}

func (p powers) has(a Action) bool { return p&(1<<a) != 0 }
