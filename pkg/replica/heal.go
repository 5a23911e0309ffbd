package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/raftstore"
)

const (
	// firstHeal and lastHeal bound the pause between two attempts to repair.
	firstHeal = 50 * time.Millisecond
	lastHeal  = 5 * time.Second
	// answerTimeout bounds a question to one peer; a transfer of entries that moves on
	// is not cut off.
	answerTimeout = 5 * time.Second
)

// healer repairs what is damaged on this node with what its peers have. It is one
// goroutine of Run, and the only one that repairs.
//
// Damage that Raft must not see keeps Raft from being started, or stops it; for
// the rest the node goes on, and answers for all but the damaged ranges.
type healer struct {
	r       *Replica
	said    string                 // what the last line in the log was about
	first   map[string]observation // what each voter showed first; see tail
	damaged bool                   // an episode of damage is under way
	since   time.Time              // when it began
	broken  bool                   // damage ended a goroutine of Raft's, which is not stopped yet
}

// heal is the healer's loop. It ends with ctx.
func (r *Replica) heal(ctx context.Context) {
	h := &healer{r: r}
	pause := firstHeal
	for ctx.Err() == nil {
		left, progress := h.round(ctx)
		if !left {
			h.done()
			pause = firstHeal
			select {
			case <-r.damage:
			case <-ctx.Done():
			}
			continue
		}
		if progress {
			pause = firstHeal
			continue
		}
		timer := time.NewTimer(pause)
		select {
		case <-r.damage:
			pause = firstHeal
		case <-timer.C:
			pause = min(2*pause, lastHeal)
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// spoiled takes note that damage was found. It is called from wherever that was,
// and does not wait.
func (r *Replica) spoiled() {
	r.shy.begin(time.Now(), shyFor*r.cfg.Heartbeat)
	poke(r.damage)
}

// mended says whether err is damage that the healer repairs, and wakes it.
func (r *Replica) mended(err error) bool {
	var damaged *raftstore.DamageError
	if r.cfg.Source == nil || !errors.As(err, &damaged) {
		return false
	}
	r.spoiled()
	return true
}

// whole says whether Raft may be started over what is on disk.
func (r *Replica) whole() bool {
	d := r.store.Damage()
	if d.Blocked {
		return false
	}
	if len(d.Log) == 0 {
		return true
	}
	newest, _, _ := r.store.Checkpoint(^uint64(0))
	for _, l := range d.Log {
		if l.Last > newest.Index { // Raft reads what is above it when it starts
			return false
		}
	}
	return true
}

// begin starts Raft, or leaves it to the healer. r.life must be held.
func (r *Replica) begin() error {
	if r.cfg.Source == nil {
		return r.startEngine() // what is damaged was refused by Open
	}
	newest, ok, _ := r.store.Checkpoint(^uint64(0)) // before whole: it shows which verify
	if !r.whole() {
		return nil
	}
	var damaged *commitlog.CorruptError
	switch err := r.guard(func() error { return r.extend(newest.Next, ok) }); {
	case errors.As(err, &damaged):
		return nil // repaired first
	case err != nil:
		return fmt.Errorf("offset index: %w", err)
	}
	if err := r.startEngine(); !errors.Is(err, errInterrupted) {
		return err
	}
	return nil // it met damage that was not known; likewise
}

// resume starts Raft if nothing stands in its way any more. later says that
// somebody else is starting or stopping it, and that this has to be looked at
// again.
func (r *Replica) resume() (later bool) {
	if !r.life.TryLock() {
		return true
	}
	defer r.life.Unlock()
	if !r.running || r.closed || r.cluster == "" || r.engine.Load() != nil {
		return false
	}
	if err := r.begin(); err != nil {
		r.fail(err)
	}
	return false
}

// round looks at the damage and tries once to repair all of it. left says that
// something remains, progress that less does than before.
func (h *healer) round(ctx context.Context) (left, progress bool) {
	r := h.r
	broken := r.store.Interrupted() && r.engine.Load() != nil
	d := r.store.Damage()
	if !broken && !d.Blocked && len(d.Log) == 0 && len(d.Offsets) == 0 {
		return r.resume(), false
	}
	if !h.damaged {
		h.damaged, h.since = true, time.Now()
		h.first = make(map[string]observation)
		r.metrics.damages.Inc()
	}
	if !h.standBack(ctx, d, broken) {
		return true, false
	}
	err := h.repair(ctx, d)
	if ctx.Err() != nil {
		return true, false
	}
	now := r.store.Damage()
	if len(now.Log) > 0 && r.engine.Load() == nil && err == nil {
		err = fmt.Errorf("%s", now.Log[0])
	}
	h.waits(now, err)
	left = r.resume() || now.Blocked || len(now.Log) > 0 || len(now.Offsets) > 0
	return left, less(d, now)
}

// less says whether now there is less damage than there was.
func less(was, now raftstore.Damage) bool {
	count := func(d raftstore.Damage) (n uint64) {
		for _, l := range d.Log {
			n += l.Entries() + 1
		}
		n += uint64(len(d.Offsets))
		for _, err := range []error{d.Stable, d.Checkpoint} {
			if err != nil {
				n++
			}
		}
		return n
	}
	return count(now) < count(was)
}

// done ends an episode of damage.
func (h *healer) done() {
	if !h.damaged {
		return
	}
	h.damaged, h.said, h.first = false, "", nil
	h.r.waitsFor.Store(nil)
	h.r.metrics.repairs.Inc()
	h.r.logger.Info("all damage is repaired", "node", h.r.cfg.ID)
}

// waits tells what the repair stands at: in the log when it changes.
func (h *healer) waits(d raftstore.Damage, err error) {
	var what []string
	for _, e := range []error{d.Stable, d.Checkpoint} {
		if e != nil {
			what = append(what, e.Error())
		}
	}
	if n := len(d.Log); n > 0 {
		what = append(what, fmt.Sprintf("%d damaged runs of entries, the first %d to %d", n, d.Log[0].First, max(d.Log[0].First, d.Log[0].Last)))
	}
	if n := len(d.Offsets); n > 0 {
		what = append(what, fmt.Sprintf("%d damaged offset files", n))
	}
	if len(what) == 0 {
		return
	}
	s := strings.Join(what, "; ")
	if err != nil {
		s += ": " + err.Error()
	}
	h.r.waitsFor.Store(&s)
	if s != h.said {
		h.said = s
		h.r.logger.Warn("repairing", "node", h.r.cfg.ID, "damage", s, "raft", h.r.engine.Load() != nil)
	}
}

// WaitsFor is what this node's repair waits for, "" when nothing is damaged.
func (r *Replica) WaitsFor() string {
	if s := r.waitsFor.Load(); s != nil {
		return *s
	}
	return ""
}

// standBack gives up what a damaged node should not do: leading, if another voter
// can; and all of Raft, while entries are damaged that Raft has yet to read.
//
// It reports false when somebody else is starting or stopping Raft just now.
func (h *healer) standBack(ctx context.Context, d raftstore.Damage, broken bool) bool {
	r := h.r
	e := r.engine.Load()
	if e == nil {
		return true
	}
	if len(d.Log) > 0 && r.View().State == StateLeader {
		ctx, cancel := context.WithTimeout(ctx, max(5*r.cfg.Heartbeat, time.Second))
		err := r.Transfer(ctx, "")
		cancel()
		r.logger.Info("damaged while leading; leadership is handed on first", "node", r.cfg.ID, "err", err)
	}
	applied := e.fsm.applied.Load()
	if d.Blocked || broken || h.broken || slices.ContainsFunc(d.Log, func(l commitlog.Damage) bool { return l.Last > applied && !e.appliedTo(l.Last) }) {
		if !r.life.TryLock() {
			h.broken = h.broken || broken // the next round sees to it
			return false
		}
		h.broken = false
		if r.engine.Load() == e {
			r.logger.Warn("raft is stopped until the log is repaired", "node", r.cfg.ID)
			r.stopEngine()
		}
		r.life.Unlock()
	}
	return true
}

// repair tries each part of the damage with each peer, and returns why something
// is left.
func (h *healer) repair(ctx context.Context, d raftstore.Damage) error {
	r := h.r
	config := r.configuration()
	peers := r.peersOf(config)
	if len(peers) == 0 && (d.Blocked || len(d.Log) > 0) {
		return h.alone(d)
	}
	var errs []error
	if d.Checkpoint != nil {
		errs = append(errs, h.checkpoint(ctx, peers))
		return errors.Join(errs...) // what the log lacks shows after it
	}
	for _, l := range d.Log {
		if err := h.entries(ctx, l, peers); err != nil {
			errs = append(errs, err)
		}
	}
	if d, ok := r.doubtful(); ok {
		errs = append(errs, h.tail(ctx, d, votersOf(config)))
	}
	if d.Stable != nil && len(r.store.Damage().Log) == 0 {
		errs = append(errs, h.stable(ctx, votersOf(config)))
	}
	for _, o := range d.Offsets {
		if err := h.offsets(o); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// doubtful is the first damage, while Raft is stopped for it, to entries that are
// not known to be committed.
func (r *Replica) doubtful() (d commitlog.Damage, ok bool) {
	if r.engine.Load() != nil {
		return d, false
	}
	committed := r.committed()
	for _, l := range r.store.Damage().Log {
		if l.First > committed {
			return l, true
		}
	}
	return d, false
}

// alone is the verdict on damage that nobody else can mend.
func (h *healer) alone(d raftstore.Damage) error {
	err := errors.New("no other node is known to have the data; restore this node's data directory from a backup (logd inspect, logd recover)")
	if d.Blocked && h.r.engine.Load() == nil {
		for _, e := range []error{d.Stable, d.Checkpoint} {
			if e != nil {
				err = fmt.Errorf("%w: %w", e, err)
			}
		}
		if len(d.Log) > 0 {
			err = fmt.Errorf("%s: %w", d.Log[0], err)
		}
		h.r.fail(err)
	}
	return err
}

// each asks peers in turn until one serves; it returns what the others said.
func each(ctx context.Context, peers []string, ask func(ctx context.Context, id string) (bool, error)) error {
	var errs []error
	for _, id := range peers {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		ok, err := ask(ctx, id)
		if ok {
			return nil
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}
