package bootstrap

import (
	"strings"
	"time"
)

// How long the same thing is not logged again: twice as long each time, for a node may
// wait for days, and whoever looks at the end of its log is to find why.
const (
	quietMin = time.Minute
	quietMax = 15 * time.Minute
	maxKinds = 16 // things that are told apart
)

// Pace says when what a node waits for is logged again. Texts that differ in digits
// only, in ports, times or counters, are one thing. The zero value is ready. It has one
// user at a time.
type Pace struct {
	kinds map[string]*quiet
}

type quiet struct {
	since time.Time // it was last logged
	still time.Duration
}

// Due says whether what is to be logged now, and if so takes it as logged.
func (p *Pace) Due(what string) bool {
	now := time.Now()
	kind := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, what)
	q := p.kinds[kind]
	switch {
	case q == nil:
		if p.kinds == nil {
			p.kinds = make(map[string]*quiet)
		}
		if len(p.kinds) == maxKinds {
			oldest := ""
			for k, q := range p.kinds {
				if oldest == "" || q.since.Before(p.kinds[oldest].since) {
					oldest = k
				}
			}
			delete(p.kinds, oldest)
		}
		p.kinds[kind] = &quiet{now, quietMin}
		return true
	case now.Sub(q.since) < q.still:
		return false
	}
	q.since, q.still = now, min(2*q.still, quietMax)
	return true
}
