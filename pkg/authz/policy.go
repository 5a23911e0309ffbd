package authz

import (
	"strings"
	"sync"

	"github.com/casbin/casbin/v3"
)

// object is what every action is about: there is one log.
const object = "*"

// maxKnown bounds the decisions that are remembered. Names come from whoever has a
// certificate, and from proxies.
const maxKnown = 4096

// question is what a policy is asked.
type question struct {
	subject string
	action  Action
}

// policy decides by one set of files, and remembers what it has decided.
type policy struct {
	failed func(error) // told when it cannot decide

	mu    sync.RWMutex
	known map[question]bool // guarded by mu; at most maxKnown

	// asking is held over a decision: casbin is asked by one at a time, and what many
	// streams want to know at once it is asked once.
	asking   sync.Mutex
	enforcer *casbin.Enforcer  // guarded by asking
	index    map[string]powers // under DefaultModel: the rules by subject; else nil
}

// allows says whether the subject may. What cannot be decided is refused.
func (p *policy) allows(subject string, a Action) bool {
	q := question{subject, a}
	if ok, known := p.recall(q); known {
		return ok
	}
	p.asking.Lock()
	defer p.asking.Unlock()
	if ok, known := p.recall(q); known {
		return ok // somebody has asked meanwhile
	}
	ok, err := p.decide(subject, a)
	if err != nil {
		ok = false
		p.failed(err)
	}
	q.subject = strings.Clone(subject) // it may be a part of something larger
	p.remember(q, ok)
	return ok
}

// decide asks casbin. Under DefaultModel, whose matcher compares, it is asked for the
// subject's groups alone, and the rules are looked up: its matcher would be run for
// each rule there is, which takes milliseconds for a thousand.
func (p *policy) decide(subject string, a Action) (bool, error) {
	if p.index == nil {
		return p.enforcer.Enforce(subject, object, a.String())
	}
	if p.index[subject].has(a) {
		return true, nil
	}
	groups, err := p.enforcer.GetImplicitRolesForUser(subject)
	for _, g := range groups {
		if p.index[g].has(a) {
			return true, err
		}
	}
	return false, err
}

func (p *policy) recall(q question) (ok, known bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	ok, known = p.known[q]
	return ok, known
}

func (p *policy) remember(q question, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.known) >= maxKnown {
		for old := range p.known { // any will do: it can be asked again
			delete(p.known, old)
			break
		}
	}
	p.known[q] = ok
}
