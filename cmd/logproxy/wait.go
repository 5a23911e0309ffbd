package main

import (
	"context"
	"flag"
	"time"

	"github.com/logd-io/logd/internal/cli"
)

// defaultAdmin is admin.address where nothing is said.
const defaultAdmin = "127.0.0.1:8412"

// adminFlags adds -admin, and what TLS takes. LOGPROXY_ADMIN_ADDRESS is its default, as
// it is the agent's own.
func adminFlags(fs *flag.FlagSet, env cli.Env) *cli.AdminConnect {
	return cli.AdminFlags(fs, env, "proxy", "LOGPROXY_ADMIN_ADDRESS", defaultAdmin)
}

func waitCommand() cli.Command {
	return cli.Command{
		Name:     "wait",
		Synopsis: "Wait until the proxy can serve",
		Long: `Ends with 0 as soon as the proxy is ready, and with 1 and the reason when it is
not in time. For start-up probes and for scripts that start a proxy.`,
		Examples: "wait -timeout 1m",
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			admin := adminFlags(fs, env)
			timeout := fs.Duration("timeout", time.Minute, "`duration` to wait at most; 0 asks once. Default: 1m")
			return func(ctx context.Context, _ []string) error {
				a, err := admin.Open()
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
