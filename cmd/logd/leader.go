package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/logd-io/logd/internal/cli"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
)

// leaderPause is how long a command waits before it asks again who leads.
const leaderPause = 100 * time.Millisecond

// onLeader runs do on the node that leads, as the node that connect names sees it, with
// the cluster as that one sees it. While nobody leads, or another node by the time do
// gets there, it asks again, until connect's timeout.
func onLeader(ctx context.Context, connect *cli.Connect, do func(context.Context, *nodev1.ClusterView, nodev1.NodeClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, connect.Timeout)
	defer cancel()
	tick := time.NewTicker(leaderPause)
	defer tick.Stop()
	for {
		view, err := clusterView(ctx, connect)
		if err != nil {
			return err
		}
		if err = tryLeader(ctx, connect, view, do); apierr.ReasonOf(err) != apierr.ReasonNotLeader {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

func tryLeader(ctx context.Context, connect *cli.Connect, view *nodev1.ClusterView, do func(context.Context, *nodev1.ClusterView, nodev1.NodeClient) error) error {
	for _, p := range view.GetPeers() {
		if p.GetId() != view.GetLeaderId() || p.GetRpcAddr() == "" {
			continue
		}
		c, err := connect.DialTo(p.GetRpcAddr())
		if err != nil {
			return err
		}
		defer c.Close()
		return do(ctx, view, nodev1.NewNodeClient(c.Conn()))
	}
	return fmt.Errorf("%s knows of no leader; a majority of the nodes must be up: %w", view.GetNodeId(), apierr.NotLeader{Term: view.GetTerm()})
}

// inConfiguration fails with what there is when id is not.
func inConfiguration(view *nodev1.ClusterView, id string) error {
	var ids []string
	for _, p := range view.GetPeers() {
		ids = append(ids, p.GetId())
	}
	if slices.Contains(ids, id) {
		return nil
	}
	return fmt.Errorf("%q is not in the configuration, which has %s", id, strings.Join(ids, ", "))
}
