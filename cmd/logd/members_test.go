package main

import (
	"context"
	"encoding/json"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

func TestServers(t *testing.T) {
	_, addr := startLog(t)
	require.Equal(t, result{0, "ID           ADDRESS         LEADER\nn1.00000001  127.0.0.1:8400  true\nn2.00000002  127.0.0.2:8400  false\n", ""},
		logd(t, "", "servers", "-address", addr))
	require.JSONEq(t, `[{"id":"n1.00000001","address":"127.0.0.1:8400","leader":true},{"id":"n2.00000002","address":"127.0.0.2:8400","leader":false}]`,
		logd(t, "", "servers", "-address", addr, "-format", "json").stdout)
}

// member answers for a node.
type member struct {
	nodev1.UnimplementedNodeServer
	view  *nodev1.ClusterView
	stats *nodev1.StatsResponse
}

func (m *member) WatchCluster(_ *nodev1.WatchClusterRequest, stream nodev1.Node_WatchClusterServer) error {
	if err := stream.Send(m.view); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

func (m *member) Stats(context.Context, *nodev1.StatsRequest) (*nodev1.StatsResponse, error) {
	return m.stats, nil
}

func TestMembersAndPeers(t *testing.T) {
	ca := tlstest.NewCA(t, "test")
	view := &nodev1.ClusterView{LeaderId: "n1.00000001"}
	start := func(name, id, state string, commit uint64) string {
		conf := ca.Source(t, tlsconf.RoleStorage, name).Server([]string{tlsconf.ALPNgRPC}, tlsconf.RoleAdmin)
		m := &member{view: view, stats: &nodev1.StatsResponse{
			NodeId: id, State: state, CommitIndex: commit, Visible: commit * 10, Ready: true, Version: "1.2.3",
		}}
		return serve(t, func(srv *grpc.Server) { nodev1.RegisterNodeServer(srv, m) }, grpc.Creds(credentials.NewTLS(conf)))
	}
	first := start("n1", "n1.00000001", "leader", 100)
	second := start("n2", "n2.00000002", "follower", 99)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, gone.Close())
	view.Peers = []*nodev1.Peer{
		{Id: "n1.00000001", RpcAddr: first, Voter: true},
		{Id: "n2.00000002", RpcAddr: second, Voter: true},
		{Id: "n3.00000003", RpcAddr: gone.Addr().String()},
		{Id: "n4.00000004"},
		{Id: "n5.00000005", RpcAddr: second},
	}
	admin := ca.Files(t, tlsconf.RoleAdmin, "ops")
	flags := []string{"-address", first, "-ca-cert", admin.CA, "-cert", admin.Cert, "-key", admin.Key}

	rows := func(args ...string) [][]string {
		got := logd(t, "", append(args, flags...)...)
		require.Equal(t, 0, got.code, got.stderr)
		var out [][]string
		for l := range strings.Lines(got.stdout) {
			out = append(out, strings.Fields(l))
		}
		return out
	}
	require.Equal(t, [][]string{
		{"ID", "ADDRESS", "STATE", "VOTER", "READY", "NEXT", "OFFSET", "VERSION"},
		{"n1.00000001", first, "leader", "true", "true", "1000", "1.2.3"},
		{"n2.00000002", second, "follower", "true", "true", "990", "1.2.3"},
		{"n3.00000003", gone.Addr().String(), "unreachable", "false", "-", "-", "-"},
		{"n4.00000004", "-", "unreachable", "false", "-", "-", "-"},
		{"n5.00000005", second, "unreachable", "false", "-", "-", "-"},
	}, rows("members"))
	require.Equal(t, [][]string{
		{"n1.00000001", first, "leader", "true", "100", "-"},
		{"n2.00000002", second, "follower", "true", "99", "1", "commit"},
		{"n3.00000003", gone.Addr().String(), "unreachable", "false", "-", "-"},
	}, rows("operator", "raft", "list-peers")[1:4])

	got := logd(t, "", append([]string{"members", "-format=json"}, flags...)...)
	var members []map[string]any
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &members))
	require.Equal(t, true, members[0]["leader"])
	require.Equal(t, 1000., members[0]["next_offset"])
	require.Equal(t, 0., members[0]["lowest_offset"])
	for i, m := range members[2:] { // what is not known is missing, and no zero that could be true
		for _, key := range []string{"ready", "draining", "lowest_offset", "next_offset", "commit_index", "version"} {
			require.Contains(t, members[0], key)
			require.NotContains(t, m, key, "%d", i+2)
		}
	}
	require.NotContains(t, members[3], "address")
	require.Contains(t, members[4]["error"], "another node answers there: n2.00000002")
}

func TestMembersOfASidecarSaysWhy(t *testing.T) {
	_, addr := startLog(t)
	got := logd(t, "", "members", "-address", addr)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "not of a sidecar")
}

func TestMembersOfANodeWithoutCertificates(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { // ends with the listener
		for {
			c, err := lis.Accept()
			if err != nil {
				return
			}
			_ = c.Close() // as a node does to who speaks no TLS
		}
	}()
	defer lis.Close()
	got := logd(t, "", "members", "-address", lis.Addr().String())
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "-ca-cert, -cert and -key")
}
