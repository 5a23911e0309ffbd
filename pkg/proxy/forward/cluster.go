package forward

import (
	"context"
	"net"
	"slices"
	"strings"

	"google.golang.org/grpc/peer"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/proxy/route"
)

// getServers answers the proxy itself as the leader, so that a client that balances
// stays with it, or the cluster's nodes. A proxy that listens on all addresses of its
// machine is for each client at the one which that client has come to.
func (f *Forwarder) getServers(ctx context.Context, _ *logv1.GetServersRequest, _ *string) (any, error) {
	if _, err := f.cfg.Principal(ctx); err != nil {
		return nil, err
	}
	if f.cfg.GetServers == ServersProxy {
		return &logv1.GetServersResponse{Servers: []*logv1.Server{{Id: f.cfg.Self, RpcAddr: asReached(ctx, f.cfg.Addr()), IsLeader: true}}}, nil
	}
	t := f.cfg.Holder.Load()
	resp := &logv1.GetServersResponse{}
	for id, up := range t.Nodes {
		resp.Servers = append(resp.Servers, &logv1.Server{
			Id: id, RpcAddr: up.Addr(), IsLeader: t.Leader != nil && t.Leader.ID() == id,
		})
	}
	slices.SortFunc(resp.Servers, func(a, b *logv1.Server) int { return strings.Compare(a.Id, b.Id) })
	return resp, nil
}

// asReached is addr, and where its host is every address of the machine, the address of
// this call's connection instead.
func asReached(ctx context.Context, addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err != nil || host != "" && (ip == nil || !ip.IsUnspecified()) {
		return addr
	}
	if p, ok := peer.FromContext(ctx); ok && p.LocalAddr != nil {
		return p.LocalAddr.String()
	}
	return addr
}

// getOffsets asks the leader, and while there is none a follower that has reached
// the session's position.
func (f *Forwarder) getOffsets(ctx context.Context, req *logv1.GetOffsetsRequest, by *string) (any, error) {
	ctx, cancel := f.bounded(ctx)
	defer cancel()
	principal, err := f.cfg.Principal(ctx)
	if err != nil {
		return nil, err
	}
	s, position, own, err := f.readPosition(ctx, principal, false)
	if err != nil {
		return nil, err
	}
	r := f.reader(routingKey(ctx))
	r.by = by
	r.leaderOnly = r.table.Leader != nil
	var resp *nodev1.OffsetsResponse
	err = r.each(upstream(ctx, principal), func(ctx context.Context, up route.Upstream, isLeader bool) error {
		got, err := nodev1.NewNodeClient(up.Conn()).Offsets(ctx, &nodev1.OffsetsRequest{Time: req.Time})
		if err != nil {
			r.leaderOnly = false // a follower may know enough
			return err
		}
		if got.GetVisible() < position {
			if isLeader {
				if end, err := leaderEnd(ctx, up, position); err == nil {
					return apierr.PositionUnknown{Visible: end}
				}
			}
			r.leaderOnly = false
			return apierr.Behind{Visible: got.GetVisible()}
		}
		resp = got
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.confirm(resp.GetVisible(), own, position)
	f.setPosition(ctx, s, position)
	return &logv1.GetOffsetsResponse{Lowest: resp.GetLowest(), Next: resp.GetVisible(), AtTime: resp.AtTime}, nil
}
