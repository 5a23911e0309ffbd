package main

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/internal/cli"
)

func validateCommand() cli.Command {
	return cli.Command{
		Name:     "validate",
		Synopsis: "Check a proxy's configuration",
		Args:     "<path>...",
		Long: `Checks files and directories as 'logproxy agent -config' would read them together,
and reports every problem at once. It looks at the files alone, not at the
environment, and opens nothing they name.`,
		Setup: func(_ *flag.FlagSet, env cli.Env) cli.Action {
			return func(_ context.Context, args []string) error {
				if len(args) == 0 {
					return cli.Usagef("at least one path is needed")
				}
				if _, err := config.LoadProxy(config.From{Paths: args}); err != nil {
					return invalid(env, err)
				}
				_, err := fmt.Fprintln(env.Stdout, "Configuration is valid!")
				return err
			}
		},
	}
}

// diagnosticWidth wraps the explanations of diagnostics.
const diagnosticWidth = 100

// invalid shows a configuration's problems with their lines of source.
func invalid(env cli.Env, err error) error {
	if rerr := config.Render(env.Stderr, err, diagnosticWidth, env.Terminal); rerr != nil {
		return errors.Join(err, rerr)
	}
	return cli.ErrReported
}
