package main

import (
	"context"
	"flag"
	"fmt"
	"strings"

	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/pkg/proxy"
)

func statusCommand() cli.Command {
	return cli.Command{
		Name:     "status",
		Synopsis: "Show how the proxy sees the cluster",
		Long: `Asks the proxy's admin server, which tells only those on its own machine. ROLE is
what a node is used for: produces go to the leader, reads to followers.`,
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			address := adminFlag(fs, env)
			format := cli.FormatFlag(fs)
			return func(ctx context.Context, _ []string) error {
				a, err := cli.NewAdmin(*address)
				if err != nil {
					return err
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

func show(env cli.Env, st proxy.Status) error {
	ready := "yes"
	if !st.Ready {
		ready = "no: " + strings.Join(st.Reasons, "; ")
	}
	facts := cli.NewRows("ID", st.ID)
	facts.Add("Version", st.Version)
	facts.Add("Ready", ready)
	facts.Add("Listener", st.Listener)
	facts.Add("Gossip", st.Gossip)
	facts.Add("Cluster", st.ClusterID)
	facts.Add("Leader", st.LeaderID)
	facts.Add("Term", st.Term)
	if err := facts.Write(env.Stdout); err != nil {
		return err
	}
	fmt.Fprintln(env.Stdout)
	rows := cli.NewRows("NODE", "ADDRESS", "ROLE", "CONNECTION", "NEXT OFFSET", "LAG", "IN FLIGHT", "STATE")
	for _, n := range st.Nodes {
		rows.Add(n.ID, n.Address, role(n), n.Connection, n.Visible, n.Lag, n.InFlight, state(n))
	}
	return rows.Write(env.Stdout)
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
