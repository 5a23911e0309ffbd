package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/pkg/proxy"
)

func statusCommand() cli.Command {
	return cli.Command{
		Name:     "status",
		Synopsis: "Show how the proxy sees the cluster",
		Long: `Asks the proxy's admin server, which tells only those on its own machine or, where
it speaks TLS, holders of a certificate of role admin. ROLE is what a node is used
for: produces go to the leader, reads to followers. With -watch what happens
follows, a line each: leaders that change, produces that were held, nodes that are
ejected, retries, refusals, certificates. In JSON a line is an object with a status,
once a second, or with an event.`,
		Examples: `status
status -watch
status -format json`,
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			admin := adminFlags(fs, env)
			format := cli.FormatFlag(fs)
			follow := fs.Bool("watch", false, "go on with what happens, until you stop it or the proxy ends")
			return func(ctx context.Context, _ []string) error {
				a, err := admin.Open()
				if err != nil {
					return err
				}
				if *follow {
					return watch(ctx, env, a, *format == cli.JSON)
				}
				var st proxy.Status
				if err := a.Status(ctx, &st); err != nil {
					return err
				}
				if *format == cli.JSON {
					return cli.WriteJSON(env.Stdout, st)
				}
				return show(env, st)
			}
		},
	}
}

// watch shows the status, and then what happens.
func watch(ctx context.Context, env cli.Env, a *cli.Admin, asJSON bool) error {
	shown := false
	lines := json.NewEncoder(env.Stdout)
	err := a.Events(ctx, func(kind string, data []byte) error {
		if asJSON {
			return lines.Encode(map[string]json.RawMessage{kind: data})
		}
		switch kind {
		case "status":
			if shown {
				return nil
			}
			shown = true
			var st proxy.Status
			if err := json.Unmarshal(data, &st); err != nil {
				return fmt.Errorf("a status of the proxy: %w", err)
			}
			if err := show(env, st); err != nil {
				return err
			}
			_, err := fmt.Fprintln(env.Stdout)
			return err
		case "event":
			var e proxy.Event
			if err := json.Unmarshal(data, &e); err != nil {
				return fmt.Errorf("an event of the proxy: %w", err)
			}
			_, err := fmt.Fprintln(env.Stdout, line(e))
			return err
		case "gone":
			_, err := fmt.Fprintln(env.Stdout, "(some events came faster than they were read, and are left out)")
			return err
		}
		return nil
	})
	if err == nil && ctx.Err() == nil {
		fmt.Fprintln(env.Stderr, "The proxy has stopped.")
	}
	return err
}

// line is an event for people.
func line(e proxy.Event) string {
	text := e.Text
	if e.Node != "" {
		text = e.Node + " " + text
	}
	if e.Times > 1 {
		text += fmt.Sprintf(" (%d times)", e.Times)
	}
	return fmt.Sprintf("%s  %-7s  %s", e.Time.Local().Format(time.TimeOnly), e.Severity, text)
}

func can(c proxy.Can) string {
	if c.OK {
		return "yes: " + c.Why
	}
	return "no: " + c.Why
}

func show(env cli.Env, st proxy.Status) error {
	ready := "yes"
	if !st.Ready {
		ready = "no: " + strings.Join(st.Reasons, "; ")
	}
	facts := cli.NewRows("ID", st.ID)
	facts.Add("Version", st.Version)
	facts.Add("Ready", ready)
	facts.Add("Can write", can(st.Write))
	facts.Add("Can read", can(st.Read))
	facts.Add("Listener", st.Addrs.Listener)
	facts.Add("Gossip", st.Addrs.Gossip)
	facts.Add("Cluster", st.ClusterID)
	if st.FormerID != "" {
		facts.Add("Before", st.FormerID+" was served before this proxy was restarted")
	}
	if st.OtherID != "" {
		facts.Add("Not served", st.OtherID+", which nodes belong to")
	}
	facts.Add("Leader", st.LeaderID)
	facts.Add("Term", st.Term)
	if err := facts.Write(env.Stdout); err != nil {
		return err
	}
	fmt.Fprintln(env.Stdout)
	rows := cli.NewRows("NODE", "ADDRESS", "ROLE", "CONNECTION", "NEXT OFFSET", "LAG", "IN FLIGHT", "STATE")
	for _, n := range st.Nodes {
		rows.Add(n.ID, n.Address, role(n), n.Connection, known(n.Visible), known(n.Lag), n.InFlight, state(n))
	}
	return rows.Write(env.Stdout)
}

// known is the cell of a number that may not be known.
func known(n *uint64) any {
	if n == nil {
		return nil
	}
	return *n
}

func role(n proxy.NodeStatus) string {
	switch {
	case n.Leader:
		return "leader"
	case n.Readable:
		return "follower"
	}
	return "unused"
}

func state(n proxy.NodeStatus) string {
	switch {
	case n.Problem != "":
		return n.Problem
	case n.Draining:
		return "draining"
	case n.Ejected:
		return "ejected"
	case !n.Watched:
		return "not heard of"
	case !n.Ready:
		return "not ready"
	case n.CutOff:
		return "knows no leader"
	}
	return "ok"
}
