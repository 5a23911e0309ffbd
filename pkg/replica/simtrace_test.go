package replica

import (
	"fmt"
	"strings"
	"time"
)

// counts are what a run reports.
type counts struct {
	Entries, Applied, Acks, Repeats, Refused, Reads           int
	Elections, Cuts, Installs, Restores, Crashes, Kills, Ends int
	Members, Ghosts, Crafted, Retained, Faults                int
}

type event struct {
	at   time.Duration
	node string
	what string
	args [3]uint64
}

type violation struct {
	check, text string
	at          time.Duration
}

// note adds an event to the trace; mu is held.
func (o *oracle) note(node, what string, args ...uint64) {
	e := event{at: time.Since(o.begin), node: node, what: what}
	copy(e.args[:], args)
	o.trace[o.seen%len(o.trace)] = e
	o.seen++
}

func (o *oracle) say(node, what string, args ...uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.note(node, what, args...)
}

// violated notes the first violation; mu is held.
func (o *oracle) violated(check, format string, args ...any) {
	if o.found != nil {
		return
	}
	o.found = &violation{check: check, text: fmt.Sprintf(format, args...), at: time.Since(o.begin)}
	o.note("", "VIOLATION "+check)
	close(o.stop)
}

func (o *oracle) violate(check, format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.violated(check, format, args...)
}

func (o *oracle) failed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.found != nil
}

// tail renders the end of the trace.
func (o *oracle) tail(n int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var b strings.Builder
	for i := max(0, o.seen-min(n, len(o.trace))); i < o.seen; i++ {
		e := o.trace[i%len(o.trace)]
		fmt.Fprintf(&b, "%12.6fs %-14s %s", e.at.Seconds(), e.node, e.what)
		for k := len(e.args); k > 0; k-- {
			if e.args[k-1] != 0 {
				fmt.Fprintf(&b, " %v", e.args[:k])
				break
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
