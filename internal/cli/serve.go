package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// Process is what an agent command opened and now runs.
type Process interface {
	Run(ctx context.Context) error // until ctx ends, and then drains
	Close() error
}

// Standing is a Process that knows whether it can serve.
type Standing interface {
	NotReady() []string // why it cannot; empty: it can. It does not block
	// Follow calls f at once and whenever NotReady may answer otherwise, until ctx
	// ends.
	Follow(ctx context.Context, f func())
}

// Service is a process and what is said of it.
type Service struct {
	Title string
	Facts []Fact
	Process
	// Reload takes what may change of the configuration and the files it names, as
	// they are now, or changes nothing and says why; on SIGHUP. nil: nothing may.
	Reload       func() error
	DrainTimeout time.Duration // as configured
	// Useful makes the service count as started only when it can serve, to those
	// that were told to start after it. Without it listening is enough.
	Useful bool
}

// Serve prints the facts, runs the process until it ends, and closes it.
// SIGHUP makes it reload. A service manager that listens is told about
// starts, reloads, stops, and how a Standing process stands.
func Serve(ctx context.Context, env Env, s Service) error {
	n := newNotifier(env)
	defer onHangup(env, n, s.Reload)()
	if err := WriteFacts(env.Stdout, s.Title, s.Facts); err != nil {
		return errors.Join(err, s.Close())
	}
	unfollow := follow(n, s)
	defer unfollow()
	defer n.watchdog(watchdogEvery(env), func() {
		if p, ok := s.Process.(Standing); ok {
			p.NotReady()
		}
	})()
	// Once, and before Serve ends, however fast the process is gone.
	draining := sync.OnceFunc(func() {
		fmt.Fprintln(env.Stderr, "==> Draining; a second signal stops at once")
		n.stops(s.DrainTimeout, nil)
	})
	stop := context.AfterFunc(ctx, draining)
	defer stop()
	err := s.Run(ctx)
	if ctx.Err() != nil {
		draining()
	} else {
		n.stops(s.DrainTimeout, err)
	}
	return errors.Join(err, s.Close())
}

// follow keeps the service manager informed until the returned function is called.
func follow(n *notifier, s Service) (stop func()) {
	p, ok := s.Process.(Standing)
	if !ok {
		n.stands(true, nil)
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ended and waited for by stop
		defer close(done)
		p.Follow(ctx, func() {
			reasons := p.NotReady()
			n.stands(!s.Useful || len(reasons) == 0, reasons)
		})
	}()
	return func() {
		cancel()
		<-done
	}
}

// onHangup calls reload on SIGHUP, which must not kill the process either way. The
// returned function ends that.
func onHangup(env Env, n *notifier, reload func() error) func() {
	hangups := make(chan os.Signal, 1) // 1: a second one that comes at once says nothing new
	signal.Notify(hangups, syscall.SIGHUP)
	done := make(chan struct{})
	go func() { // ends with the channel, and is waited for
		defer close(done)
		for range hangups {
			n.reload(func() {
				if reload == nil {
					fmt.Fprintln(env.Stderr, "==> SIGHUP: nothing can be changed while running")
					return
				}
				fmt.Fprintln(env.Stderr, "==> SIGHUP: reading the configuration and the files it names again")
				if err := reload(); err != nil {
					fmt.Fprintf(env.Stderr, "==> Nothing was changed: %v\n", err)
				}
			})
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(hangups)
		<-done
	}
}
