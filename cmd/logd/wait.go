package main

import (
	"context"
	"flag"
	"time"

	"github.com/logd-io/logd/internal/cli"
)

// adminFlags adds -admin, and what TLS takes. LOGD_ADMIN_ADDR is its default, as
// LOGD_ADDR is that of -address.
func adminFlags(fs *flag.FlagSet, env cli.Env) *cli.AdminConnect {
	return cli.AdminFlags(fs, env, "node", "LOGD_ADMIN_ADDR", "127.0.0.1:8402")
}

func waitCommand() cli.Command {
	return cli.Command{
		Name:     "wait",
		Synopsis: "Wait until the node on this machine can serve",
		Long: `Ends with 0 as soon as the node is ready, and with 1 and the reason when it is not
in time. For health checks, and between the restarts of one node and the next.`,
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
