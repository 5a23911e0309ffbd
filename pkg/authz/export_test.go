package authz

// Known is how many decisions are remembered.
func Known(a *Authorizer) int {
	p := a.inForce.Load().policy
	p.mu.RLock()
	defer p.mu.RUnlock()
	return len(p.known)
}
