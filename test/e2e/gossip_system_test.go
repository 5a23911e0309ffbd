//go:build system

package e2e_test

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/test/harness"
)

// nft runs nftables in host i.
func (h *hosts) nft(i int, args ...string) {
	h.t.Helper()
	out, err := exec.Command("ip", append([]string{"netns", "exec", fmt.Sprintf("h%d", i), "nft"}, args...)...).CombinedOutput()
	require.NoError(h.t, err, "nft %q in host %d: %s", args, i, out)
}

// needNft skips a test where nftables are not.
func needNft(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nftables are not installed")
	}
}

// drop has host i lose what it gets and sends that matches; undrop ends that.
func (h *hosts) drop(i int, matches ...string) {
	h.nft(i, "add table inet lost")
	for _, hook := range []string{"input", "output"} {
		h.nft(i, fmt.Sprintf("add chain inet lost %s { type filter hook %s priority 0; }", hook, hook))
		for _, match := range matches {
			h.nft(i, fmt.Sprintf("add rule inet lost %s %s drop", hook, match))
		}
	}
}

func (h *hosts) undrop(i int) { h.nft(i, "delete table inet lost") }

// failures waits until gossip, as every running node but n counts it, has so many
// storage nodes failed. Hosts show who they are on loopback only.
func (w *world) failures(n *harness.Node, want int) {
	w.t.Helper()
	line := fmt.Sprintf("\nlogd_gossip_members{role=\"storage\",state=\"failed\"} %d\n", want)
	w.until(fmt.Sprintf("gossip says that %d have failed", want), func() error {
		for _, other := range w.Nodes {
			if other == n || !other.Running() {
				continue
			}
			page, err := harness.Get(w.ctx, "http://"+other.Admin+"/metrics")
			if err != nil {
				return err
			}
			if !strings.Contains(page, line) {
				return fmt.Errorf("%s does not", other.Name)
			}
		}
		return nil
	})
}

// Gossip with a node is blocked, again and again and for longer than the dead have
// before they are removed, also for a leader that has restarted and never saw it there,
// while RPC and Raft are open: it stays, with its vote, and
// its part is done; nobody is elected, and clients see nothing.
func TestSystemGossipBlocked(t *testing.T) {
	needNft(t)
	if !inOwnNetwork(t) {
		return
	}
	h := newHosts(t)
	w := prepare(t, h, func(opt *harness.Options) {
		opt.Nodes = 4 // so that the leader below, who never saw four healthy, could do with three
		opt.NodeConfig = "autopilot { dead_server_grace = \"1s\" }\n"
	})
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))
	tr := w.load()
	tr.more(200)
	f := w.follower()
	id := w.stats(f).GetNodeId()
	block := func() {
		h.drop(w.number(f), "tcp dport { 8401, 8411 }", "udp dport { 8401, 8411 }", "tcp sport { 8401, 8411 }", "udp sport { 8401, 8411 }")
		w.failures(f, 1)
	}
	w.steady(func() {
		for range 3 {
			block()
			tr.more(100)
			h.undrop(w.number(f))
			w.failures(f, 0)
			tr.more(50)
		}
		block()
	})
	before, old := w.peers(), w.leader()
	var target string
	for _, n := range w.Nodes {
		if n != old && n != f {
			target = w.stats(n).GetNodeId()
		}
	}
	_, err := nodev1.NewNodeClient(w.dial("admin", old)).TransferLeadership(w.ctx, &nodev1.TransferLeadershipRequest{TargetId: target})
	require.NoError(t, err)
	w.leaderOtherThan(old)
	w.steady(func() {
		s := w.health("has failed in gossip for long", id, func(s *nodev1.ServerHealth) bool {
			return s.GetGossip() == "failed" && s.GetStableMs() > (5*time.Second).Milliseconds()
		})
		require.Zero(t, s.GetDeadMs(), "it answers")
		tr.more(100)
	})
	// A leader that restarted meanwhile does not even know it in gossip, and asks it where
	// it was.
	ctx, cancel := w.within(patience)
	defer cancel()
	require.NoError(t, old.Stop(ctx))
	require.NoError(t, old.Process.Start())
	require.NoError(t, w.NodeReady(w.ctx, old))
	again := w.stats(old).GetNodeId()
	w.until(old.Name+" leads", func() error {
		leader := w.leader()
		if leader == old {
			return nil
		}
		_, err := nodev1.NewNodeClient(w.dial("admin", leader)).TransferLeadership(w.ctx, &nodev1.TransferLeadershipRequest{TargetId: again})
		return errors.Join(fmt.Errorf("%s does", leader.Name), err)
	})
	w.steady(func() {
		s := w.health("is unknown in gossip for long", id, func(s *nodev1.ServerHealth) bool {
			return s.GetGossip() == "unknown" && s.GetStableMs() > (5*time.Second).Milliseconds()
		})
		require.Zero(t, s.GetDeadMs(), "it answers")
		tr.more(100)
	})
	require.Equal(t, before, w.peers())
	h.undrop(w.number(f))
	w.failures(f, 0)
	w.allHealthy(before)
	require.NoError(t, w.NodeReady(w.ctx, f))
	tr.finish()
}

// No UDP at all: the cluster begins, the proxy finds it, a node that dies is seen to and
// comes back, and everybody says what is wrong with the network.
func TestSystemUDPBlocked(t *testing.T) {
	needNft(t)
	if !inOwnNetwork(t) {
		return
	}
	h := newHosts(t)
	w := prepare(t, h)
	for _, i := range []int{1, 2, 3, 101} {
		h.drop(i, "meta l4proto udp")
	}
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))
	tr := w.load()
	tr.more(200)
	admins := map[string]*harness.Process{w.proxy.Admin: w.proxy.Process}
	for _, n := range w.Nodes {
		admins[n.Admin] = n.Process
	}
	for admin, p := range admins {
		w.until(p.Name+" says so", func() error {
			page, err := harness.Get(w.ctx, "http://"+admin+"/metrics")
			if err != nil {
				return err
			}
			if !strings.Contains(page, "\nlogd_gossip_udp_silent 1\n") {
				return fmt.Errorf("%s does not", p.Name)
			}
			return nil
		})
		require.Contains(t, fileText(t, p.Log), "none of their gossip comes over UDP")
	}
	f := w.follower()
	require.NoError(t, f.Kill())
	w.failures(f, 1)
	tr.more(100)
	require.NoError(t, f.Process.Start())
	require.NoError(t, w.NodeReady(w.ctx, f))
	w.failures(f, 0)
	leader := w.leader()
	require.NoError(t, leader.Kill())
	tr.more(100)
	require.NoError(t, leader.Process.Start())
	require.NoError(t, w.NodeReady(w.ctx, leader))
	for _, i := range []int{1, 2, 3, 101} {
		h.undrop(i)
	}
	for _, n := range w.Nodes {
		w.until(n.Name+" hears packets", func() error {
			if got := w.metric(n, "logd_gossip_udp_silent"); got != 0 {
				return fmt.Errorf("%v", got)
			}
			return nil
		})
	}
	tr.finish()
}
