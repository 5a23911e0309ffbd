package autopilot

import (
	"context"
	"errors"
	"sync"
)

// ErrRefused is what the error of Config.Stats has in it when the server answered, and
// would not say: it is alive.
var ErrRefused = errors.New("it answers, and refuses")

// silence finds out which servers do not answer either, of those that gossip has seen
// fail or does not know: where gossip alone is blocked, or is late, a node does its part
// all the same, and must not be taken for dead. Questions run beside the rounds, one at a
// time to each server, since one that is gone takes its time not to answer. One that
// refuses to answer is there. One that nobody ever named an address for cannot be asked,
// and is silent: Raft does not reach it either.
type silence struct {
	ask func(ctx context.Context, id string) (Stats, error)

	wg     sync.WaitGroup
	mu     sync.Mutex
	asking map[string]bool // guarded by mu
	silent map[string]bool // did not answer when it was asked last; guarded by mu
}

func newSilence(ask func(ctx context.Context, id string) (Stats, error)) *silence {
	return &silence{ask: ask, asking: make(map[string]bool), silent: make(map[string]bool)}
}

// of tells whether a server, which gossip does not see alive, did not answer the last
// question, and asks it the next. It is not silent before it was asked.
func (s *silence) of(ctx context.Context, id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.asking[id] {
		s.asking[id] = true
		s.wg.Go(func() { // wait waits for it
			_, err := s.ask(ctx, id)
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.asking, id)
			s.silent[id] = err != nil && !errors.Is(err, ErrRefused)
		})
	}
	return s.silent[id]
}

// forget forgets what a server that gossip sees alive did before.
func (s *silence) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.silent, id)
}

// wait waits until no question is open; whoever asked ends its context before.
func (s *silence) wait() { s.wg.Wait() }
