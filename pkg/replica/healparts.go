package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/raftstore"
)

// maxUnproved bounds what is held of a peer's entries that are proved only by
// one that comes later. What a leader has in flight is less.
const maxUnproved = 64 << 20

// patience is how many heartbeats a node that lost its term waits for those it
// could do without.
const patience = 20

// errEnough ends a walk over entries.
var errEnough = errors.New("enough")

// entries mends one run of damaged entries from the first peers that can prove
// theirs.
func (h *healer) entries(ctx context.Context, d commitlog.Damage, peers []string) error {
	return each(ctx, peers, func(ctx context.Context, id string) (bool, error) {
		f := &fill{h: h, d: d, anchor: anchorOf(h.r.store.Damage().Log, d)}
		last := max(d.Last, f.anchor.Index)
		if d.Open {
			last = ^uint64(0)
		}
		err := h.r.cfg.Source.Entries(ctx, id, d.First, last, f.take)
		if errors.Is(err, errEnough) {
			err = nil
		}
		if f.n > 0 {
			h.r.logger.Info("entries repaired", "node", h.r.cfg.ID, "from", id, "first", d.First, "entries", f.n)
		}
		d.First += f.n
		if f.gone && h.r.engine.Load() == nil {
			return h.beyond(ctx, id)
		}
		if err == nil {
			err = f.refused
		}
		return d.First > d.Last && !d.Open, err
	})
}

// anchorOf finds the entry behind d whose term is known, across other damage that
// follows it without a gap.
func anchorOf(list []commitlog.Damage, d commitlog.Damage) commitlog.Anchor {
	for _, l := range list {
		if !d.After.Known && l.First == d.Last+1 {
			d = l
		}
	}
	if !d.After.Known {
		return commitlog.Anchor{}
	}
	return d.After
}

// fill puts a peer's entries in the place of one run of damage.
type fill struct {
	h       *healer
	d       commitlog.Damage // as it was
	anchor  commitlog.Anchor // the next entry of ours behind it whose term is known
	run     []commitlog.Entry
	bytes   int
	n       uint64 // entries put in place
	refused error  // why not all were
	gone    bool   // the peer's log begins behind what is asked for
}

// take implements Source.Entries' callback.
func (f *fill) take(x Extract) error {
	if len(x.Entries) == 0 {
		f.gone = x.First > f.d.First+f.n
		f.refused = fmt.Errorf("has no readable entry %d, its log is [%d, %d]", f.d.First+f.n, x.First, x.Last)
		return nil
	}
	commit := x.Commit
	if !f.h.r.rules.prove {
		commit = ^uint64(0) // believe whoever answers
	}
	for i := range x.Entries {
		f.bytes += len(x.Entries[i].Data)
	}
	f.run = append(f.run, x.Entries...)
	end := f.run[len(f.run)-1].Index
	part := f.run
	switch reached := end >= max(f.d.Last, f.anchor.Index); {
	case f.d.Open || !reached:
		part = committedOf(f.run, commit)
	case f.anchor.Known && f.run[f.anchor.Index-f.run[0].Index].Term == f.anchor.Term:
		// Log Matching: this node and that one are the same up to there.
		commit = max(commit, f.anchor.Index)
	}
	if len(part) == 0 {
		switch {
		case f.d.Open:
			return errEnough
		case f.bytes > maxUnproved:
			f.refused = fmt.Errorf("nothing proves its %d bytes of entries from %d on", f.bytes, f.run[0].Index)
			return errEnough
		}
		return nil
	}
	n, err := f.h.put(part, commit)
	f.n += n
	if err != nil {
		f.refused = err
		return errEnough
	}
	f.run = f.run[len(part):]
	f.bytes = 0
	for i := range f.run {
		f.bytes += len(f.run[i].Data)
	}
	return nil
}

// committedOf is the part of a run that its node knows to be committed.
func committedOf(run []commitlog.Entry, commit uint64) []commitlog.Entry {
	n := 0
	for n < len(run) && run[n].Index <= commit {
		n++
	}
	return run[:n]
}

// put hands proven entries to the store. A committed entry that the store finds
// not to be its own shows that its own, and all behind it, never was committed:
// what an old leader wrote and nobody else has. That end is cut off.
func (h *healer) put(part []commitlog.Entry, commit uint64) (n uint64, err error) {
	store := h.r.store
	err = h.r.guard(func() (err error) {
		n, err = store.Repair(part, commit)
		return err
	})
	h.r.metrics.repaired.Add(float64(n))
	var proof *commitlog.ProofError
	if err == nil || !errors.As(err, &proof) {
		return n, err
	}
	for _, e := range committedOf(part, commit) {
		d, ok := damageAt(store.Damage(), e.Index)
		if !ok {
			continue
		}
		one := []commitlog.Entry{e}
		var m uint64
		rerr := h.r.guard(func() (err error) {
			m, err = store.Repair(one, commit)
			return err
		})
		n += m
		switch {
		case rerr == nil:
			continue
		case !errors.As(rerr, &proof) || !d.Before.Known || h.r.engine.Load() != nil:
			return n, rerr
		}
		h.r.logger.Warn("the end of the log was never committed and is cut off", "node", h.r.cfg.ID, "from", e.Index, "why", rerr)
		return n, h.drop(e.Index)
	}
	return n, err
}

// drop cuts off the end of the log from a damaged entry on, which the caller has
// proved never to be committed.
func (h *healer) drop(from uint64) error {
	h.r.metrics.drops.Inc()
	return h.r.guard(func() error { return h.r.store.DropDamagedTail(from) })
}

// damageAt finds the damage that begins at an entry.
func damageAt(d raftstore.Damage, first uint64) (commitlog.Damage, bool) {
	for _, l := range d.Log {
		if l.First == first {
			return l, true
		}
	}
	return commitlog.Damage{}, false
}

// observation is what a voter showed of the entries from one on.
type observation struct {
	Standing
	last  uint64 // of its log
	at    uint64 // the entry asked for
	term  uint64 // of its entry there; 0: it has none
	whole bool   // it has it, or its log ends before
}

// tail cuts off a damaged end of the log that nobody could prove, if the voters
// show that it never was committed, nor can be: see neverCommitted. Otherwise it
// stays, and the node waits.
func (h *healer) tail(ctx context.Context, d commitlog.Damage, known []string) error {
	r := h.r
	own := uint64(0)
	if r.store.Damage().Stable == nil {
		own = r.store.Term()
	}
	var said []witness
	var errs []error
	for _, id := range known {
		if id == r.cfg.ID {
			continue
		}
		o, err := h.observe(ctx, id, d.First)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", id, err))
			continue
		}
		first, ok := h.first[id]
		if !ok {
			first = o
			h.first[id] = o
		}
		w := witness{id: id, Standing: o.Standing}
		w.lacks = o.whole && (o.term == 0 || own != 0 && o.term > own)
		if !w.lacks && first.Running && first.last < d.First {
			// What it had then is all that we can have acknowledged to it, or to
			// whoever led it.
			w.Standing, w.lacks = first.Standing, true
		}
		said = append(said, w)
	}
	if neverCommitted(r.cfg.ID, own, [][]string{known}, said) {
		r.logger.Warn("the damaged end of the log was never committed and is cut off", "node", r.cfg.ID, "from", d.First, "own_term", own)
		return h.drop(d.First)
	}
	lack := 0
	for _, w := range said {
		if w.lacks {
			lack++
		}
	}
	errs = append(errs, fmt.Errorf("entry %d may have been committed: %d of %d other voters say that they lack it", d.First, lack, len(known)-1))
	return errors.Join(errs...)
}

// observe asks a voter how it stands, and then what it has at an entry.
func (h *healer) observe(ctx context.Context, id string, at uint64) (o observation, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if o.Standing, err = h.r.cfg.Source.Standing(ctx, id); err != nil {
		return o, err
	}
	o.at = at
	err = h.r.cfg.Source.Entries(ctx, id, at, at, func(x Extract) error {
		o.last = x.Last
		if len(x.Entries) > 0 {
			o.term, o.whole = x.Entries[0].Term, true
		} else {
			o.whole = x.Last < at
		}
		return nil
	})
	return o, err
}

// stable gives this node a term again, in which it certainly has not voted: see
// safeTerm.
func (h *healer) stable(ctx context.Context, known []string) error {
	r := h.r
	var said []witness
	var errs []error
	for _, id := range known {
		if id == r.cfg.ID {
			continue
		}
		ask, cancel := context.WithTimeout(ctx, answerTimeout)
		st, err := r.cfg.Source.Standing(ask, id)
		cancel()
		if err == nil && st.Term == 0 {
			err = errors.New("does not know its term")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", id, err))
			continue
		}
		said = append(said, witness{id: id, Standing: st})
	}
	term, ok := safeTerm(r.cfg.ID, r.store.Damage().TermAtLeast, [][]string{known}, said)
	if !ok {
		return errors.Join(append(errs, fmt.Errorf("%d other voters told their term, too few", len(said)))...)
	}
	if len(said) < len(known)-1 && time.Since(h.since) < patience*r.cfg.Heartbeat {
		return errors.Join(errs...) // with every one of them nothing is disturbed
	}
	r.logger.Warn("term and vote are lost; a new term is taken that no vote was given in", "node", r.cfg.ID, "term", term, "told_by", len(said))
	return r.guard(func() error { return r.store.RepairStable(term) })
}

// checkpoint puts a peer's checkpoint in the place of those that cannot be read.
// Where no peer has one that old, one from beyond our log replaces it all, as it
// would on a node that fell behind.
func (h *healer) checkpoint(ctx context.Context, peers []string) error {
	r := h.r
	log := r.store.Log()
	return each(ctx, peers, func(ctx context.Context, id string) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, 2*answerTimeout)
		defer cancel()
		for _, max := range []uint64{log.Last(), log.Start().Index} {
			c, err := r.cfg.Source.Checkpoint(ctx, id, max)
			if err != nil {
				return false, err
			}
			if c.Index == 0 || c.Index < log.Start().Index {
				continue
			}
			in, err := c.installed()
			if err == nil {
				err = r.guard(func() error { return r.store.PutCheckpoint(in) })
			}
			if err == nil {
				r.logger.Info("checkpoint repaired", "node", r.cfg.ID, "from", id, "index", c.Index)
				r.metrics.checkpointRepairs.Inc()
				return true, nil
			}
			if max == log.Start().Index {
				return false, err
			}
		}
		return h.beyond(ctx, id)
	})
}

// beyond replaces everything by a peer's checkpoint that covers it all.
func (h *healer) beyond(ctx context.Context, id string) (bool, error) {
	r := h.r
	c, err := r.cfg.Source.Checkpoint(ctx, id, ^uint64(0))
	if err != nil {
		return false, err
	}
	d := r.store.Damage()
	last := r.store.Log().Last()
	open := len(d.Log) > 0 && d.Log[len(d.Log)-1].Open
	if c.Index == 0 || c.Index < last || open && (d.Stable != nil || c.Term <= r.store.Term()) {
		return false, fmt.Errorf("has no checkpoint between entries %d and %d, and none beyond", r.store.Log().Start().Index, last)
	}
	in, err := c.installed()
	if err != nil {
		return false, err
	}
	if err := r.guard(func() error { return r.store.Install(in) }); err != nil {
		return false, err
	}
	r.metrics.installs.Inc()
	r.logger.Info("checkpoint installed", "node", r.cfg.ID, "from", id, "index", in.Index, "offset", in.Next)
	return true, nil
}
