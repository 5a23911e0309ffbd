package faultfs

import (
	"slices"
	"sync"
	"sync/atomic"
)

// A Predicate says whether a rule applies to an operation. Predicates compose;
// those that count see every operation that reaches them, once.
type Predicate func(Op) bool

// An Action decides what becomes of an operation. n ≥ 0 makes a write stop
// after n bytes, n < 0 with a nil error lets it happen.
type Action func(Op) (n int, err error)

// Rule is an action and when to take it.
type Rule struct {
	when Predicate
	then Action
}

// When makes a rule.
func When(p Predicate, then Action) Rule { return Rule{p, then} }

// Is matches operations of these kinds.
func Is(kinds ...Kind) Predicate {
	return func(op Op) bool { return slices.Contains(kinds, op.Kind) }
}

// Name matches operations on files whose base name matches the path.Match
// pattern.
func Name(pattern string) Predicate {
	return func(op Op) bool { return match(pattern, op.Path) }
}

// All matches when each of ps does. Those behind the first that does not are
// not asked: All(Is(Sync), Nth(3)) is the third sync.
func All(ps ...Predicate) Predicate {
	return func(op Op) bool {
		for _, p := range ps {
			if !p(op) {
				return false
			}
		}
		return true
	}
}

// Any matches when one of ps does.
func Any(ps ...Predicate) Predicate {
	return func(op Op) bool { return slices.ContainsFunc(ps, func(p Predicate) bool { return p(op) }) }
}

// Not matches when p does not.
func Not(p Predicate) Predicate { return func(op Op) bool { return !p(op) } }

// Nth matches the nth operation that reaches it, counted from 1.
func Nth(n int64) Predicate {
	var seen atomic.Int64
	return func(Op) bool { return seen.Add(1) == n }
}

// From matches the nth operation that reaches it and all after it.
func From(n int64) Predicate {
	var seen atomic.Int64
	return func(Op) bool { return seen.Add(1) >= n }
}

// Switch is a predicate that matches while it is on. Its zero value is off.
type Switch struct{ on atomic.Bool }

// Set turns it on or off.
func (s *Switch) Set(on bool) { s.on.Store(on) }

// On is the predicate.
func (s *Switch) On(Op) bool { return s.on.Load() }

// Fail makes the operation fail: with syscall.ENOSPC, syscall.EIO, ….
func Fail(err error) Action { return func(Op) (int, error) { return 0, err } }

// Short makes a write stop after n bytes, with err, which may be nil.
func Short(n int, err error) Action { return func(Op) (int, error) { return n, err } }

// Hang makes the operation wait until Release, then happen, or fail with the
// error that Release was given.
type Hang struct {
	once    sync.Once
	release chan struct{} // closed by Release
	entered chan struct{} // one for each operation that hangs, as far as there is room
	err     error         // set before release is closed
}

// NewHang returns a Hang that is not released.
func NewHang() *Hang {
	// Room for one: who waits for a hang waits for the first.
	return &Hang{release: make(chan struct{}), entered: make(chan struct{}, 1)}
}

// Act is the action.
func (h *Hang) Act(Op) (int, error) {
	select {
	case h.entered <- struct{}{}:
	default:
	}
	<-h.release
	if h.err != nil {
		return 0, h.err
	}
	return -1, nil
}

// Entered is sent to when an operation hangs.
func (h *Hang) Entered() <-chan struct{} { return h.entered }

// Release lets every operation that hangs, and any later one, go on.
func (h *Hang) Release(err error) {
	h.once.Do(func() {
		h.err = err
		close(h.release)
	})
}
