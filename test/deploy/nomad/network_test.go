package nomad_test

import (
	"maps"
	"net"
	"slices"
	"strconv"
	"testing"

	"github.com/hashicorp/nomad/api"
	"github.com/stretchr/testify/require"
)

// ports are the numbers that a group's labels have for its tasks.
func ports(t *testing.T, g *api.TaskGroup) map[string]int {
	t.Helper()
	require.Len(t, g.Networks, 1)
	n := g.Networks[0]
	all := map[string]int{}
	for _, p := range slices.Concat(n.DynamicPorts, n.ReservedPorts) {
		all[p.Label] = max(p.To, p.Value)
		require.Equal(t, n.Mode == "bridge", p.Value == 0, p.Label)
	}
	return all
}

func portOf(t *testing.T, addr string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	n, err := strconv.Atoi(port)
	require.NoError(t, err)
	return n
}

func TestPortsAreThoseOfTheConfiguration(t *testing.T) {
	for _, p := range agents(t) {
		node, proxy := p.load(t)
		want := map[string]int{}
		if node != nil {
			want = map[string]int{"rpc": node.Ports.RPC, "gossip": node.Ports.Gossip, "admin": node.Ports.Admin}
		} else if proxy.UsesGossip() {
			want = map[string]int{"gossip": portOf(t, proxy.Gossip.Address), "admin": portOf(t, proxy.Admin.Address)}
		}
		require.Equal(t, want, ports(t, p.group), p.job)
		shared := p.group.Networks[0].Mode == "bridge"
		if shared {
			require.NotContains(t, p.Config, "network_mode")
		} else {
			require.Equal(t, "host", p.Config["network_mode"])
		}
	}
}

func TestChecksAskTheAdminServer(t *testing.T) {
	for _, p := range agents(t) {
		if p.job == "batch" {
			require.Empty(t, p.group.Services)
			continue
		}
		asked := map[string]api.ServiceCheck{}
		for _, s := range p.group.Services {
			require.Equal(t, "nomad", s.Provider)
			require.Contains(t, services, s.Name, "what templates look for")
			require.Contains(t, ports(t, p.group), s.PortLabel)
			for _, c := range s.Checks {
				require.Equal(t, "admin", s.PortLabel)
				require.Equal(t, "http", c.Type)
				asked[c.Path] = c
			}
		}
		require.ElementsMatch(t, []string{"/readyz", "/healthz"}, slices.Collect(maps.Keys(asked)), "as TestThePodsRun asks for them")
		require.Nil(t, asked["/readyz"].CheckRestart, "one that waits for others is not restarted")
		require.Positive(t, asked["/healthz"].CheckRestart.Limit)
	}
}
