package proxy_test

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/logd-io/logd/config"
	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/proxy"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

const (
	cluster = "test"
	uuid    = "7b1f4a52-6c3e-4b53-9d0c-0e8f5b8f1a11"
	bound   = 30 * time.Second // a machine that hangs, not a claim

	mostBytes = 1<<20 + 64<<10 // what proxy and node take of one message
)

var gossipKey = base64.StdEncoding.EncodeToString(make([]byte, 32))

// node is a storage node that leads a cluster of one, with an endless quiet log of
// one record, and services that no proxy knows.
type node struct {
	nodev1.UnimplementedNodeServer
	id, addr string
	absent   []*nodev1.Peer // named in its view; set before a proxy asks

	mu     sync.Mutex
	leader string // guarded by mu

	calls chan call     // each passed-through call that came in; 16 are more than a test makes
	let   chan struct{} // closed: calls of Slow finish
	told  chan error    // why the calls of plays that wait for their end ended; 16 are more than a test makes
}

// call is a call as the node saw it.
type call struct {
	method string
	md     metadata.MD
	ctx    context.Context
}

func startNode(t testing.TB, ca *tlstest.CA) *node {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	n := &node{
		id: "n1.0000000a", addr: lis.Addr().String(), leader: "n1.0000000a",
		calls: make(chan call, 16), let: make(chan struct{}), told: make(chan error, 16),
	}
	src := ca.Source(t, tlsconf.RoleStorage, "n1")
	s := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(src.Server([]string{tlsconf.ALPNgRPC}, tlsconf.RoleProxy))),
		grpc.UnknownServiceHandler(n.unknown),
		grpc.MaxRecvMsgSize(mostBytes),
	)
	nodev1.RegisterNodeServer(s, n)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(lis) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return n
}

func (n *node) leads(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.leader = id
}

func (n *node) WatchCluster(_ *nodev1.WatchClusterRequest, s grpc.ServerStreamingServer[nodev1.ClusterView]) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		n.mu.Lock()
		leader := n.leader
		n.mu.Unlock()
		if err := s.Send(&nodev1.ClusterView{
			ClusterId: uuid, Term: 1, LeaderId: leader, NodeId: n.id, Ready: true, Visible: 1,
			Peers: append([]*nodev1.Peer{{Id: n.id, RpcAddr: n.addr, Voter: true}}, n.absent...),
		}); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}

// Append acknowledges at once, and keeps nothing.
func (n *node) Append(s grpc.BidiStreamingServer[nodev1.AppendRequest, nodev1.AppendResponse]) error {
	for next := uint64(1); ; {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := s.Send(&nodev1.AppendResponse{FirstSequence: r.FirstSequence, FirstOffset: next, Count: r.Count}); err != nil {
			return err
		}
		next += uint64(r.Count)
	}
}

// FetchStream sends the one record, and then that there is nothing.
func (n *node) FetchStream(req *nodev1.FetchRequest, s grpc.ServerStreamingServer[nodev1.FetchResponse]) error {
	body, err := proto.Marshal(&logv1.Record{Value: []byte("only")})
	if err != nil {
		return err
	}
	if req.Offset == 0 {
		rec := append(binary.AppendUvarint(nil, uint64(len(body))), body...)
		if err := s.Send(&nodev1.FetchResponse{Visible: 1, Batches: []*nodev1.Batch{{Count: 1, Records: rec}}}); err != nil {
			return err
		}
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := s.Send(&nodev1.FetchResponse{Visible: 1}); err != nil {
				return err
			}
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}

func (n *node) Offsets(context.Context, *nodev1.OffsetsRequest) (*nodev1.OffsetsResponse, error) {
	return &nodev1.OffsetsResponse{Visible: 1}, nil
}

// unknown is every method the node's other services have.
func (n *node) unknown(_ any, ss grpc.ServerStream) error {
	ctx := ss.Context()
	method, _ := grpc.MethodFromServerStream(ss)
	if play := plays[method]; play != nil {
		return play(n, ss)
	}
	md, _ := metadata.FromIncomingContext(ctx)
	n.calls <- call{method: method, md: md, ctx: ctx}
	ss.SetTrailer(metadata.Pairs("said-at-the-end", "trailer"))
	if err := ss.SetHeader(metadata.Pairs("said-first", "header")); err != nil {
		return err
	}
	echo := func() error {
		var m wrapperspb.StringValue
		if err := ss.RecvMsg(&m); err != nil {
			return err
		}
		return ss.SendMsg(&m)
	}
	switch method {
	case "/test.Other/Echo":
		return echo()
	case "/test.Other/EchoAll":
		for {
			if err := echo(); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
		}
	case "/test.Other/EchoAndFail":
		if err := echo(); err != nil {
			return err
		}
		return status.Error(codes.Aborted, "as asked")
	case "/test.Other/Slow":
		select {
		case <-n.let:
			return echo()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return status.Errorf(codes.Unimplemented, "the node does not know %s", method)
}

// call1 answers the next call that came in.
func (n *node) came(t *testing.T) call {
	t.Helper()
	select {
	case c := <-n.calls:
		return c
	case <-time.After(bound):
		t.Fatal("no call has come to the node")
		return call{}
	}
}

// conf is a proxy's configuration on free ports with one static node.
func conf(t testing.TB, ca *tlstest.CA, n *node) config.Proxy {
	t.Helper()
	c := config.DefaultProxy()
	f := ca.Files(t, tlsconf.RoleProxy, "px")
	c.Upstream.TLS = config.TLS{CAFile: f.CA, CertFile: f.Cert, KeyFile: f.Key}
	c.Listener.Address, c.Admin.Address, c.Gossip.Address = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	c.Discovery = []config.Discovery{{Kind: "static", Nodes: []string{n.addr}}}
	c.DrainTimeout = bound
	return c
}

// running is a proxy under Run.
type running struct {
	*proxy.Proxy
	stop func()
	done chan error // what Run answered
}

func run(t testing.TB, c config.Proxy) *running {
	t.Helper()
	return runWith(t, c, proxy.Deps{Version: "v0"})
}

func runWith(t testing.TB, c config.Proxy, deps proxy.Deps) *running {
	t.Helper()
	p, err := proxy.Open(c, deps)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Proxy: p, stop: cancel, done: make(chan error, 1)}
	go func() { r.done <- p.Run(ctx) }()
	t.Cleanup(func() {
		require.NoError(t, p.Close())
		cancel()
	})
	return r
}

func (r *running) isReady(t testing.TB) {
	t.Helper()
	testutil.Eventually(t, bound, func() error {
		if code, body := get(t, r.AdminAddr(), "/readyz"); code != http.StatusOK {
			return fmt.Errorf("/readyz: %d %s", code, body)
		}
		return nil
	})
}

func get(t testing.TB, addr, path string) (code int, body string) {
	t.Helper()
	client := http.Client{Timeout: bound, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + addr + path)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(b)
}

func dial(t testing.TB, addr string, creds credentials.TransportCredentials, more ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	if creds == nil {
		creds = insecure.NewCredentials()
	}
	cc, err := grpc.NewClient(addr, append(more, grpc.WithTransportCredentials(creds), grpc.WithNoProxy())...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

func text(s string) *wrapperspb.StringValue { return wrapperspb.String(s) }
