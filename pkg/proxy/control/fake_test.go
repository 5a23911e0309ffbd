package control_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/discovery"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/proxy/control"
	"github.com/logd-io/logd/pkg/proxy/route"
	"github.com/logd-io/logd/pkg/proxy/upstream"
)

const (
	uuid  = "7b1f4a52-6c3e-4b53-9d0c-0e8f5b8f1a11"
	other = "00000000-6c3e-4b53-9d0c-0e8f5b8f1a11"
	bound = 30 * time.Second // a machine that hangs, not a claim
)

// fake is a node that says what a test tells it to.
type fake struct {
	nodev1.UnimplementedNodeServer
	t    *testing.T
	id   string
	addr string

	mu      sync.Mutex
	view    *nodev1.ClusterView // what it says now
	silent  bool                // it says nothing more, on any watch
	changed chan struct{}       // closed and replaced, under mu, when the above change
	watches int                 // open now

	srv  *grpc.Server
	done chan struct{}
}

func (f *fake) WatchCluster(_ *nodev1.WatchClusterRequest, s grpc.ServerStreamingServer[nodev1.ClusterView]) error {
	f.count(+1)
	defer f.count(-1)
	repeat := time.NewTicker(100 * time.Millisecond)
	defer repeat.Stop()
	for {
		f.mu.Lock()
		v, silent, changed := f.view, f.silent, f.changed
		f.mu.Unlock()
		if !silent {
			if err := s.Send(v); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-repeat.C:
		case <-s.Context().Done():
			return status.FromContextError(s.Context().Err()).Err()
		}
	}
}

func (f *fake) count(d int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watches += d
}

func (f *fake) watched() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.watches
}

// says changes what the node says.
func (f *fake) says(change func(v *nodev1.ClusterView)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.view = proto.Clone(f.view).(*nodev1.ClusterView)
	change(f.view)
	f.wake()
}

func (f *fake) falls(silent bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.silent = silent
	f.wake()
}

func (f *fake) wake() { close(f.changed); f.changed = make(chan struct{}) }

// start listens, on the node's address if it had one.
func (f *fake) start() {
	f.t.Helper()
	addr := f.addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	lis, err := net.Listen("tcp", addr)
	require.NoError(f.t, err)
	f.addr = lis.Addr().String()
	srv, done := grpc.NewServer(), make(chan struct{})
	f.srv, f.done = srv, done
	nodev1.RegisterNodeServer(srv, f)
	go func() { defer close(done); _ = srv.Serve(lis) }()
	f.t.Cleanup(func() { srv.Stop(); <-done })
}

func (f *fake) stop() { f.srv.Stop(); <-f.done }

// voice is a source that says what a test tells it to.
type voice chan []discovery.Node

func (v voice) Run(ctx context.Context, up chan<- []discovery.Node) error {
	for {
		select {
		case set := <-v:
			if err := discovery.Send(ctx, up, set); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// rig is n fakes and a control that looks at them.
type rig struct {
	t      *testing.T
	nodes  []*fake
	voice  voice
	holder *route.Holder
	pool   *upstream.Pool
	c      *control.Control
	stop   func() error
}

func id(i int) string { return fmt.Sprintf("n%d.0000000%d", i, i) }

// newRig makes n nodes that all say that node 0 leads term 1, ready and even.
func newRig(t *testing.T, n int, adjust func(*control.Config)) *rig {
	t.Helper()
	r := &rig{t: t, voice: make(voice), holder: new(route.Holder)}
	for i := range n {
		f := &fake{t: t, id: id(i), changed: make(chan struct{})}
		f.start()
		r.nodes = append(r.nodes, f)
	}
	var peers []*nodev1.Peer
	for _, f := range r.nodes {
		peers = append(peers, &nodev1.Peer{Id: f.id, RpcAddr: f.addr, Voter: true})
	}
	for _, f := range r.nodes {
		f.view = &nodev1.ClusterView{
			ClusterId: uuid, Term: 1, LeaderId: id(0), Peers: peers, Visible: 1000, NodeId: f.id, Ready: true,
		}
	}
	r.pool = upstream.New(upstream.Config{
		Credentials:  func(string) credentials.TransportCredentials { return insecure.NewCredentials() },
		DrainTimeout: time.Millisecond,
	})
	cfg := control.Config{
		Sources: []discovery.Source{r.voice}, Pool: r.pool, Holder: r.holder, MaxLag: 100,
	}
	if adjust != nil {
		adjust(&cfg)
	}
	c, err := control.New(cfg)
	require.NoError(t, err)
	r.c = c
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	r.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		require.ErrorIs(t, r.stop(), context.Canceled)
		require.NoError(t, r.pool.Close())
	})
	return r
}

// heard waits until control has acted on the hints it was given. Of four sets in a
// row the second has then been taken by its loop, which had finished with the first
// and with every hint from before that.
func (r *rig) heard() {
	for range 4 {
		r.known()
	}
}

// seeds sends the addresses of these nodes, without ids.
func (r *rig) seeds(is ...int) {
	var set []discovery.Node
	for _, i := range is {
		set = append(set, discovery.Node{RPCAddr: r.nodes[i].addr})
	}
	r.send(set)
}

// known sends ids and addresses of all nodes.
func (r *rig) known() {
	var set []discovery.Node
	for _, f := range r.nodes {
		set = append(set, discovery.Node{ID: f.id, RPCAddr: f.addr})
	}
	r.send(set)
}

func (r *rig) send(set []discovery.Node) {
	r.t.Helper()
	select {
	case r.voice <- set:
	case <-time.After(bound):
		r.t.Fatal("nobody takes the set")
	}
}

// all says something on every node.
func (r *rig) all(change func(v *nodev1.ClusterView)) {
	for _, f := range r.nodes {
		f.says(change)
	}
}

// sees waits for a table with this leader ("" for none) and these followers.
func (r *rig) sees(leader string, followers ...string) *route.Table {
	r.t.Helper()
	var tab *route.Table
	testutil.EventuallyOn(r.t, bound, func() <-chan struct{} { return r.holder.Load().Superseded() }, func() error {
		tab = r.holder.Load()
		lead, reads := routes(tab)
		if lead != leader || fmt.Sprint(reads) != fmt.Sprint(followers) {
			return fmt.Errorf("table: leader %q followers %v; want %q %v; status %+v", lead, reads, leader, followers, r.c.Status())
		}
		return nil
	})
	return tab
}

func routes(tab *route.Table) (leader string, followers []string) {
	if tab.Leader != nil {
		leader = tab.Leader.ID()
	}
	for _, f := range tab.Followers {
		followers = append(followers, f.ID())
	}
	return leader, followers
}

// eventually waits for what no table tells.
func (r *rig) eventually(check func() error) {
	r.t.Helper()
	testutil.Eventually(r.t, bound, check)
}

var errUnavailable = status.Error(codes.Unavailable, "gone")
