package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/pkg/telemetry"
)

func versionCommand(build telemetry.Build) cli.Command {
	return cli.Command{
		Name:     "version",
		Synopsis: "Print the version",
		Examples: "version",
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			format := cli.FormatFlag(fs)
			return func(context.Context, []string) error {
				if *format == cli.JSON {
					return cli.WriteJSON(env.Stdout, build)
				}
				_, err := fmt.Fprintln(env.Stdout, "logproxy", build)
				return err
			}
		},
	}
}
