package cli

import (
	"context"
	"os/signal"
	"syscall"
)

// Signals returns a context that the first SIGINT or SIGTERM ends, so that the
// process drains. From then on signals have their default effect again: a second
// one ends the process at once. The returned function releases it all.
func Signals(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(parent, syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
