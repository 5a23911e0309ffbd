package cli

import (
	"context"
	"errors"
	"fmt"
)

// Process is what an agent command opened and now runs.
type Process interface {
	Run(ctx context.Context) error // until ctx ends, and then drains
	Close() error
}

// Serve prints the facts, runs the process until it ends, and closes it.
func Serve(ctx context.Context, env Env, title string, facts []Fact, p Process) error {
	if err := WriteFacts(env.Stdout, title, facts); err != nil {
		return errors.Join(err, p.Close())
	}
	stop := context.AfterFunc(ctx, func() {
		fmt.Fprintln(env.Stderr, "==> Draining; a second signal stops at once")
	})
	defer stop()
	return errors.Join(p.Run(ctx), p.Close())
}
