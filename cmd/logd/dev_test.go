package main

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/pkg/devcluster"
	"github.com/logd-io/logd/pkg/tlsconf"
)

func devOptions(t *testing.T) devcluster.Options {
	return devcluster.Options{Dir: t.TempDir(), Nodes: 3, AnyPort: true, Heartbeat: time.Second, Version: "1.2.3"}
}

// whole waits until every node has caught up with a leader, and the proxy serves.
func whole(t *testing.T, c *devcluster.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	addresses := []string{c.ProxyAdmin()}
	for _, n := range c.Nodes() {
		addresses = append(addresses, n.Agent().AdminAddr())
	}
	for _, address := range addresses {
		a, err := cli.NewAdmin(address)
		require.NoError(t, err)
		require.NoError(t, a.WaitReady(ctx))
	}
}

// The keys do what they say, and the commands work against what runs.
func TestDevConsole(t *testing.T) {
	c, err := devcluster.Start(devOptions(t))
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	whole(t, c)
	until := func(ok func() bool) {
		t.Helper()
		require.Eventually(t, ok, patience, 10*time.Millisecond)
	}
	leads := func() (n *devcluster.Node) {
		t.Helper()
		until(func() bool { n = c.Leader(); return n != nil })
		return n
	}

	got := logd(t, "one\ntwo\nthree\n", "produce", "-address", c.Proxy())
	require.Equal(t, result{0, "produced 3  acked 3  first offset 0  last offset 2\n", ""}, got)
	got = logd(t, "", "consume", "-address", c.Proxy())
	require.Equal(t, result{0, "one\ntwo\nthree\n", ""}, got)
	require.Contains(t, logd(t, "", "servers", "-address", c.Proxy()).stdout, c.Proxy())

	admin := c.Files(tlsconf.RoleAdmin)
	node := []string{"-address", c.Nodes()[0].Addr(), "-ca-cert", admin.CA, "-cert", admin.Cert, "-key", admin.Key}
	got = logd(t, "", append([]string{"members"}, node...)...)
	require.Equal(t, 0, got.code, got.stderr)
	require.Equal(t, 1, strings.Count(got.stdout, "leader"), got.stdout)
	require.Equal(t, 2, strings.Count(got.stdout, "follower"), got.stdout)
	got = logd(t, "", append([]string{"operator", "raft", "list-peers"}, node...)...)
	require.Equal(t, 0, got.code, got.stderr)
	require.Contains(t, got.stdout, "TRAILS LEADER BY")
	require.Contains(t, got.stdout, "commits")
	got = logd(t, "", append([]string{"operator", "raft", "remove-peer", "node9.00000009"}, node...)...)
	require.Equal(t, 1, got.code, got.stdout)
	require.Contains(t, got.stderr, c.Nodes()[0].Agent().ID(), "the ids there are")
	require.Equal(t, 2, logd(t, "", append([]string{"operator", "raft", "remove-peer"}, node...)...).code)
	require.Eventually(t, func() bool {
		got = logd(t, "", append([]string{"operator", "autopilot", "state"}, node...)...)
		return strings.HasPrefix(got.stdout, "Healthy: true\nFailure tolerance: 1\n")
	}, patience, 10*time.Millisecond)
	require.Equal(t, 1, strings.Count(got.stdout, "leader"), got.stdout)
	require.Equal(t, 2, strings.Count(got.stdout, "voter"), got.stdout)
	var state struct{ Servers []struct{ Gossip string } }
	got = logd(t, "", append([]string{"operator", "autopilot", "state", "-format", "json"}, node...)...)
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &state), got.stderr)
	require.Len(t, state.Servers, 3)
	require.Equal(t, "alive", state.Servers[2].Gossip)
	transfer := append([]string{"operator", "raft", "transfer-leader"}, node...)
	got = logd(t, "", append(transfer, "-id", "node9.00000009")...)
	require.Equal(t, 1, got.code, got.stdout)
	require.Contains(t, got.stderr, c.Nodes()[0].Agent().ID(), "the ids there are")
	// Raft gives up on one that does not stand for election in time, and then it is asked
	// again. That one may be elected right after, once; who fails again and again after
	// having handed it on has said what is not so.
	late := 0
	handOn := func(done func(leader *devcluster.Node) bool, flags ...string) (got result) {
		t.Helper()
		for {
			got = logd(t, "", slices.Concat(transfer, flags)...)
			if got.code == 0 {
				return got
			}
			require.NoError(t, ctx.Err(), got.stderr)
			if done(leads()) {
				late++
				require.Equal(t, 1, late, "it is handed on, and the command says %q", got.stderr)
			}
		}
	}
	for _, n := range c.Nodes() {
		got = handOn(func(leader *devcluster.Node) bool { return leader == n }, "-id", n.Agent().ID())
		require.Equal(t, result{0, "==> " + n.Agent().ID() + " leads\n", ""}, got)
	}
	third := c.Nodes()[2]
	got = handOn(func(leader *devcluster.Node) bool { return leader == third }, "-id", third.Agent().ID(), "-format", "json")
	require.JSONEq(t, `{"leader_id": "`+third.Agent().ID()+`"}`, got.stdout, "it leads already")
	old := leads()
	got = handOn(func(leader *devcluster.Node) bool { return leader != old })
	require.NotContains(t, got.stdout, old.Agent().ID(), "another one leads")
	whole(t, c)
	got = logd(t, "", "members", "-admin", c.Nodes()[0].Agent().AdminAddr())
	require.Equal(t, 0, got.code, got.stderr)
	require.Equal(t, 3, strings.Count(got.stdout, "storage"), got.stdout)
	require.Contains(t, got.stdout, "proxy", "gossip knows the proxy too")

	var out buffer
	keys := make(chan byte)
	done := make(chan error, 1) // 1: run's result
	go func() { done <- (&console{out: &out, cluster: c}).run(ctx, keys) }()
	press := func(key byte, want string) {
		keys <- key
		require.Eventually(t, func() bool { return strings.Contains(out.String(), want) }, patience, 10*time.Millisecond, "%s", want)
	}
	press('?', "q quit")
	first := leads()
	press('k', "Killed "+first.Name)
	require.False(t, first.Running())
	second := leads()
	press('p', "Cut "+second.Name)
	require.Contains(t, out.String(), "1 of 3 nodes are up, which is no majority")
	press('p', "There is no leader to cut off")
	press('r', "3 of 3 nodes are up")
	require.Contains(t, out.String(), "Healed "+second.Name)
	require.Contains(t, out.String(), "Revived "+first.Name)
	whole(t, c)
	require.Equal(t, 0, logd(t, "four\n", "produce", "-address", c.Proxy()).code)
	require.Equal(t, "one\ntwo\nthree\nfour\n", logd(t, "", "consume", "-address", c.Proxy()).stdout)

	var gone *devcluster.Node
	for _, n := range c.Nodes()[1:] {
		if n != c.Leader() {
			gone = n
		}
	}
	id := gone.Agent().ID()
	require.NoError(t, gone.Kill())
	got = logd(t, "", append([]string{"operator", "raft", "remove-peer", id}, node...)...)
	require.Equal(t, result{0, "==> Removed " + id + "\n", ""}, got)
	require.Eventually(t, func() bool { // the node asked may follow, and learn it a moment later
		return !strings.Contains(logd(t, "", append([]string{"members"}, node...)...).stdout, id)
	}, patience, 10*time.Millisecond)

	// Of the two that are left the leader leaves, and then the last one cannot.
	leader := leads()
	from := []string{"-address", leader.Addr(), "-ca-cert", admin.CA, "-cert", admin.Cert, "-key", admin.Key}
	id = leader.Agent().ID()
	got = logd(t, "", append([]string{"leave", "-format", "json"}, from...)...)
	require.Equal(t, 0, got.code, got.stderr)
	require.JSONEq(t, `{"removed_id": "`+id+`"}`, got.stdout)
	until(func() bool { n := c.Leader(); return n != nil && n != leader })
	last := []string{"-address", leads().Addr(), "-ca-cert", admin.CA, "-cert", admin.Cert, "-key", admin.Key}
	got = logd(t, "", append([]string{"leave"}, last...)...)
	require.Equal(t, 1, got.code, got.stdout)
	require.Contains(t, got.stderr, "is the only voter")
	keys <- 'q'
	require.NoError(t, <-done)
}

// Without a terminal it runs until it is told to stop.
func TestDevWithoutATerminal(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, errs buffer
	done := make(chan error, 1) // 1: dev's result
	go func() {
		done <- dev(ctx, cli.Env{Stdin: strings.NewReader("q"), Stdout: &out, Stderr: &errs}, devOptions(t))
	}()
	require.Eventually(t, func() bool {
		return strings.Contains(out.String(), "grpcurl") || len(done) > 0
	}, patience, 10*time.Millisecond)
	require.Contains(t, out.String(), "==> logd dev running!")
	_, after, _ := strings.Cut(out.String(), "consume -address ")
	address, _, _ := strings.Cut(after, " ")
	require.Equal(t, 0, logd(t, "x\n", "produce", "-address", address).code, "the lines shown can be pasted")
	cancel()
	require.NoError(t, <-done)
	require.True(t, strings.HasSuffix(out.String(), "==> Stopping\n"))
}

func TestDevRefusesWhatCannotBe(t *testing.T) {
	got := logd(t, "", "dev", "-nodes", "99")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "99 nodes")
	require.Equal(t, 2, logd(t, "", "dev", "-nodes", "0").code)
	require.Equal(t, 2, logd(t, "", "dev", "-log-level", "loud").code)
}

func TestRawTerminalLines(t *testing.T) {
	var out buffer
	n, err := returning{&out}.Write([]byte("a\nb\n"))
	require.NoError(t, err)
	require.Equal(t, 4, n)
	require.Equal(t, "a\r\nb\r\n", out.String())
}
