package commitlog

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// Damage is a run of entries that a log has and cannot read: what is between
// First and Last, both included. The rest of the log is served.
//
// What may stand in their place is decided by one of three proofs, which Repair
// takes:
//
//   - Pinned: the frame's own header verifies, so index, term and checksum of
//     the payload are known. Only that payload fits.
//   - After: Raft's Log Matching. Two logs that have an entry of the same index
//     and term are the same up to it. Whoever has the entry After has the very
//     entries that are damaged here.
//   - committed: an entry that anybody knows to be committed is the one.
type Damage struct {
	First, Last uint64
	// Pinned says that the damage is one entry's payload, and Term its term.
	Pinned bool
	Term   uint64
	// Open says that the end of the log is damaged and that entries behind Last
	// may have been stored, too: Last is only what is known for sure. When all
	// up to Last is repaired, First is Last+1, until DropDamagedTail.
	Open bool
	// Before is the entry First-1. After is the entry Last or Last+1, whichever
	// is known.
	Before, After Anchor

	Path   string // the file, or the directory where a file is missing
	Place  int64  // bytes into it
	Reason string
}

// Anchor is an entry whose term is known. Known is false where there is none.
type Anchor struct {
	Index, Term uint64
	Known       bool
}

func (d Damage) String() string {
	return fmt.Sprintf("entries %d to %d, %s at place %d: %s", d.First, d.Last, d.Path, d.Place, d.Reason)
}

// Entries is how many entries the damage is known to have.
func (d Damage) Entries() uint64 { return d.Last + 1 - d.First }

// DamagedError refuses a call that a log cannot take before it is repaired.
type DamagedError struct{ Damage Damage }

func (e *DamagedError) Error() string { return "log is damaged: " + e.Damage.String() }

// ProofError refuses entries as replacements; nothing was changed.
type ProofError struct {
	Damage   Damage
	Unproven bool // they may well fit; otherwise they contradict what is here
	Reason   string
}

func (e *ProofError) Error() string {
	return fmt.Sprintf("entries do not repair the damage to %s: %s", e.Damage, e.Reason)
}

// damage is a Damage with what is needed to mend it. It is immutable.
type damage struct {
	Damage
	seg    *segment    // the frames are, or belong, in its file; nil: in none there is
	header frameHeader // of the one frame, when Pinned
	end    int64       // place of the frame behind the damage; 0: the file ends with it
	clean  bool        // the file ends, whole, where the damage begins
}

// corrupt is what a read inside the damage returns.
func (d *damage) corrupt(index uint64) error {
	return &CorruptError{Path: d.Path, Place: d.Place, Index: index, Reason: d.Reason}
}

// Damage returns what is known to be damaged, rising. The slice is the
// caller's.
func (l *Log) Damage() []Damage {
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := make([]Damage, 0, len(l.damaged))
	for _, d := range l.damaged {
		out = append(out, d.Damage)
	}
	return out
}

// Quarantined says that Open found damage above the newest checkpoint, and
// that it is not repaired yet: entries can be read, but none appended or cut.
func (l *Log) Quarantined() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.quarantined
}

// inDamage returns the damage that index lies in, nil when it is not known to
// lie in any; mu is held.
func (l *Log) inDamage(index uint64) *damage {
	n, _ := slices.BinarySearchFunc(l.damaged, index, func(d *damage, i uint64) int { return cmp.Compare(d.Last, i) })
	if n < len(l.damaged) && l.damaged[n].First <= index {
		return l.damaged[n]
	}
	return nil
}

// refuse returns why no entry may be appended or cut; mu is not held.
func (l *Log) refuse() error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if !l.quarantined {
		return nil
	}
	for _, d := range l.damaged {
		if l.blocks(d) {
			return &DamagedError{Damage: d.Damage}
		}
	}
	return &DamagedError{Damage: Damage{Path: l.dir, Reason: "it is being repaired"}}
}

// blocks says whether d keeps the log in quarantine: it reaches above the
// newest checkpoint, or to the end of the log, behind which nothing can come
// while that is missing.
func (l *Log) blocks(d *damage) bool {
	return d.Open || d.Last > max(l.options.VerifiedTo, l.start.Index) || d.Last >= l.last.index
}

// replaceDamage puts found in the place of all known damage in [first, last],
// and of what of it had reached further, and tells OnDamage, where nothing was
// known before. It does nothing, and reports false, when something was cut or
// mended since shape: found may then be of entries that are others now. mu must
// not be held, nor any other lock.
func (l *Log) replaceDamage(first, last uint64, found []*damage, shape uint64) bool {
	l.mu.Lock()
	if l.shape != shape {
		l.mu.Unlock()
		return false
	}
	var kept, fresh []*damage
	for _, d := range l.damaged {
		if d.Last < first || d.First > last {
			kept = append(kept, d)
		}
	}
	for _, d := range found {
		if d.Last <= l.start.Index {
			continue
		}
		if old := l.inDamage(d.First); old == nil {
			fresh = append(fresh, d)
		}
		kept = append(kept, d)
	}
	slices.SortFunc(kept, func(a, b *damage) int { return cmp.Compare(a.First, b.First) })
	l.setDamage(kept)
	l.mu.Unlock()
	for _, d := range fresh {
		l.tell(d)
	}
	return true
}

// setDamage replaces the list; mu is held.
func (l *Log) setDamage(list []*damage) {
	l.damaged = list
	n := uint64(0)
	for _, d := range list {
		n += d.Entries()
	}
	l.metrics.damaged.Set(float64(n))
}

// forgetDamage drops what no longer belongs to the log: entries at or below
// the start, and those from index from on; mu is held.
func (l *Log) forgetDamage(from uint64) {
	if len(l.damaged) == 0 {
		return
	}
	var kept []*damage
	for _, d := range l.damaged {
		if d.Last <= l.start.Index || d.First >= from {
			continue
		}
		if d.Last >= from {
			c := *d
			c.Last, c.After, c.Open = from-1, Anchor{}, false
			d = &c
		}
		kept = append(kept, d)
	}
	l.setDamage(kept)
}

// tell reports damage; no lock is held.
func (l *Log) tell(d *damage) {
	l.logger.Error("entries are damaged", "first", d.First, "last", d.Last, "file", d.Path, "place", d.Place, "reason", d.Reason)
	if l.options.OnDamage != nil {
		l.options.OnDamage(d.Damage)
	}
}

// isCorrupt tells damage from a disk that does not read.
func isCorrupt(err error) bool {
	var c *CorruptError
	return errors.As(err, &c)
}
