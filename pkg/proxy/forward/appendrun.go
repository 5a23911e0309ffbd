package forward

import (
	"errors"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/proxy/route"
)

// hint is the leader a node named in a refusal: good until a table knows as much.
type hint struct {
	id   string
	term uint64
}

// leader is whom to append to by table t, or nil.
func (h *hint) leader(t *route.Table) route.Upstream {
	if h.id == "" {
		return t.Leader
	}
	if t.Term > h.term || t.Term == h.term && t.Leader != nil && t.Leader.ID() == h.id {
		*h = hint{}
		return t.Leader
	}
	if up := t.Nodes[h.id]; up != nil {
		return up
	}
	return t.Leader
}

// run drives the appender until it has been idle for long enough or the forwarder
// closes: it chooses the leader, watches over the stream to it, and decides when
// to try again.
func (a *appender) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var (
		h        hint
		failures int          // streams in a row without an acknowledgement
		tried    *route.Table // the table of the last of them
		hop      bool         // the next try follows a fresh hint
		after    time.Duration
	)
	for {
		if !a.awaitWork(timer) {
			return
		}
		t := a.f.cfg.Holder.Load()
		up := h.leader(t)
		if up == nil {
			a.stall(a.f.now())
			a.hold(timer, t, -1)
			continue
		}
		if failures > 0 && t == tried && !hop {
			pause := max(after, backoff(failures))
			if !a.f.sends.spend(a.f.now()) {
				pause = max(pause, backoffMost)
			}
			a.hold(timer, t, pause)
			tried = nil
			continue
		}
		if failures > 0 {
			a.f.metrics.retries.Inc()
		}
		s := a.open(up)
		err := a.watch(s, t, &h, timer)
		a.mu.Lock()
		progress := a.acks > 0
		a.mu.Unlock()
		a.settle(err, up.ID())
		if progress {
			failures = 0
		}
		failures++
		tried, hop, after = t, false, 0
		switch {
		case errors.Is(err, errIdle):
			failures = 0
			continue
		case errors.Is(err, errMoved):
			tried = nil
		default:
			hop, after = a.learn(up, err, &h)
		}
		if verdictOf(err) == refusedCaller {
			// It was answered, to everything there was. What comes is a question of its
			// own, and not a retry out of everybody's budget.
			failures = 0
		}
		a.stall(a.f.now())
		a.f.log.Debug("append stream ended", "principal", a.principal, "node", up.ID(), "err", err)
	}
}

// learn takes what the end of a stream says about the cluster. hop means: there is
// a new leader to go to at once; after is how long the node asks to be left alone.
func (a *appender) learn(up route.Upstream, err error, h *hint) (hop bool, after time.Duration) {
	info, _ := apierr.From(err)
	from := up.ID()
	switch info.Reason {
	case apierr.ReasonNotLeader:
		var nl apierr.NotLeader
		_ = errors.As(info.Err(), &nl)
		a.f.cfg.Hints.NotLeader(from, nl.Leader, nl.Address, nl.Term)
		if nl.Leader == "" || nl.Leader == from {
			*h = hint{}
			return false, 0
		}
		if from == h.id && nl.Term < h.term {
			*h = hint{} // whom it is about knows of no such term
		}
		next := hint{nl.Leader, nl.Term}
		hop = next != *h && nl.Term >= h.term
		if hop {
			*h = next
			_, hop = a.f.cfg.Holder.Load().Nodes[next.id]
		}
		return hop, 0
	case apierr.ReasonOverloaded:
		return false, min(info.RetryAfter(), backoffMost)
	case apierr.ReasonDraining:
		*h = hint{}
		return false, 0
	}
	if h.id == from {
		*h = hint{}
	}
	if info.Reason == "" && info.Code != codes.PermissionDenied && info.Code != codes.Unauthenticated && !errors.Is(err, errClosing) {
		a.f.cfg.Hints.Failed(from, err)
	}
	return false, 0
}

// watch stands by the stream until it is over, ends it when it should not go on,
// and answers why it ended.
func (a *appender) watch(s *appendStream, t *route.Table, h *hint, timer *time.Timer) error {
	end := func(cause error) error {
		s.cancel(cause)
		<-s.done
		return cause
	}
	for {
		pause, cause := a.check(s)
		if cause != nil {
			if errors.Is(cause, errAckTimeout) {
				a.f.metrics.ackTimeouts.Inc()
				a.f.log.Warn("the leader does not acknowledge; the append stream is opened again", "node", s.up.ID(), "principal", a.principal)
			}
			return end(cause)
		}
		timer.Reset(pause)
		select {
		case <-s.done:
			return s.err
		case <-t.Superseded():
			t = a.f.cfg.Holder.Load()
			up := h.leader(t)
			if up != nil && up.ID() != s.up.ID() {
				return end(errMoved)
			}
			a.pause(up == nil)
		case <-timer.C:
		case <-a.news:
		case <-a.f.closed:
			return end(errClosing)
		}
	}
}

// check ends what has expired, and says whether the stream should end and when to
// look again. Between two looks a batch may be sent, so no look is further away
// than the shortest time that can pass.
func (a *appender) check(s *appendStream) (pause time.Duration, cause error) {
	now := a.f.now()
	due := a.expire(now)
	ack, idle := int64(a.f.cfg.AckTimeout), int64(a.f.cfg.IdleTimeout)
	a.mu.Lock()
	defer a.mu.Unlock()
	next := now + min(ack, idle, int64(a.f.cfg.HoldTimeout))
	if due != 0 {
		next = min(next, due)
	}
	busy := max(s.began, a.lastAck)
	switch {
	case len(a.inflight) > 0, a.queue.n > 0 && !s.opened:
		late := busy
		if len(a.inflight) > 0 {
			late = max(late, a.inflight[0].sentAt)
		}
		if late += ack; late <= now {
			if a.stalled == 0 {
				a.stalledSince(late - ack)
			}
			return 0, errAckTimeout
		}
		next = min(next, late)
	case a.queue.n == 0:
		if busy+idle <= now {
			return 0, errIdle
		}
		next = min(next, busy+idle)
	}
	a.nextDue = next
	return time.Duration(next - now), nil
}

// pause stops or lets go the sending of new batches.
func (a *appender) pause(on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case on == a.paused:
	case on:
		a.paused = true
		if a.stalled == 0 {
			a.stalledSince(a.f.now())
		}
	default:
		a.paused = false
		if len(a.inflight) == 0 {
			a.stalledSince(0)
		}
		if a.idle {
			a.idle = false
			signal(a.work)
		}
	}
}

// stall notes that the leader makes no progress from now on.
func (a *appender) stall(now int64) {
	a.mu.Lock()
	if a.stalled == 0 {
		a.stalledSince(now)
	}
	a.mu.Unlock()
}

// awaitWork answers true once there is something to send, and false when run has
// to end: after the idle time, or when the forwarder closes.
func (a *appender) awaitWork(timer *time.Timer) bool {
	timer.Reset(a.f.cfg.IdleTimeout)
	for idle := false; ; {
		if a.f.isClosed() {
			a.close()
			return false
		}
		a.mu.Lock()
		if a.queue.n > 0 || len(a.inflight) > 0 {
			a.waiting = false
			a.mu.Unlock()
			return true
		}
		if idle {
			a.running, a.waiting = false, false
			clear(a.clients) // nothing is under way
			a.sweepAt = idleClients
			a.calm()
			a.mu.Unlock()
			return false
		}
		a.waiting = true
		a.stalledSince(0)
		a.mu.Unlock()
		select {
		case <-a.news:
		case <-timer.C:
			idle = true
		case <-a.f.closed:
		}
	}
}

// hold waits until table t is superseded, and no longer than pause unless that is
// negative. What expires meanwhile is told so. It also ends when nothing is left
// to wait for.
func (a *appender) hold(timer *time.Timer, t *route.Table, pause time.Duration) {
	until := int64(-1)
	if pause >= 0 {
		until = a.f.now() + int64(pause)
	}
	a.f.metrics.holds.Inc()
	for {
		now := a.f.now()
		due := a.expire(now)
		next := now + int64(a.f.cfg.HoldTimeout)
		if due != 0 {
			next = min(next, due)
		}
		if until >= 0 {
			if until <= now {
				return
			}
			next = min(next, until)
		}
		a.mu.Lock()
		empty := a.queue.n == 0 && len(a.inflight) == 0
		a.nextDue = next
		a.mu.Unlock()
		if empty {
			return
		}
		timer.Reset(time.Duration(next - now))
		select {
		case <-t.Superseded():
			return
		case <-timer.C:
		case <-a.news:
		case <-a.f.closed:
			return
		}
	}
}
