package replica

import (
	"context"
	"sync"
	"time"

	"github.com/logd-io/logd/pkg/commitlog"
)

const (
	// retainPeriod is how often the leader looks at what may go.
	retainPeriod = time.Second
	// retainTimeout bounds one entry of retention.
	retainTimeout = 10 * time.Second
	// clockTolerance is how far the clocks of voters may lie from the leader's, and
	// how far in the future a stamp may be that still counts.
	clockTolerance = time.Minute
	// clockGrace is how long a new leader may be without enough clocks before it
	// says so.
	clockGrace = 10 * time.Second
	// ageSteps and the bounds after it say how often age moves the lowest offset:
	// each time is an entry of the log.
	ageSteps   = 100
	minAgeStep = time.Second
	maxAgeStep = 10 * time.Minute
)

// Retain says what the cluster keeps. Zero is no limit.
type Retain struct {
	// Age is how long ago a batch was taken by its leader, whose clock stamped it.
	Age time.Duration
	// Bytes is what the segment files of the leader's log take on its disk,
	// preallocated space included. The newest segment is kept whatever it takes.
	// Segments and checkpoints of other nodes lie elsewhere; DESIGN.md says by how
	// much a node's disk may exceed it.
	Bytes int64
}

// Retain changes what the cluster keeps, from Config's, when this node leads: every
// node should be told the same. It does not block. What has gone stays gone.
func (r *Replica) Retain(keep Retain) { r.keep.set(keep) }

// Loss is what a change of Retain has the cluster give up at once.
type Loss struct {
	From, To uint64 // the records [From, To); the lowest offset before and after
	Bytes    int64  // what this node's segments take that go with them
	Left     uint64 // records that are kept
}

// Records is how many go.
func (l Loss) Records() uint64 { return l.To - l.From }

// Loss tells what would go if the cluster kept only what to says, beyond what goes
// anyway: by this node's log, and its clock, whether it leads or not. An error is about
// age alone, and what it says is then too little.
func (r *Replica) Loss(to Retain) (Loss, error) {
	log, now := r.store.Log(), r.cfg.Clock()
	is, _ := r.keep.get()
	from, err := (&policy{Retain: is}).decide(log, now, true)
	if err != nil {
		return Loss{}, err
	}
	below, err := (&policy{Retain: to}).decide(log, now, true)
	if below <= from {
		return Loss{From: from, To: from}, err
	}
	l := Loss{From: from, To: below, Bytes: log.BytesBelow(below) - log.BytesBelow(from)}
	if visible := log.Visible(); visible > below {
		l.Left = visible - below
	}
	return l, err
}

// keep is a Retain that changes.
type keep struct {
	mu      sync.Mutex
	is      Retain        // guarded by mu
	changed chan struct{} // closed and replaced, under mu, whenever is changes
}

func (k *keep) set(to Retain) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.is = to
	if k.changed != nil {
		close(k.changed)
	}
	k.changed = make(chan struct{})
}

func (k *keep) get() (Retain, <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.is, k.changed
}

// retained is what a decision about retention looks at.
type retained interface {
	Lowest() uint64
	OffsetWithin(bytes int64) uint64
	Expired(cutoff, future int64, was commitlog.Expiry) (commitlog.Expiry, error)
}

// policy decides what the cluster gives up. It is the leader's, and begins anew
// with each leadership.
type policy struct {
	Retain
	expiry commitlog.Expiry
	aged   time.Time // when age moved the lowest offset last
}

// decide gives the lowest offset to be kept, as things are now; it is log's own
// when nothing may go. clock says that now can be trusted: without it nothing
// ages. An error is about age alone.
func (p *policy) decide(log retained, now time.Time, clock bool) (lowest uint64, err error) {
	lowest = log.Lowest()
	if p.Bytes > 0 {
		lowest = max(lowest, log.OffsetWithin(p.Bytes))
	}
	if p.Age <= 0 {
		return lowest, nil
	}
	if !clock {
		p.expiry = commitlog.Expiry{} // what was found by a clock that is doubted now
		return lowest, nil
	}
	p.expiry, err = log.Expired(now.Add(-p.Age).UnixNano(), now.Add(clockTolerance).UnixNano(), p.expiry)
	step := min(max(p.Age/ageSteps, minAgeStep), maxAgeStep)
	since := now.Sub(p.aged)
	if p.expiry.Below > lowest && (since >= step || since < 0) {
		lowest, p.aged = p.expiry.Below, now
	}
	return lowest, err
}

// retain is the leader's part in retention: it tells the cluster the lowest
// offset to be kept. What each node then gives up is maintenance's.
func (e *engine) retain() {
	r := e.r
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	tick := time.NewTicker(retainPeriod)
	defer tick.Stop()
	var (
		p      *policy // nil while this node does not lead
		term   uint64
		since  time.Time // when it began to lead, or when the clocks last agreed
		paused bool
	)
	for {
		keep, changed := r.keep.get()
		due := tick.C
		if keep == (Retain{}) {
			due, p = nil, nil
			r.retained.paused.Set(0)
		}
		select {
		case <-due:
		case <-changed:
			continue
		case <-e.stop:
			return
		}
		v := r.View()
		if !v.IsLeader || v.Draining {
			p, paused = nil, false
			r.retained.paused.Set(0)
			continue
		}
		if p == nil || term != v.Term || p.Retain != keep {
			p, term, since, paused = &policy{Retain: keep}, v.Term, time.Now(), false
		}
		now := r.cfg.Clock()
		clock := p.Age <= 0 || r.trusting || r.clocks.agree(r.cfg.ID, v.Peers, now)
		switch {
		case clock:
			if paused {
				r.logger.Info("retention by age goes on: the clocks agree again", "node", r.cfg.ID)
			}
			since, paused = time.Now(), false
			r.retained.paused.Set(0)
		case !paused && time.Since(since) >= clockGrace:
			paused = true
			r.retained.paused.Set(1)
			r.logger.Warn("retention by age is paused: no majority of voters has a clock within a minute of this leader's; check time synchronisation",
				"node", r.cfg.ID, "clock", now.UTC(), "differences", r.clocks.differences(r.cfg.ID, v.Peers, now))
		}
		was := r.store.Log().Lowest()
		lowest, err := p.decide(r.store.Log(), now, clock)
		if err != nil {
			r.logger.Warn("the age of records cannot be told", "node", r.cfg.ID, "err", err)
		}
		if lowest <= was {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, retainTimeout)
		err = r.SetLowest(bounded, lowest)
		cancel()
		if err != nil {
			r.logger.Debug("lowest offset not moved", "offset", lowest, "err", err)
			continue // whoever leads now decides anew
		}
		r.retained.moves.Inc()
		r.logger.Info("lowest offset moved", "node", r.cfg.ID, "lowest", lowest, "was", was)
	}
}

const (
	// sweepPeriod is how often maintenance looks for segments to remove.
	sweepPeriod = 100 * time.Millisecond
	// sweepPace is how often it removes one: a filesystem that frees large files
	// keeps writers waiting. A disk that fills up is worse: of more than
	// sweepBacklog of them it removes that part every sweepPeriod, so that what
	// waits is never more than the log grows by in about two seconds.
	sweepPace    = time.Second
	sweepBacklog = 16
)

// sweeping is the pace at which segments are removed.
type sweeping struct{ last time.Time }

// due says how many to remove now, of the segments that wait.
func (s *sweeping) due(now time.Time, waiting int) int {
	if waiting <= sweepBacklog && now.Sub(s.last) < sweepPace {
		return 0
	}
	s.last = now
	return max(waiting/sweepBacklog, 1)
}

// oldest is the age of the oldest readable batch in seconds, by this node's
// clock; 0 when there is none.
func (r *Replica) oldest() float64 {
	log := r.store.Log()
	stamp, ok := log.TimeAt(log.Lowest())
	if !ok {
		return 0
	}
	return max(r.cfg.Clock().Sub(time.Unix(0, stamp)), 0).Seconds()
}
