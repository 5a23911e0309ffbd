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

// Serve prints the facts, runs the process until it ends, and closes it.
func Serve(ctx context.Context, env Env, title string, facts []Fact, p Process) error {
	defer ignoreHangup(env)()
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

// ignoreHangup keeps SIGHUP, by which others are told to reload, from killing a
// process that has nothing to reload. The returned function ends that.
func ignoreHangup(env Env) func() {
	hangups := make(chan os.Signal, 1) // 1: a second one that comes at once says nothing new
	signal.Notify(hangups, syscall.SIGHUP)
	done := make(chan struct{})
	go func() { // ends with the channel, and is waited for
		defer close(done)
		for range hangups {
			fmt.Fprintln(env.Stderr, "==> SIGHUP: no setting can be changed while running; restart to apply the configuration")
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(hangups)
		<-done
	}
}
