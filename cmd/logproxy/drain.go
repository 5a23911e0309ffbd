package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/logd-io/logd/internal/cli"
)

func drainCommand() cli.Command {
	return cli.Command{
		Name:     "drain",
		Synopsis: "Let the proxy finish what it has, and end",
		Long: `What SIGTERM does, for those who cannot send one: a job beside the proxy that is
done, or another container of its pod. When the proxy's drain_delay is over new calls
are refused, calls that are open are finished, streams have the proxy's drain_timeout,
and then the process ends with 0. It cannot be taken back. The command ends with 0 when
nothing answers on the admin port any more, and with 1 when the proxy is not there or
has not ended in time; it drains on then.

The admin server listens to those on its own machine or, where it speaks TLS, to
holders of a certificate of role admin. What starts the proxy may start it again: a
native sidecar of Kubernetes is, until its pod ends.`,
		Examples: `drain
drain -timeout 0`,
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			admin := adminFlags(fs, env)
			format := cli.FormatFlag(fs)
			timeout := fs.Duration("timeout", 2*time.Minute, "`duration` to wait for the end; 0: do not wait. Default: 2m")
			return func(ctx context.Context, _ []string) error {
				a, err := admin.Open()
				if err != nil {
					return err
				}
				return drain(ctx, env, a, *timeout, *format)
			}
		},
	}
}

// drained says how far the proxy was: draining, stopped.
type drained struct {
	State string `json:"state"`
}

func drain(ctx context.Context, env cli.Env, a *cli.Admin, timeout time.Duration, format cli.Format) error {
	if err := a.Drain(ctx); err != nil {
		return err
	}
	if timeout == 0 {
		return format.Answer(env.Stdout, drained{"draining"}, "The proxy drains.\n")
	}
	began := time.Now()
	p := cli.ShowProgress(env, func() string {
		return fmt.Sprintf("The proxy drains, for %v.", time.Since(began).Round(time.Second))
	})
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("it still drains after %v; logproxy status shows what is open", timeout))
	defer cancel()
	err := a.WaitEnded(ctx)
	p.Stop()
	if err != nil {
		return err
	}
	return format.Answer(env.Stdout, drained{"stopped"}, "The proxy has stopped.\n")
}
