package authz

import "fmt"

// DeniedError is a call that is refused.
type DeniedError struct {
	Caller Caller
	Method string
	Action Action // what was not allowed, unless the role alone was wrong
	reason reason
}

type reason uint8

const (
	notAllowed reason = iota // the action, to the subject
	wrongRole                // for the method
	notAProxy                // and speaks for somebody
	forNobody                // a proxy that has to say for whom
)

func (e *DeniedError) Error() string {
	c := e.Caller
	switch e.reason {
	case wrongRole:
		return fmt.Sprintf("%s: not for role %s (%s)", e.Method, c.Role, c.Name)
	case notAProxy:
		return fmt.Sprintf("logd-original-principal: only a proxy speaks for others, %s is of role %s", c.Name, c.Role)
	case forNobody:
		return fmt.Sprintf("%s: %s has to say for whom (logd-original-principal)", e.Method, c.Name)
	}
	if c.Proxied && e.Action != Impersonate {
		return fmt.Sprintf("%s: %s, for whom %s speaks, may not %s", e.Method, c.Principal, c.Name, e.Action)
	}
	return fmt.Sprintf("%s: %s may not %s", e.Method, c.Name, e.Action)
}

// label is the denied action in metrics.
func (e *DeniedError) label() string {
	switch e.reason {
	case wrongRole:
		return "role"
	case notAProxy, forNobody:
		return Impersonate.String()
	}
	return e.Action.String()
}
