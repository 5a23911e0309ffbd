package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"

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
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			connect := cli.ConnectFlags(fs, env, cli.Node)
			return func(ctx context.Context, args []string) error {
				if len(args) != 1 {
					return cli.Usagef("exactly one node id is needed, as list-peers shows it")
				}
				return removePeer(ctx, env, connect, args[0])
			}
		},
	}
}

func removePeer(ctx context.Context, env cli.Env, connect *cli.Connect, id string) error {
	ctx, cancel := context.WithTimeout(ctx, connect.Timeout)
	defer cancel()
	view, err := clusterView(ctx, connect)
	if err != nil {
		return err
	}
	var ids []string
	leader := ""
	for _, p := range view.GetPeers() {
		ids = append(ids, p.GetId())
		if p.GetId() == view.GetLeaderId() {
			leader = p.GetRpcAddr()
		}
	}
	switch {
	case !slices.Contains(ids, id):
		return fmt.Errorf("%q is not in the configuration, which has %s", id, strings.Join(ids, ", "))
	case leader == "":
		return fmt.Errorf("%s knows of no leader; a majority of the nodes must be up", view.GetNodeId())
	}
	c, err := connect.DialTo(leader)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := nodev1.NewNodeClient(c.Conn()).RemovePeer(ctx, &nodev1.RemovePeerRequest{Id: id}); err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.Stdout, "==> Removed %s\n", id)
	return err
}
