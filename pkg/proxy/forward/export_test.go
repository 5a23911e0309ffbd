package forward

// Stalled tells whether an appender has noted that its leader makes no progress.
// A test that breaks a leader and then produces waits for it, since what comes
// earlier may still be sent.
func (f *Forwarder) Stalled() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for _, a := range f.appenders {
		a.mu.Lock()
		stalled := a.stalled != 0
		a.mu.Unlock()
		if stalled {
			return true
		}
	}
	return false
}

// FirstInDoubt says whether the first batch of an epoch has no outcome yet. A log that
// forgets its producer then takes it for new when it comes again.
func (f *Forwarder) FirstInDoubt() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for _, a := range f.appenders {
		a.mu.Lock()
		doubt := len(a.inflight) > 0 && a.inflight[0].first == 0
		a.mu.Unlock()
		if doubt {
			return true
		}
	}
	return false
}
