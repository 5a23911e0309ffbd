package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/logd-io/logd/test/harness"
)

// trouble takes one node after the other away and gives it back, each only when all
// are well: leader and follower in turn, killed and drained.
func (s *soak) trouble(ctx, load context.Context) error {
	rng := rand.New(rand.NewPCG(s.seed, 1))
	for round := 0; ; round++ {
		pause := time.NewTimer(time.Duration(3+rng.IntN(8)) * time.Second)
		select {
		case <-pause.C:
		case <-load.Done():
			pause.Stop()
			return nil
		}
		leader, err := s.c.Leader(ctx)
		if err != nil {
			return err
		}
		victim, what := leader, "leader"
		if round%4 >= 2 {
			what = "follower"
			for _, n := range s.c.Nodes {
				if n != leader {
					victim = n
				}
			}
		}
		if round%2 == 0 {
			err, what = victim.Kill(), "killed the "+what
		} else {
			stopping, cancel := context.WithTimeout(ctx, time.Minute)
			err, what = victim.Stop(stopping), "drained the "+what
			cancel()
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", what, victim.Name, err)
		}
		s.say("%s, %s", what, victim.Name)
		s.counts.troubles.Add(1)
		if _, err := s.c.Leader(ctx); err != nil {
			return err
		}
		if err := s.back(ctx, victim); err != nil {
			return err
		}
	}
}

func (s *soak) back(ctx context.Context, n *harness.Node) error {
	if err := n.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, fmt.Errorf("%s was away for a minute", n.Name))
	defer cancel()
	return s.c.NodeReady(ctx, n)
}
