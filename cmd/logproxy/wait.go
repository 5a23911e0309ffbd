package main

import (
	"context"
	"flag"
	"time"

	"github.com/logd-io/logd/internal/cli"
)

// defaultAdmin is admin.address where nothing is said.
const defaultAdmin = "127.0.0.1:8412"

// adminFlag adds -admin. LOGPROXY_ADMIN_ADDRESS is its default, as it is the
// agent's own.
func adminFlag(fs *flag.FlagSet, env cli.Env) *string {
	address := env.Getenv("LOGPROXY_ADMIN_ADDRESS")
	if address == "" {
		address = defaultAdmin
	}
	return fs.String("admin", address, "`host:port` of the proxy's admin server. LOGPROXY_ADMIN_ADDRESS. Default: "+defaultAdmin)
}

func waitCommand() cli.Command {
	return cli.Command{
		Name:     "wait",
		Synopsis: "Wait until the proxy can serve",
		Long: `Ends with 0 as soon as the proxy is ready, and with 1 and the reason when it is
not in time. For start-up probes and for scripts that start a proxy.`,
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			address := adminFlag(fs, env)
			timeout := fs.Duration("timeout", time.Minute, "`duration` to wait at most; 0 asks once. Default: 1m")
			return func(ctx context.Context, _ []string) error {
				a, err := cli.NewAdmin(*address)
				if err != nil {
					return err
				}
				bound, cancel := context.WithTimeout(ctx, *timeout)
				defer cancel()
				return a.WaitReady(bound)
			}
		},
	}
}
