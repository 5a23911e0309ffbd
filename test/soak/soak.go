package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/logd-io/logd/test/harness"
)

// What the proxy may keep of all that it has met, when that has gone.
const (
	goroutinesKept = 30
	filesKept      = 10
	goneWithin     = 3 * time.Minute
)

// memoryKept is how much of the memory that the load took may not have gone back to
// the system. The runtime gives it back slowly.
const memoryKept = 96 << 20

// progressEvery is how often a line is written.
const progressEvery = 10 * time.Second

// errVerdict says that the cluster did not do as it must.
var errVerdict = errors.New("failed")

type soak struct {
	bin, dir  string
	lasts     time.Duration
	heartbeat time.Duration
	hold      time.Duration
	kept      float64 // memoryKept, or more after a load so short that nothing was given back
	rate      int
	seed      uint64
	out       io.Writer

	began time.Time
	c     *harness.Cluster
	proxy *harness.Proxy
	ledger

	counts counts
}

func (s *soak) say(format string, args ...any) {
	fmt.Fprintf(s.out, "%6.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

func (s *soak) run(ctx context.Context) (err error) {
	s.began = time.Now()
	if s.dir == "" {
		if s.dir, err = os.MkdirTemp("", "logd-soak-"); err != nil {
			return err
		}
		defer func() {
			if err != nil {
				s.say("data and logs are kept in %s", s.dir)
				return
			}
			err = os.RemoveAll(s.dir)
		}()
	}
	var leader *harness.Node
	s.c, s.proxy, leader, err = harness.Up(ctx, harness.Options{
		Bin: s.bin, Dir: s.dir, Heartbeat: s.heartbeat,
		ProxyConfig: fmt.Sprintf("produce { hold_timeout = %q }\n", s.hold.String()),
	})
	if s.c != nil {
		defer func() { err = errors.Join(err, s.c.Close()) }()
	}
	if err != nil {
		return err
	}
	s.say("three nodes and a proxy, %s leads; seed %d", leader.Name, s.seed)

	// What is made once and stays, such as connections and pools, is not counted.
	if err := s.phase(ctx, 2*time.Second, false); err != nil {
		return err
	}
	start, err := s.settled(ctx)
	if err != nil {
		return err
	}
	s.say("at the start the proxy has %s", start)

	if err := s.phase(ctx, s.lasts, true); err != nil {
		return err
	}
	s.say("the load has ended; %s", s.counts.String())
	return s.verdict(ctx, start)
}

// phase runs all clients for d, with trouble or without, and waits for each of them.
func (s *soak) phase(ctx context.Context, d time.Duration, trouble bool) error {
	// Clients stop at the end of load, calls under way at that of ctx: the last ones finish.
	load, stop := context.WithTimeout(ctx, d)
	defer stop()
	var wg sync.WaitGroup
	failed := make(chan error, 1) // the first; nobody waits for room
	do := func(what string, run func(ctx, load context.Context) error) {
		wg.Go(func() {
			if err := run(ctx, load); err != nil {
				select {
				case failed <- fmt.Errorf("%s: %w", what, err):
					stop()
				default:
				}
			}
		})
	}
	s.clients(do)
	if trouble {
		s.hostiles(do)
		do("trouble", s.trouble)
	}
	do("progress", s.progress)
	wg.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return ctx.Err()
	}
}

func (s *soak) progress(ctx, load context.Context) error {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-load.Done():
			return nil
		case <-tick.C:
		}
		v, err := s.vitals(ctx)
		if err != nil {
			return err
		}
		s.say("%s; the proxy has %s", s.counts.String(), v)
	}
}

// settled waits until the proxy's figures stand still.
func (s *soak) settled(ctx context.Context) (v vitals, err error) {
	still := 0
	err = every(ctx, time.Second, func() (bool, error) {
		now, err := s.vitals(ctx)
		if err != nil {
			return false, err
		}
		if now.goroutines == v.goroutines && now.files == v.files {
			still++
		} else {
			still = 0
		}
		v = now
		return still >= 3, nil
	})
	return v, err
}

// every calls f at once and then every d, until it says that it is done.
func every(ctx context.Context, d time.Duration, f func() (done bool, err error)) error {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		if done, err := f(); done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
