// Package validate is the validate command of both programs, and how an agent that
// was given a bad configuration shows the same problems.
//
// It decides nothing about a configuration itself: the caller's Check does.
package validate

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/internal/cli"
)

// Kind is a program whose configuration is checked.
type Kind struct {
	What     string // "node"
	Long     string
	Examples string
	// Check answers what is wrong with the configuration, everything at once; and with
	// the files it names, if they are to be opened.
	Check func(from config.From, files bool) error
	// Typos are variables that are probably mistyped.
	Typos func(environ []string) []config.Typo
}

// Command is the validate command of k.
func Command(k Kind) cli.Command {
	return cli.Command{
		Name:     "validate",
		Synopsis: "Check a " + k.What + "'s configuration",
		Args:     "<path>...",
		Long:     k.Long,
		Examples: k.Examples,
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			format := cli.FormatFlag(fs)
			noFiles := fs.Bool("no-files", false, "open no file that the configuration names, as where they are not: in CI, or before they are made")
			return func(_ context.Context, args []string) error {
				if len(args) == 0 {
					return cli.Usagef("at least one path is needed")
				}
				err := k.Check(config.From{Paths: args, Environ: env.Environ}, !*noFiles)
				if *format == cli.JSON {
					return writeVerdict(env, k.Typos(env.Environ), err)
				}
				k.WarnOfTypos(env)
				if err != nil {
					return Show(env, err)
				}
				_, err = fmt.Fprintln(env.Stdout, "Configuration is valid!")
				return err
			}
		},
	}
}

// The shapes of -format json.
type (
	verdict struct {
		Valid    bool      `json:"valid"`
		Problems []problem `json:"problems"`
		Warnings []string  `json:"warnings"` // of what is valid all the same
	}
	problem struct {
		File    string `json:"file,omitempty"` // empty: no file says it
		Line    int    `json:"line,omitempty"`
		Setting string `json:"setting,omitempty"` // by HCL path
		Message string `json:"message"`
	}
)

func writeVerdict(env cli.Env, typos []config.Typo, err error) error {
	v := verdict{Valid: err == nil, Problems: []problem{}, Warnings: []string{}}
	for _, typo := range typos {
		v.Warnings = append(v.Warnings, typo.String())
	}
	var wrong *config.Error
	switch {
	case errors.As(err, &wrong):
		for _, p := range wrong.Problems {
			file, line := p.Position()
			message := p.Message
			if file == "" && p.Where != "" {
				message += " (" + p.Where + ")"
			}
			v.Problems = append(v.Problems, problem{file, line, p.Path, message})
		}
	case err != nil:
		v.Problems = append(v.Problems, problem{Message: err.Error()})
	}
	if werr := cli.WriteJSON(env.Stdout, v); werr != nil {
		return errors.Join(err, werr)
	}
	if err != nil {
		return cli.ErrReported
	}
	return nil
}

// WarnOfTypos tells of variables that are probably mistyped.
func (k Kind) WarnOfTypos(env cli.Env) {
	for _, typo := range k.Typos(env.Environ) {
		fmt.Fprintf(env.Stderr, "Warning: %v\n", typo)
	}
}

// diagnosticWidth wraps the explanations of diagnostics.
const diagnosticWidth = 100

// Show shows a configuration's problems with their lines of source.
func Show(env cli.Env, err error) error {
	if rerr := config.Render(env.Stderr, err, diagnosticWidth, env.Terminal); rerr != nil {
		return errors.Join(err, rerr)
	}
	return cli.ErrReported
}
