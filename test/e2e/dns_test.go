package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/pkg/discovery/dns/dnstest"
	"github.com/logd-io/logd/pkg/proxy"
)

// A proxy that knows nothing but a name waits for it, finds the cluster by one address of
// it, serves on while the name is gone, and follows when all nodes are elsewhere at
// once, of which only the name can tell. The proxy is part of this process, so that it
// asks a DNS server of the test's.
func TestNodesAreFoundByName(t *testing.T) { // not in parallel: its resolver is the process's
	const name = "logd.test."
	server := dnstest.New(t)
	old := net.DefaultResolver
	net.DefaultResolver = server.Resolver()
	t.Cleanup(func() { net.DefaultResolver = old })

	w := prepare(t, nil)
	w.boot(w.Nodes...)
	for _, n := range w.Nodes {
		require.NoError(t, w.NodeReady(w.ctx, n))
	}
	conf, err := config.LoadProxy(config.From{Paths: []string{w.proxy.Config}})
	require.NoError(t, err)
	conf.Discovery = []config.Discovery{{Kind: "dns", Name: name, Port: 8400, Interval: 1e9}}
	conf.Gossip = config.Gossip{}
	require.NoError(t, conf.Validate())
	p, err := proxy.Open(conf, proxy.Deps{})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(w.ctx)
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	defer func() {
		stop()
		require.NoError(t, <-ended)
		require.NoError(t, p.Close())
	}()
	conn, err := grpc.NewClient(p.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	serves := func(what string) {
		t.Helper()
		w.until("the proxy serves "+what, func() error {
			_, err := produce(w.ctx, conn, what)
			return err
		})
	}

	w.until("the name is asked for", func() error {
		if server.Asked() == 0 {
			return errors.New("nobody has asked")
		}
		return nil
	})
	server.Set(name, hostOf(t, w.Nodes[2].RPC))
	serves("by one address")
	server.Set(name)
	w.kill(w.leader())
	_, err = produce(w.ctx, conn, "without a name and a leader")
	require.NoError(t, err, "a leader that dies is waited for, and no client is told")
	for _, n := range w.Nodes {
		if n.Running() {
			require.NoError(t, n.Stop(w.ctx))
		}
	}
	var addrs []string
	for i, n := range w.Nodes {
		was := n.Gossip
		w.move(n, w.Host(51+i))
		addrs = append(addrs, w.Host(51+i))
		for _, other := range w.Nodes {
			rewrite(t, other.Config, fmt.Sprintf("%q", was), fmt.Sprintf("%q", n.Gossip))
		}
	}
	w.boot(w.Nodes...)
	w.formed(w.Nodes...)
	server.Set(name, addrs...)
	serves("elsewhere")
}
