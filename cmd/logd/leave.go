package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/logd-io/logd/internal/cli"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
)

func leaveCommand() cli.Command {
	return cli.Command{
		Name:     "leave",
		Synopsis: "Take a node out of its cluster, for good",
		Long: `Takes the node at -address out of the Raft configuration, after it has handed on
leadership if it has it: its id never comes back, and the others need one vote less.
Stop its process then; with a new data directory it is a new node. A node that is only
to be restarted does not leave: stop it with SIGTERM. It needs a certificate of role
admin. For a node that is down there is operator raft remove-peer.`,
		Examples: "leave -address node3:8400",
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			connect := cli.ConnectFlags(fs, env, cli.Node)
			format := cli.FormatFlag(fs)
			return func(ctx context.Context, _ []string) error { return leave(ctx, env, connect, *format) }
		},
	}
}

func leave(ctx context.Context, env cli.Env, connect *cli.Connect, format cli.Format) error {
	return onLeader(ctx, connect, func(ctx context.Context, view *nodev1.ClusterView, leader nodev1.NodeClient) error {
		id := view.GetNodeId()
		if err := inConfiguration(view, id); err != nil {
			return err
		}
		voters, votes := 0, false
		for _, p := range view.GetPeers() {
			if p.GetVoter() {
				voters++
				votes = votes || p.GetId() == id
			}
		}
		if votes && voters == 1 {
			return fmt.Errorf("%s is the only voter: without it there is no cluster", id)
		}
		if view.GetLeaderId() == id {
			if _, err := leader.TransferLeadership(ctx, &nodev1.TransferLeadershipRequest{}); err != nil {
				return err
			}
			return apierr.NotLeader{Term: view.GetTerm()} // the next try asks who is it now
		}
		if _, err := leader.RemovePeer(ctx, &nodev1.RemovePeerRequest{Id: id}); err != nil {
			return err
		}
		return format.Answer(env.Stdout, removed{id}, fmt.Sprintf("==> %s has left; stop its process\n", id))
	})
}
