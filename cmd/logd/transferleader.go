package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/logd-io/logd/internal/cli"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
)

func transferLeaderCommand() cli.Command {
	return cli.Command{
		Name:     "operator raft transfer-leader",
		Synopsis: "Hand leadership to another node",
		Long: `Hands leadership to the node that -id names, or to the one that is best up to date,
and shows who leads then. Produces are held for as long as that takes, usually some
milliseconds. Any node's address will do, since it asks the leader that node names.
It needs a certificate of role admin.`,
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			connect := cli.ConnectFlags(fs, env, cli.Node)
			id := fs.String("id", "", "`node id` that shall lead, as list-peers shows it. Default: the leader chooses")
			return func(ctx context.Context, _ []string) error {
				return transferLeader(ctx, env, connect, *id)
			}
		},
	}
}

func transferLeader(ctx context.Context, env cli.Env, connect *cli.Connect, id string) error {
	return onLeader(ctx, connect, func(ctx context.Context, view *nodev1.ClusterView, leader nodev1.NodeClient) error {
		if id != "" {
			if err := inConfiguration(view, id); err != nil {
				return err
			}
		}
		resp, err := leader.TransferLeadership(ctx, &nodev1.TransferLeadershipRequest{TargetId: id})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(env.Stdout, "==> %s leads\n", resp.GetLeaderId())
		return err
	})
}
