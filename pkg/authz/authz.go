package authz

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
)

// Caller is who calls: what the certificate says and, from a proxy, for whom.
type Caller struct {
	Role, Name string
	// Principal is whom a proxy speaks for. It counts only if Proxied.
	Principal string
	Proxied   bool
}

// subject is whose action a call is.
func (c Caller) subject() string {
	if c.Proxied {
		return c.Principal
	}
	return c.Name
}

// Authorizer decides about calls. Safe for concurrent use.
type Authorizer struct {
	files   Files
	logger  hclog.Logger
	metrics *metrics

	// What decides now. Every call loads it once, and nothing behind it ever changes
	// but for the memory of its decisions, so a reload is one Swap.
	inForce atomic.Pointer[version]

	mu     sync.Mutex // held over a look at the files
	loaded sources    // what inForce was made from; guarded by mu
	seen   sources    // what the last look found; guarded by mu
	failed *sources   // what did not load and was told; guarded by mu, nil if all is well
}

// version is the rules between two reloads.
type version struct {
	policy     *policy       // nil: roles alone decide
	superseded chan struct{} // closed after the next version has been put in force
}

// ByRole decides by the role in the certificate alone.
func ByRole() *Authorizer {
	a := &Authorizer{logger: hclog.NewNullLogger(), metrics: newMetrics(nil)}
	a.inForce.Store(&version{superseded: make(chan struct{})})
	return a
}

// Grant is leave to make a call, for as long as the rules do not change.
type Grant struct {
	caller Caller
	method string
	by     *version
}

// Changed is closed once the rules the grant goes by are no longer in force. A
// stream that outlives it asks for another by Renew.
func (g Grant) Changed() <-chan struct{} {
	if g.by == nil {
		return nil
	}
	return g.by.superseded
}

// Method is what the grant is for, by its full name.
func (g Grant) Method() string { return g.method }

// Check decides whether the caller may call a method, given by its full name. The
// error is a *DeniedError. It allocates nothing for a caller that may and has been
// seen under these rules.
func (a *Authorizer) Check(c Caller, method string) (Grant, error) {
	v := a.inForce.Load()
	if denied := v.check(c, method); denied != nil {
		a.metrics.denied.WithLabelValues(denied.label()).Inc()
		return Grant{}, denied
	}
	return Grant{c, method, v}, nil
}

// Renew decides again about what is under way, by the rules in force now.
func (a *Authorizer) Renew(g Grant) (Grant, error) { return a.Check(g.caller, g.method) }

func (v *version) check(c Caller, method string) *DeniedError {
	deny := func(r reason, a Action) *DeniedError {
		return &DeniedError{Caller: c, Method: method, Action: a, reason: r}
	}
	if c.Proxied {
		if c.Role != proxy {
			return deny(notAProxy, Impersonate)
		}
		if !v.can(c.Name, possible[proxy], granted[proxy], Impersonate) {
			return deny(notAllowed, Impersonate)
		}
	}
	if Public(method) {
		return nil
	}
	r := rules[method]
	if !slices.Contains(r.roles, c.Role) {
		return deny(wrongRole, 0)
	}
	actions, may, has := r.actions, possible[c.Role], granted[c.Role]
	switch {
	case c.Proxied:
		may, has = represented, represented
	case c.Role == proxy && r.principal:
		return deny(forNobody, 0)
	case c.Role == proxy && len(actions) > 0:
		actions = speaks // what it asks for itself, it asks to speak for others
	case c.Role == admin && len(actions) == 0:
		actions = operates
	}
	if len(actions) == 0 {
		return nil
	}
	for _, a := range actions {
		if v.can(c.subject(), may, has, a) {
			return nil
		}
	}
	return deny(notAllowed, actions[0])
}

// can says whether a subject, which may be granted some powers, and without a
// policy has others, is allowed an action.
func (v *version) can(subject string, possible, granted powers, a Action) bool {
	switch {
	case !possible.has(a):
		return false
	case v.policy == nil:
		return granted.has(a)
	}
	return v.policy.allows(subject, a)
}
