package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Process is what an agent command opened and now runs.
type Process interface {
	Run(ctx context.Context) error // until ctx ends, and then drains
	Close() error
}

// Reloader is a Process that can read its certificates, and what else may change
// while it runs, again. Reload returns at once; what came of it is logged.
type Reloader interface{ Reload() }

// Serve prints the facts, runs the process until it ends, and closes it.
// SIGHUP makes a Reloader reload.
func Serve(ctx context.Context, env Env, title string, facts []Fact, p Process) error {
	defer onHangup(env, p)()
	if err := WriteFacts(env.Stdout, title, facts); err != nil {
		return errors.Join(err, p.Close())
	}
	// Once, and before Serve ends, however fast the process is gone.
	draining := sync.OnceFunc(func() {
		fmt.Fprintln(env.Stderr, "==> Draining; a second signal stops at once")
	})
	stop := context.AfterFunc(ctx, draining)
	defer stop()
	err := p.Run(ctx)
	if ctx.Err() != nil {
		draining()
	}
	return errors.Join(err, p.Close())
}

// onHangup makes p reload on SIGHUP, which must not kill it either way. The
// returned function ends that.
func onHangup(env Env, p Process) func() {
	hangups := make(chan os.Signal, 1) // 1: a second one that comes at once says nothing new
	signal.Notify(hangups, syscall.SIGHUP)
	done := make(chan struct{})
	go func() { // ends with the channel, and is waited for
		defer close(done)
		for range hangups {
			r, ok := p.(Reloader)
			if !ok {
				fmt.Fprintln(env.Stderr, "==> SIGHUP: nothing can be changed while running")
				continue
			}
			fmt.Fprintln(env.Stderr, "==> SIGHUP: reading certificates, and the acl, again; a changed configuration needs a restart")
			r.Reload()
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(hangups)
		<-done
	}
}
