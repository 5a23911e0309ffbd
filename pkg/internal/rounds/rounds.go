// Package rounds lets calls share one piece of work, such as asking a majority
// who leads.
//
// Invariant: a call gets the answer of a round that began after the call did. It
// joins the next round and never the one under way, whose answer may be older than
// what the caller already knows. So at most two rounds concern any number of
// concurrent calls.
//
// It retries nothing and remembers no answer.
package rounds

import (
	"context"
	"errors"
	"sync"
)

// ErrClosed answers calls after Close, and those it ends.
var ErrClosed = errors.New("closed")

var errLeft = errors.New("nobody waits for the answer any more")

// Group is rounds of one kind, one at a time. A goroutine runs them while there
// are calls; Close waits for it.
type Group[T any] struct {
	run  func(ctx context.Context, calls int) (T, error)
	life context.Context //nolint:containedctx // ends with Close
	end  context.CancelCauseFunc
	wg   sync.WaitGroup

	mu     sync.Mutex
	next   *round[T] // gathers calls and has not begun; nil: there are none; guarded by mu
	busy   bool      // the goroutine runs; always so while next is set; guarded by mu
	closed bool      // guarded by mu; once true, nothing is started
}

type round[T any] struct {
	ctx    context.Context //nolint:containedctx // ends when nobody waits any more
	cancel context.CancelCauseFunc
	calls  int           // that still wait; guarded by Group.mu
	done   chan struct{} // closed once answer and err are final
	answer T
	err    error
}

// New makes a Group. run does a round for that many calls; its context ends when
// all of them have given up, or with Close.
func New[T any](run func(ctx context.Context, calls int) (T, error)) *Group[T] {
	g := &Group[T]{run: run}
	g.life, g.end = context.WithCancelCause(context.Background())
	return g
}

// Do waits for the answer of a round that begins from now on, or for ctx to end.
func (g *Group[T]) Do(ctx context.Context) (answer T, err error) {
	r, err := g.join()
	if err != nil {
		return answer, err
	}
	select {
	case <-r.done:
		return r.answer, r.err
	case <-ctx.Done():
		g.leave(r)
		return answer, context.Cause(ctx)
	}
}

func (g *Group[T]) join() (*round[T], error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, ErrClosed
	}
	if g.next == nil {
		g.next = &round[T]{done: make(chan struct{})}
		g.next.ctx, g.next.cancel = context.WithCancelCause(g.life)
	}
	if !g.busy {
		g.busy = true
		g.wg.Go(g.loop)
	}
	g.next.calls++
	return g.next, nil
}

// leave takes a call out of its round; the last one ends it.
func (g *Group[T]) leave(r *round[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.calls--; r.calls > 0 {
		return
	}
	r.cancel(errLeft)
	if g.next == r {
		g.next = nil // whoever comes now has a round of its own
	}
}

// loop runs rounds until nobody has asked for one.
func (g *Group[T]) loop() {
	for {
		g.mu.Lock()
		r := g.next
		g.next = nil // it begins: nobody joins any more
		if r == nil {
			g.busy = false
			g.mu.Unlock()
			return
		}
		calls := r.calls
		g.mu.Unlock()
		if r.err = context.Cause(r.ctx); r.err == nil {
			r.answer, r.err = g.run(r.ctx, calls)
		}
		r.cancel(nil)
		close(r.done)
	}
}

// Close ends the round under way and those that wait, and returns when none runs.
// Calling it again is harmless.
func (g *Group[T]) Close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.end(ErrClosed)
	g.wg.Wait()
}
