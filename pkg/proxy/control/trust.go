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
	answers    int64 // the node's, at the last failure
	inARow     int   // failures since the last that an answer came before
	rests      int   // one soon after the other
	failedAt   time.Time
	restsUntil time.Time
}

// fail takes in that a request failed on the node, and reports whether the node
// begins a rest, the first of which takes base. answers is how many the node has given
// by now. What callers did not wait for is neither a failure nor an answer.
func (t *trust) fail(now time.Time, answers int64, base time.Duration) bool {
	if answers > t.answers {
		t.inARow = 0
	}
	t.answers = answers
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
