package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"sync"
	"time"

	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/pkg/agent"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
)

// peer is a storage node: what the asked node knows of it, and what it says of
// itself.
type peer struct {
	ID      string `json:"id"`
	Address string `json:"address,omitempty"`
	Voter   bool   `json:"voter"`
	Leader  bool   `json:"leader"`
	// What follows comes from the peer itself; Error tells why it does not.
	State string `json:"state"` // of its Raft, or "unreachable"
	*said        // nil when it is unreachable, and then JSON has none of it
	Error string `json:"error,omitempty"`
}

// said is what a peer says of itself.
type said struct {
	Ready       bool   `json:"ready"`
	Draining    bool   `json:"draining"`
	Lowest      uint64 `json:"lowest_offset"`
	Next        uint64 `json:"next_offset"`
	CommitIndex uint64 `json:"commit_index"`
	Version     string `json:"version,omitempty"`
}

const unreachable = "unreachable"

// peers asks one node for the cluster and then every peer for itself.
func peers(ctx context.Context, connect *cli.Connect) ([]peer, error) {
	ctx, cancel := context.WithTimeout(ctx, connect.Timeout)
	defer cancel()
	view, err := clusterView(ctx, connect)
	if err != nil {
		return nil, err
	}
	out := make([]peer, len(view.GetPeers()))
	var wg sync.WaitGroup
	for i, p := range view.GetPeers() {
		out[i] = peer{ID: p.GetId(), Address: p.GetRpcAddr(), Voter: p.GetVoter(), Leader: p.GetId() == view.GetLeaderId()}
		wg.Go(func() { out[i].ask(ctx, connect) })
	}
	wg.Wait()
	return out, nil
}

// clusterView is the first answer of a node's watch, which comes at once.
func clusterView(ctx context.Context, connect *cli.Connect) (*nodev1.ClusterView, error) {
	c, err := connect.Dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	watch, err := nodev1.NewNodeClient(c.Conn()).WatchCluster(ctx, &nodev1.WatchClusterRequest{})
	if err != nil {
		return nil, withoutTLS(connect, err)
	}
	view, err := watch.Recv()
	switch cli.Code(err) {
	case "Unimplemented", "PermissionDenied":
		return nil, fmt.Errorf("%w; this takes a certificate of role admin, and the -address of a node (port 8400), not of a sidecar", err)
	}
	if err != nil {
		return nil, withoutTLS(connect, err)
	}
	if len(view.GetPeers()) == 0 {
		return nil, errors.New("the node is in no cluster yet: logd members -admin, on its machine, says what it waits for")
	}
	return view, nil
}

// withoutTLS adds to a failure what is the likely reason when there are no
// certificates.
func withoutTLS(connect *cli.Connect, err error) error {
	if connect.CACert != "" {
		return err
	}
	return fmt.Errorf("%w; a node speaks mutual TLS only: -ca-cert, -cert and -key (LOGD_CACERT, LOGD_CERT, LOGD_KEY)", err)
}

// askTimeout is how long one peer may take to answer, so that a dead one does
// not hold up the others' lines.
const askTimeout = 3 * time.Second

func (p *peer) ask(ctx context.Context, connect *cli.Connect) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	stats, err := p.stats(ctx, connect)
	if err != nil {
		p.State, p.Error = unreachable, cli.Explain(err).Error()
		return
	}
	if stats.GetNodeId() != p.ID {
		p.State, p.Error = unreachable, "another node answers there: "+stats.GetNodeId()
		return
	}
	p.State = stats.GetState()
	p.said = &said{
		Ready: stats.GetReady(), Draining: stats.GetDraining(), Lowest: stats.GetLowest(), Next: stats.GetVisible(),
		CommitIndex: stats.GetCommitIndex(), Version: stats.GetVersion(),
	}
}

func (p *peer) stats(ctx context.Context, connect *cli.Connect) (*nodev1.StatsResponse, error) {
	if p.Address == "" {
		return nil, errors.New("its address is not known")
	}
	c, err := connect.DialTo(p.Address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return nodev1.NewNodeClient(c.Conn()).Stats(ctx, &nodev1.StatsRequest{})
}

func membersCommand() cli.Command {
	return cli.Command{
		Name:     "members",
		Synopsis: "List the members of the cluster and how they are",
		Long: `Asks a node for the cluster's storage nodes, and each of them for itself. It needs
a certificate of role admin, and a node's address: a sidecar does not tell. With
-admin it asks a node on this machine what gossip knows, proxies included, and why
that node is not ready, if it is not. That needs no certificate.`,
		Examples: `members -address node1:8400
members -admin 127.0.0.1:8402`,
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			connect := cli.ConnectFlags(fs, env, cli.Node)
			format := cli.FormatFlag(fs)
			admin := fs.String("admin", "", "`host:port` of a node's admin server, like 127.0.0.1:8402: on this machine or, with TLS and role admin, on any.\nLOGD_ADMIN_ADDR is not looked at: who asks for gossip's view says so")
			return func(ctx context.Context, _ []string) error {
				if *admin != "" {
					return gossipMembers(ctx, env, cli.AdminConnect{Certs: connect.Certs, Address: *admin}, *format)
				}
				found, err := peers(ctx, connect)
				if err != nil {
					return err
				}
				if *format == cli.JSON {
					return cli.WriteJSON(env.Stdout, found)
				}
				rows := cli.NewRows("ID", "ADDRESS", "STATE", "VOTER", "READY", "NEXT OFFSET", "VERSION")
				for _, p := range found {
					if p.State == unreachable {
						rows.Add(p.ID, p.Address, p.State, p.Voter)
						continue
					}
					rows.Add(p.ID, p.Address, p.State, p.Voter, p.Ready, p.Next, p.Version)
				}
				return rows.Write(env.Stdout)
			}
		},
	}
}

// gossipMembers shows the members as the node behind the admin server sees them.
func gossipMembers(ctx context.Context, env cli.Env, admin cli.AdminConnect, format cli.Format) error {
	a, err := admin.Open()
	if err != nil {
		return err
	}
	var st agent.Status
	if err := a.Status(ctx, &st); err != nil {
		return err
	}
	if format == cli.JSON {
		return cli.WriteJSON(env.Stdout, st.Members)
	}
	for _, why := range st.Reasons {
		if _, err := fmt.Fprintf(env.Stdout, "This node, %s, is not ready: %s\n\n", st.ID, why); err != nil {
			return err
		}
	}
	rows := cli.NewRows("ID", "ROLE", "GOSSIP", "ADDRESS", "VOTER", "LEADER", "VERSION")
	for _, m := range st.Members {
		rows.Add(m.ID, m.Role, m.State, m.Address, m.Voter, m.ID == st.LeaderID, m.Version)
	}
	return rows.Write(env.Stdout)
}

func listPeersCommand() cli.Command {
	return cli.Command{
		Name:     "operator raft list-peers",
		Synopsis: "List the Raft configuration and who trails",
		Long: `Asks a node for the Raft configuration, and each peer for its commit index. It
needs a certificate of role admin, and a node's address.`,
		Examples: "operator raft list-peers -address node1:8400",
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			connect := cli.ConnectFlags(fs, env, cli.Node)
			format := cli.FormatFlag(fs)
			return func(ctx context.Context, _ []string) error {
				found, err := peers(ctx, connect)
				if err != nil {
					return err
				}
				if *format == cli.JSON {
					return cli.WriteJSON(env.Stdout, found)
				}
				rows := cli.NewRows("ID", "ADDRESS", "STATE", "VOTER", "COMMIT INDEX", "TRAILS LEADER BY")
				for _, p := range found {
					if p.State == unreachable {
						rows.Add(p.ID, p.Address, p.State, p.Voter)
						continue
					}
					rows.Add(p.ID, p.Address, p.State, p.Voter, p.CommitIndex, trails(found, p))
				}
				return rows.Write(env.Stdout)
			}
		},
	}
}

// trails says how many entries p is behind the leader, as far as both answered.
func trails(all []peer, p peer) string {
	for _, l := range all {
		if !l.Leader || l.State == unreachable {
			continue
		}
		if p.Leader {
			return ""
		}
		behind := l.CommitIndex - min(p.CommitIndex, l.CommitIndex)
		if behind == 1 {
			return "1 commit"
		}
		return fmt.Sprintf("%d commits", behind)
	}
	return ""
}
