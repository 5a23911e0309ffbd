package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
)

// reloadShown is what reload answers with -format json.
type reloadShown struct {
	Reloaded bool     `json:"reloaded"`
	Changed  []string `json:"changed"`         // settings, by HCL path
	Error    string   `json:"error,omitempty"` // why nothing was changed
}

// ReloadCommand has a process read its configuration again, of which adminFlags give the
// admin server. takes says what it takes: "log_level".
func ReloadCommand(what, takes string, adminFlags func(*flag.FlagSet, Env) *AdminConnect) Command {
	return Command{
		Name:     "reload",
		Synopsis: "Have the " + what + " read its configuration again",
		Long: `What SIGHUP does, with an answer: the ` + what + ` reads its configuration again, as it did at
its start, and takes ` + takes + `: all of it or, when
something does not load or another setting has changed, nothing. It shows which
settings have changed, or why none has, and then ends with 1.

The admin server listens to those on its own machine or, where it speaks TLS, to
holders of a certificate of role admin.`,
		Examples: "reload\nreload -format json",
		Setup: func(fs *flag.FlagSet, env Env) Action {
			admin := adminFlags(fs, env)
			format := FormatFlag(fs)
			return func(ctx context.Context, _ []string) error {
				a, err := admin.Open()
				if err != nil {
					return err
				}
				changed, err := a.Reload(ctx)
				var unchanged *UnchangedError
				if errors.As(err, &unchanged) && *format == JSON {
					return errors.Join(WriteJSON(env.Stdout, reloadShown{Changed: []string{}, Error: unchanged.Why}), ErrReported)
				}
				if err != nil {
					return err
				}
				text := "Reloaded; no setting has changed.\n"
				if len(changed) > 0 {
					text = fmt.Sprintf("Reloaded; changed: %s.\n", strings.Join(changed, ", "))
				}
				return format.Answer(env.Stdout, reloadShown{Reloaded: true, Changed: changed}, text)
			}
		},
	}
}
