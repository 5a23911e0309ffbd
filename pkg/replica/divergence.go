package replica

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// askTimeout bounds one question to a voter.
	askTimeout = 2 * time.Second
	// firstAsk and lastAsk bound the pause between two rounds of questions.
	firstAsk = 100 * time.Millisecond
	lastAsk  = 5 * time.Second
	// announceTimeout bounds one announcement.
	announceTimeout = 10 * time.Second
)

// detector finds a state machine that is not what the others are. The leader
// announces its state; each node compares it with its own. One that differs from
// the leader, or from whoever asks it, is in doubt: until a majority of voters
// has said what is right it takes no batches and is not ready.
type detector struct {
	e       *engine
	metrics *detectorMetrics
	wake    chan struct{} // capacity 1: "there is a doubt"

	mu    sync.Mutex
	doubt *doubt // nil: none; guarded by mu
}

// doubt is a difference that is being looked into; guarded by detector.mu.
type doubt struct {
	index, own uint64
	answers    map[string]answer // of the other nodes, by id
	tried      bool              // a whole round of questions did not decide it
	settled    bool              // no more can be learned at this entry
}

// doubted says whether this node may be the one that is wrong.
func (d *detector) doubted() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.doubt != nil
}

// differs begins a doubt about the state at an entry, or about a newer one. by
// is who said so with which digest, "" when it was in an announcement.
func (d *detector) differs(at note, by string, digest uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.doubt == nil || at.index > d.doubt.index {
		if d.doubt == nil {
			d.e.r.logger.Warn("state differs; asking the voters", "node", d.e.r.cfg.ID, "index", at.index, "by", by)
		}
		d.doubt = &doubt{index: at.index, own: at.digest, answers: make(map[string]answer)}
		d.metrics.doubted.Set(1)
	}
	if by != "" && d.doubt.index == at.index {
		d.doubt.answers[by] = answer{known: true, digest: digest}
		d.doubt.settled = false
	}
	poke(d.wake)
	poke(d.e.changed)
}

// agrees ends a doubt about an earlier entry: at a later one this node is as
// another that leads.
func (d *detector) agrees(index uint64) {
	d.metrics.agreed.Set(float64(index))
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.doubt != nil && index > d.doubt.index {
		d.end("a later announcement agrees")
	}
}

// renew puts a newer entry in the place of one that the voters could not decide, be
// it that too few remember it or that one is away. Who leads hears no other
// announcement than its own: nothing else would end a doubt whose cause is gone, nor
// move the leadership.
func (d *detector) renew(at note) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.doubt == nil || !d.doubt.tried || at.index <= d.doubt.index {
		return
	}
	d.doubt = &doubt{index: at.index, own: at.digest, answers: make(map[string]answer)}
	poke(d.wake)
}

// end ends the doubt; mu is held.
func (d *detector) end(why string) {
	d.e.r.logger.Info("state is not in doubt any more", "node", d.e.r.cfg.ID, "index", d.doubt.index, "why", why)
	d.doubt = nil
	d.metrics.doubted.Set(0)
	poke(d.e.changed)
}

// compared takes what a batch of entries said; it must not block.
func (d *detector) compared(seen []comparison) {
	for _, c := range seen {
		switch {
		case !c.known:
			d.metrics.unknown.Inc()
		case c.own != c.announced:
			d.metrics.differ.Inc()
			d.differs(note{c.index, c.own}, "", 0)
		default:
			d.metrics.agree.Inc()
			if c.by != d.e.r.cfg.ID {
				d.agrees(c.index)
			} else { // by our own word we always agree
				d.renew(note{c.index, c.own})
			}
		}
	}
}

// run announces while this node leads, and asks while it is in doubt.
func (d *detector) run() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var announce <-chan time.Time // nil: never
	if d.e.r.cfg.Announce > 0 {
		tick := time.NewTicker(d.e.r.cfg.Announce)
		defer tick.Stop()
		announce = tick.C
	}
	var work sync.WaitGroup // the questions under way
	defer work.Wait()
	defer cancel()
	retry := time.NewTimer(0)
	defer retry.Stop()
	pause := time.Duration(0)
	asked := make(chan uint64, 1) // capacity 1: the one round under way, at that entry, has ended
	asking := false
	for {
		select {
		case <-announce:
			d.announce(ctx)
			continue
		case <-d.wake:
			pause = 0
		case <-retry.C:
		case index := <-asked:
			asking = false
			if d.judge(ctx, index) {
				return
			}
			pause = min(max(2*pause, firstAsk), lastAsk)
			retry.Reset(pause)
			continue
		case <-d.e.stop:
			return
		}
		if q, ok := d.question(); ok && !asking {
			asking = true
			work.Go(func() {
				d.ask(ctx, q)
				asked <- q.at.index
			})
		}
	}
}

// announce puts the state at the newest announcement into the log.
func (d *detector) announce(ctx context.Context) {
	e := d.e
	v := e.r.View()
	if !v.IsLeader || len(v.Peers) < 2 {
		return
	}
	at, due := e.fsm.announcement()
	if !due && !d.doubted() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, announceTimeout)
	defer cancel()
	f := e.raft.Apply(encodeAnnounce(announcement{index: at.index, digest: at.digest, by: e.r.cfg.ID}), 0)
	if err := e.result(await(ctx, f, e.done), "announce the state"); err != nil {
		e.r.logger.Debug("state not announced", "err", err)
	}
}

// question is a doubt on its way to the voters that have not answered.
type question struct {
	at note
	to []string
}

// question is what to ask next. The leader is asked again and again: whoever is asked
// makes the log say how things stand now, once it leads, though nothing is written.
func (d *detector) question() (q question, ok bool) {
	voters := d.voters()
	_, leader := d.e.raft.LeaderWithID()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.doubt == nil {
		return q, false
	}
	q.at = note{d.doubt.index, d.doubt.own}
	for _, id := range voters {
		if _, answered := d.doubt.answers[id]; id != d.e.r.cfg.ID && (!answered || id == string(leader)) {
			q.to = append(q.to, id)
		}
	}
	// With nobody left to ask there is still a ruling to give, once.
	return q, !d.doubt.settled || len(q.to) > 0
}

func (d *detector) voters() (ids []string) {
	for _, p := range d.e.peers() {
		if p.Voter {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

// ask puts the question to all at once. Who is asked learns of the difference.
func (d *detector) ask(ctx context.Context, q question) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, id := range q.to {
		if d.e.r.cfg.Compare == nil {
			break
		}
		wg.Go(func() {
			known, digest, err := d.e.r.cfg.Compare(ctx, id, q.at.index, q.at.digest)
			if err != nil {
				return // it is away or has not come so far; it is asked again
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			if known = known && sameVersion(digest); d.doubt == nil || d.doubt.index != q.at.index {
				return
			}
			if known || !d.doubt.answers[id].known { // what it once said counts
				d.doubt.answers[id] = answer{known, digest}
			}
		})
	}
	wg.Wait()
}

// judge looks at the answers, after a round of questions about the entry at index. It
// reports true when this node has ended itself.
func (d *detector) judge(ctx context.Context, index uint64) bool {
	voters := d.voters()
	r := d.e.r
	d.mu.Lock()
	if d.doubt == nil {
		d.mu.Unlock()
		return false
	}
	ruling, majority, votes := rule(r.cfg.ID, d.doubt.own, voters, d.doubt.answers)
	err := &DivergenceError{Node: r.cfg.ID, Index: d.doubt.index, Own: d.doubt.own, Majority: majority, Votes: votes, Voters: len(voters)}
	var heir string // a voter that is right
	for _, id := range voters {
		if a := d.doubt.answers[id]; a.known && a.digest == majority && votes > 0 {
			heir = id
			break
		}
	}
	d.doubt.tried = d.doubt.tried || d.doubt.index == index
	switch ruling {
	case rulingInnocent:
		d.end("a majority of voters agrees")
	case rulingUndecided:
		d.doubt.settled = true // the next announcement decides, or is asked about
	}
	d.mu.Unlock()
	if ruling != rulingGuilty && ruling != rulingNobody {
		return false
	}
	if err := err.mark(r.cfg.FS, r.cfg.Dir); err != nil {
		r.logger.Error("this node diverged, which could not be noted: do not start it again with this data", "err", err)
	}
	if heir != "" && r.View().IsLeader {
		// As long as an election may take: past that the others elect one themselves.
		ctx, cancel := context.WithTimeout(ctx, max(5*r.cfg.Heartbeat, time.Second))
		if err := r.Transfer(ctx, heir); err != nil {
			r.logger.Warn("leadership was not handed over; an election will follow", "node", r.cfg.ID, "err", err)
		}
		cancel()
	}
	r.fail(err)
	return true
}

// CompareHash answers a node whose certificate has that name, and whose state
// just after the announced entry at index has that fingerprint: with this node's
// own, if it remembers it. *BehindError: it has not applied that entry yet. If
// they differ this node begins to ask as well. As leader it announces its state, though
// nothing was written: who asks is in doubt, and that may end it.
func (r *Replica) CompareHash(name string, index, digest uint64) (known bool, own uint64, err error) {
	e := r.engine.Load()
	if e == nil {
		return false, 0, ErrNotRunning
	}
	own, known, applied := e.fsm.noted(index)
	if applied < index {
		return false, 0, &BehindError{Visible: r.store.Log().Visible()}
	}
	if !sameVersion(digest) {
		return false, own, nil // it is of another version: neither can say anything
	}
	peers := e.peers()
	by := slices.IndexFunc(peers, func(p Peer) bool { return NameOf(p.ID) == name })
	if by < 0 {
		return known, own, nil // a stranger to the configuration: its word is nothing
	}
	e.fsm.want()
	if known && own != digest {
		e.detector.differs(note{index, own}, peers[by].ID, digest)
	}
	return known, own, nil
}

// detectorMetrics are the handles of the detector.
type detectorMetrics struct {
	agree, differ, unknown prometheus.Counter
	agreed, doubted        prometheus.Gauge
}

func newDetectorMetrics(reg prometheus.Registerer) *detectorMetrics {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "logd", Subsystem: "replica", Name: name, Help: help}
	}
	compared := prometheus.NewCounterVec(prometheus.CounterOpts(
		opts("states_compared_total", "Announced states, by what this node's own at the same entry was.")), []string{"result"})
	m := &detectorMetrics{
		agree: compared.WithLabelValues("agree"), differ: compared.WithLabelValues("differ"), unknown: compared.WithLabelValues("unknown"),
		agreed:  prometheus.NewGauge(prometheus.GaugeOpts(opts("state_agreed_index", "Newest entry at which another leader's state was this node's."))),
		doubted: prometheus.NewGauge(prometheus.GaugeOpts(opts("state_doubted", "1 while this node's state differs from another's and the voters have not said which is right."))),
	}
	if reg != nil {
		reg.MustRegister(compared, m.agreed, m.doubted)
	}
	return m
}
