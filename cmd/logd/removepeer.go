package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/logd-io/logd/internal/cli"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
)

func removePeerCommand() cli.Command {
	return cli.Command{
		Name:     "operator raft remove-peer",
		Synopsis: "Take a node out of the Raft configuration",
		Args:     "<node id>",
		Long: `Takes one node out of the Raft configuration, for good: its id never comes back.
Ids are shown by list-peers. Any node's address will do, since it asks the leader
that node names. It needs a certificate of role admin. A node that is only down is
better left in: it catches up when it is back.`,
		Examples: "operator raft remove-peer -address node1:8400 node3.0a1b2c3d",
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			connect := cli.ConnectFlags(fs, env, cli.Node)
			format := cli.FormatFlag(fs)
			return func(ctx context.Context, args []string) error {
				if len(args) != 1 {
					return cli.Usagef("exactly one node id is needed, as list-peers shows it")
				}
				return removePeer(ctx, env, connect, args[0], *format)
			}
		},
	}
}

// removed says which node is not in the Raft configuration any more.
type removed struct {
	ID string `json:"removed_id"`
}

func removePeer(ctx context.Context, env cli.Env, connect *cli.Connect, id string, format cli.Format) error {
	return onLeader(ctx, connect, func(ctx context.Context, view *nodev1.ClusterView, leader nodev1.NodeClient) error {
		if err := inConfiguration(view, id); err != nil {
			return err
		}
		if _, err := leader.RemovePeer(ctx, &nodev1.RemovePeerRequest{Id: id}); err != nil {
			return err
		}
		return format.Answer(env.Stdout, removed{id}, fmt.Sprintf("==> Removed %s\n", id))
	})
}
