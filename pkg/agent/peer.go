package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/server"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// peerTimeout bounds one call from node to node.
const peerTimeout = 5 * time.Second

// handshake makes raw a TLS connection to the node with that name. It closes raw
// when it fails.
func (a *Agent) handshake(ctx context.Context, raw net.Conn, alpn, name string) (net.Conn, error) {
	conn := tls.Client(raw, a.tls.Client(alpn, tlsconf.RoleStorage, name))
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(tlsconf.Explain(err), raw.Close())
	}
	return conn, nil
}

// connect makes a connection to the node at addr, whose certificate must have that
// name. Nothing is dialled before it is used.
func (a *Agent) connect(addr, name string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+addr, append(a.deps.Tracing.DialOptions(),
		grpc.WithTransportCredentials(credentials.NewTLS(a.tls.Client(tlsconf.ALPNgRPC, tlsconf.RoleStorage, name))),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return a.deps.Dial(ctx, "tcp", addr) }),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: peerTimeout}),
		grpc.WithChainUnaryInterceptor(a.calls.UnaryClient), grpc.WithChainStreamInterceptor(a.calls.StreamClient),
	)...)
}

// call makes one call to the node at addr, whose certificate must have that name.
func (a *Agent) call(ctx context.Context, addr, name string, f func(context.Context, nodev1.NodeClient) error) error {
	conn, err := a.connect(addr, name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	err = f(ctx, nodev1.NewNodeClient(conn))
	return errors.Join(err, conn.Close())
}

// join asks the cluster that member id belongs to to take this node in, and
// follows the answer to the leader once.
func (a *Agent) join(ctx context.Context, id string) (cluster string, err error) {
	addr, err := a.advertised(a.addrs.RPC)
	if err != nil {
		return "", err
	}
	req := &nodev1.JoinRequest{Id: a.id, RpcAddr: addr, ClusterId: a.replica.View().ClusterID}
	ask := func(id, addr string) error {
		return a.call(ctx, addr, replica.NameOf(id), func(ctx context.Context, c nodev1.NodeClient) error {
			resp, err := c.Join(ctx, req)
			cluster = resp.GetClusterId()
			return err
		})
	}
	err = ask(id, a.address(id))
	info, _ := apierr.From(err)
	if leader := info.Metadata["leader"]; info.Reason == apierr.ReasonNotLeader && leader != "" && leader != a.id {
		if addr := info.Metadata["address"]; addr != "" {
			err = ask(leader, addr)
		}
	}
	return cluster, err
}

// promise asks a node for its promise.
func (a *Agent) promise(ctx context.Context, id string, req *nodev1.PromiseRequest) error {
	return a.call(ctx, a.address(id), replica.NameOf(id), func(ctx context.Context, c nodev1.NodeClient) error {
		_, err := c.Promise(ctx, req)
		return err
	})
}

// stats asks a node how it stands, for autopilot.
func (a *Agent) stats(ctx context.Context, id string) (resp *nodev1.StatsResponse, err error) {
	err = a.call(ctx, a.address(id), replica.NameOf(id), func(ctx context.Context, c nodev1.NodeClient) error {
		resp, err = c.Stats(ctx, &nodev1.StatsRequest{})
		return err
	})
	return resp, err
}

// compare asks a node for its hash of the state at an announced entry, and tells
// it this node's.
func (a *Agent) compare(ctx context.Context, id string, index, digest uint64) (known bool, theirs uint64, err error) {
	err = a.call(ctx, a.address(id), replica.NameOf(id), func(ctx context.Context, c nodev1.NodeClient) error {
		resp, err := c.CompareHash(ctx, &nodev1.CompareHashRequest{Index: index, Hash: digest})
		known, theirs = resp.GetKnown(), resp.GetHash()
		return err
	})
	return known, theirs, err
}

// announce is the interval of announcements as the replica takes it.
func announce(configured time.Duration) time.Duration {
	if configured == 0 {
		return -1
	}
	return configured
}

// submitter gives the replica the shape the server asks for.
type submitter struct{ *replica.Replica }

func (s submitter) Submit(b replica.Batch) (server.Pending, error) { return s.Replica.Submit(b) }
