package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// MonitorCommand shows the log of a process, of which adminFlags give the admin server.
func MonitorCommand(what string, adminFlags func(*flag.FlagSet, Env) *AdminConnect) Command {
	return Command{
		Name:     "monitor",
		Synopsis: "Show the log of a running " + what + " at any level",
		Long: `Shows the log as it is written, from now on, until you stop it or the process
ends. The level is yours alone: that of the process's own log stays what it is.
What comes faster than it can be shown is left out, and a line says how much.`,
		Examples: "monitor -log-level debug\nmonitor -log-level trace -name replica -log-format json",
		Setup: func(fs *flag.FlagSet, env Env) Action {
			admin := adminFlags(fs, env)
			q := url.Values{}
			set := func(flag, key, usage string) {
				fs.Func(flag, usage, func(s string) error { q.Set(key, s); return nil })
			}
			set("log-level", "log_level", "`trace|debug|info|warn|error`. Default: info")
			set("log-format", "format", "`text|json`. Default: as the process's own")
			set("name", "name", "only of the logger with that `name`, and those below it: replica, or replica.raft")
			return func(ctx context.Context, _ []string) error {
				a, err := admin.Open()
				if err != nil {
					return err
				}
				return a.Monitor(ctx, q, env.Stdout)
			}
		},
	}
}

// Monitor copies the process's log to w until ctx or the process ends. query is that
// of /api/monitor.
func (a *Admin) Monitor(ctx context.Context, query url.Values, w io.Writer) error {
	endless := a.client
	endless.Timeout = 0
	res, err := a.ask(ctx, &endless, http.MethodGet, "/api/monitor?"+query.Encode())
	if err != nil {
		return err
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusBadRequest, http.StatusServiceUnavailable:
		body, _ := io.ReadAll(io.LimitReader(res.Body, maxAdminBody)) // what came says enough
		return errors.New(strings.TrimSpace(string(body)))
	default:
		return a.unexpected(res.StatusCode)
	}
	if _, err := io.Copy(w, &squeezed{r: res.Body}); err != nil && ctx.Err() == nil {
		return fmt.Errorf("the log ended early: %w", err)
	}
	return nil
}

// squeezed leaves out empty lines: they only show that both ends are there.
type squeezed struct {
	r    io.Reader
	open bool // in a line
}

func (s *squeezed) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	kept := p[:0]
	for _, c := range p[:n] {
		if c != '\n' || s.open {
			kept = append(kept, c)
		}
		s.open = c != '\n'
	}
	return len(kept), err
}
