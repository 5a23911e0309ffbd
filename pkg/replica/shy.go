package replica

import (
	"errors"
	"sync"
	"time"
)

// errShy answers, in the place of a peer, a candidate that should not be one yet.
var errShy = errors.New("this node found damage in its log, and leaves leading to others for a moment")

// shyFor is the delay in heartbeat timeouts: two election timeouts, each of which
// Raft draws from between one and two of them. The others need as long to elect
// somebody when they have to wait for each other's timers.
const shyFor = 4

// shyEvery is how many times its own length a delay of candidacy is away from the
// one before. Damage that is found again and again must not keep a node, and with
// it perhaps the cluster, from electing anybody.
const shyEvery = 10

// shy delays this node's own candidacy. While it lasts, the transport asks nobody
// for a pre-vote, without which Raft raises no term, and takes no leadership that
// another node would hand on. Votes for others, and everything else, go on.
type shy struct {
	mu    sync.Mutex
	since time.Time // of the newest delay
	until time.Time // its end
}

// begin begins a delay of d, unless there was one not long ago.
func (s *shy) begin(now time.Time, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.since.IsZero() && now.Sub(s.since) < shyEvery*d {
		return
	}
	s.since, s.until = now, now.Add(d)
}

// on says whether the delay lasts.
func (s *shy) on(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return now.Before(s.until)
}
