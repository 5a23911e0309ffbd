package main

import (
	"context"
	"flag"

	"github.com/logd-io/logd/internal/cli"
)

func serversCommand() cli.Command {
	return cli.Command{
		Name:     "servers",
		Synopsis: "List the servers a client may talk to",
		Long: `Asks a sidecar or a node for GetServers. A sidecar names itself, unless it is
configured with get_servers = "cluster".`,
		Examples: "servers",
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			connect := cli.ConnectFlags(fs, env, cli.Sidecar)
			format := cli.FormatFlag(fs)
			return func(ctx context.Context, _ []string) error {
				c, err := connect.Dial()
				if err != nil {
					return err
				}
				defer c.Close()
				ctx, cancel := context.WithTimeout(ctx, connect.Timeout)
				defer cancel()
				servers, err := c.Servers(ctx)
				if err != nil {
					return err
				}
				if *format == cli.JSON {
					type server struct {
						ID      string `json:"id"`
						Address string `json:"address"`
						Leader  bool   `json:"leader"`
					}
					out := make([]server, len(servers))
					for i, s := range servers {
						out[i] = server{s.GetId(), s.GetRpcAddr(), s.GetIsLeader()}
					}
					return cli.WriteJSON(env.Stdout, out)
				}
				rows := cli.NewRows("ID", "ADDRESS", "LEADER")
				for _, s := range servers {
					rows.Add(s.GetId(), s.GetRpcAddr(), s.GetIsLeader())
				}
				return rows.Write(env.Stdout)
			}
		},
	}
}
