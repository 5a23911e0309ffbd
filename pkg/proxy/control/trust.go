package control

import "time"

const (
	// failuresInARow is how many requests have to fail on a follower, and none be
	// answered between them, before it rests. One failure may be the request's fault,
	// which then meets every follower it is tried on.
	failuresInARow = 3
	// restMax is the longest rest. It bounds how long a follower that is well again
	// stays idle, and how often one that is not makes requests fail.
	restMax = 10 * time.Second
	// restsForget is how long after its last failure a follower begins anew.
	restsForget = 30 * time.Second
)

// trust is what requests have said of a node. The zero trust speaks for it.
//
// A node that rests is tried again when its time is up, and is on trial then: the
// next failure makes it rest again, for twice as long, until it answers something.
type trust struct {
	failures   int64 // all there were
	answered   int64 // calls that had ended in another way, at the last failure
	inARow     int   // failures since the last that an answer came before
	rests      int   // one soon after the other
	failedAt   time.Time
	restsUntil time.Time
}

// fail takes in that a request failed on the node, and reports whether the node
// begins a rest, the first of which takes base. ended is how many calls on it had
// ended by now, this one and other failures among them. It may run ahead of the
// failures told: those count as answers until they are, so that of many that fail
// together it takes a few more.
func (t *trust) fail(now time.Time, ended int64, base time.Duration) bool {
	t.failures++
	answered := ended - t.failures
	if answered > t.answered {
		t.inARow = 0
	}
	t.answered = answered
	if t.resting(now) {
		return false // it was on its way before the rest
	}
	if now.Sub(t.failedAt) > restsForget {
		t.inARow, t.rests = 0, 0
	}
	t.failedAt = now
	if t.inARow++; t.inARow < failuresInARow {
		return false
	}
	t.restsUntil = now.Add(min(base<<min(t.rests, 10), max(base, restMax)))
	t.rests++
	return true
}

func (t *trust) resting(now time.Time) bool { return now.Before(t.restsUntil) }
