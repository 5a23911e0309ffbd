package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/logd-io/logd/internal/cli"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
)

// leads says which node leads now.
type leads struct {
	ID string `json:"leader_id"`
}

func transferLeaderCommand() cli.Command {
	return cli.Command{
		Name:     "operator raft transfer-leader",
		Synopsis: "Hand leadership to another node",
		Long: `Hands leadership to the node that -id names, or to the one that is best up to date,
and shows who leads then. Produces are held for as long as that takes, usually some
milliseconds. Any node's address will do, since it asks the leader that node names.
It needs a certificate of role admin.`,
		Examples: `operator raft transfer-leader -address node1:8400
operator raft transfer-leader -address node1:8400 -id node2.0a1b2c3d`,
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			connect := cli.ConnectFlags(fs, env, cli.Node)
			format := cli.FormatFlag(fs)
			id := fs.String("id", "", "`node id` that shall lead, as list-peers shows it. Default: the leader chooses")
			return func(ctx context.Context, _ []string) error {
				return transferLeader(ctx, env, connect, *id, *format)
			}
		},
	}
}

func transferLeader(ctx context.Context, env cli.Env, connect *cli.Connect, id string, format cli.Format) error {
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
		return format.Answer(env.Stdout, leads{resp.GetLeaderId()}, fmt.Sprintf("==> %s leads\n", resp.GetLeaderId()))
	})
}
