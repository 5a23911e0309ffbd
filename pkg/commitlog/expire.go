package commitlog

import (
	"errors"
	"math"
	"slices"
	"sort"
)

// scanFiles bounds how much of the offset index one call of Expired looks at
// batch by batch.
const scanFiles = 16

// Expiry is how far Expired has come: everything below Below is old, and what
// lies below Scanned need not be looked at again.
type Expiry struct{ Below, Scanned uint64 }

// Expired says up to where batches are older than cutoff, given what an earlier
// call with an earlier cutoff said. Batches are old up to the first one stamped
// in [cutoff, future]. A stamp beyond future is from a clock that was wrong, and
// says nothing: such a batch goes once one that was stamped after it goes.
//
// It does not take long: batches are looked at one by one only where there are
// stamps from the future, and only so many of them in one call.
func (l *Log) Expired(cutoff, future int64, was Expiry) (Expiry, error) {
	now := Expiry{Below: max(was.Below, l.OffsetAt(cutoff))}
	now.Scanned = max(was.Scanned, now.Below)
	var found []batch
	// The first look is at one batch: that it is young is the rule.
	for files, bytes := 0, 1; files < scanFiles; files, bytes = files+1, math.MaxInt {
		var err error
		found, err = l.lookup(now.Scanned, bytes, found[:0])
		var outOf *OutOfRangeError
		switch {
		case errors.As(err, &outOf):
			return now, nil // the end, or the start moved
		case err != nil:
			return now, err
		}
		for i := range found {
			b := &found[i]
			switch {
			case b.Timestamp > future:
			case b.Timestamp >= cutoff:
				return now, nil
			default:
				now.Below = b.next()
			}
			now.Scanned = b.next()
		}
	}
	return now, nil
}

// TimeAt returns the timestamp of the batch that holds off; false when off is
// not readable.
func (l *Log) TimeAt(off uint64) (unixNano int64, ok bool) {
	found, err := l.lookup(off, 1, nil)
	if err != nil || len(found) == 0 {
		return 0, false
	}
	return found[0].Timestamp, true
}

// OffsetWithin returns the lowest readable offset among the newest segments that
// take at most bytes on the disk together, preallocated space included. The
// newest segment is always among them.
func (l *Log) OffsetWithin(bytes int64) uint64 {
	l.mu.RLock()
	segments, sealed, recent, lowest, visible := l.segments, l.sealed, l.recent, l.lowest, l.visible
	l.mu.RUnlock()
	k := len(segments) - 1
	for k > 0 {
		bytes -= segments[k].length()
		if bytes < segments[k-1].length() {
			break
		}
		k--
	}
	if k <= 0 {
		return lowest
	}
	first := segments[k].first
	in := func(b *batch) bool { return b.Index >= first }
	if len(recent) == 0 || in(&recent[0]) {
		// Search the files: the last one that begins before first.
		n := sort.Search(len(sealed), func(i int) bool {
			b, ok := l.firstOf(sealed[i])
			return ok && in(&b)
		})
		if n > 0 {
			if off, ok := l.searchSealed(sealed[n-1], in); ok {
				return max(off, lowest)
			}
		}
		if n < len(sealed) {
			return max(sealed[n].first, lowest)
		}
	}
	if n := sort.Search(len(recent), func(i int) bool { return in(&recent[i]) }); n < len(recent) {
		return max(recent[n].FirstOffset, lowest)
	}
	return max(visible, lowest)
}

// BytesBelow returns what the segments take on the disk that would go if off were the
// lowest offset: those without a record from off on, but for the newest. It is 0 when
// that cannot be told.
func (l *Log) BytesBelow(off uint64) (bytes int64) {
	l.mu.RLock()
	segments, visible := l.segments, l.visible
	l.mu.RUnlock()
	kept := uint64(math.MaxUint64) // the entry that off is in
	if off < visible {
		found, err := l.lookup(off, 1, nil)
		if err != nil {
			return 0
		}
		kept = found[0].Index
	}
	for i := 0; i+1 < len(segments) && segments[i+1].first <= kept; i++ {
		bytes += segments[i].length()
	}
	return bytes
}

// firstOf returns the first record of a sealed file; false when it was closed
// meanwhile or is damaged.
func (l *Log) firstOf(f *offsetFile) (batch, bool) {
	if !f.handle.acquire() {
		return batch{}, false
	}
	defer f.handle.drop()
	b, err := f.at(0)
	return b, err == nil
}

// searchSealed returns the first offset of f's first batch that is in. What
// cannot be read ends the search too early, which is safe: more is kept. false
// means that there is none in f.
func (l *Log) searchSealed(f *offsetFile, in func(*batch) bool) (uint64, bool) {
	if !f.handle.acquire() {
		return 0, true
	}
	defer f.handle.drop()
	n, err := f.search(in)
	if err != nil {
		return f.first, true
	}
	if n == f.count {
		return 0, false
	}
	b, err := f.at(n)
	if err != nil {
		return f.first, true
	}
	return b.FirstOffset, true
}

// going are the figures of what waits for Sweep; mu is held.
func (l *Log) going() (files int, bytes int64) {
	for _, s := range l.gone.segments {
		bytes += s.length()
	}
	for _, f := range l.gone.offsets {
		bytes += f.place(f.count)
	}
	return len(l.gone.segments), bytes
}

// cutGone forgets what waits for Sweep, for whoever releases it; mu is held.
func (l *Log) cutGone() gone {
	g := gone{segments: slices.Clone(l.gone.segments), offsets: slices.Clone(l.gone.offsets)}
	l.gone = gone{}
	return g
}
