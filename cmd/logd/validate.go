package main

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/pkg/authz"
)

func validateCommand() cli.Command {
	return cli.Command{
		Name:     "validate",
		Synopsis: "Check a node's configuration",
		Args:     "<path>...",
		Long: `Checks files and directories as 'logd agent -config' would read them together,
and reports every problem at once. It looks at the files alone, not at the
environment, and of what they name it reads the acl's model and policy, which have
to load.`,
		Setup: func(_ *flag.FlagSet, env cli.Env) cli.Action {
			return func(_ context.Context, args []string) error {
				if len(args) == 0 {
					return cli.Usagef("at least one path is needed")
				}
				conf, err := config.LoadNode(config.From{Paths: args})
				if err != nil {
					return invalid(env, err)
				}
				if conf.ACL.Policy != "" {
					if err := authz.Verify(authz.Files{Model: conf.ACL.Model, Policy: conf.ACL.Policy}); err != nil {
						return fmt.Errorf("acl: %w", err)
					}
				}
				_, err = fmt.Fprintln(env.Stdout, "Configuration is valid!")
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
