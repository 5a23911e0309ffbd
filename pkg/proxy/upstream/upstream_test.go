package upstream_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/proxy/route"
	"github.com/logd-io/logd/pkg/proxy/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ route.Upstream = (*upstream.Node)(nil)

// node is a server that answers Stats with its name and holds Offsets open.
type node struct {
	nodev1.UnimplementedNodeServer
	name    string
	entered chan struct{} // one for each Offsets call that has come in
	let     chan struct{} // closed: Offsets calls return
}

func (n *node) Stats(context.Context, *nodev1.StatsRequest) (*nodev1.StatsResponse, error) {
	return &nodev1.StatsResponse{NodeId: n.name}, nil
}

func (n *node) Offsets(ctx context.Context, _ *nodev1.OffsetsRequest) (*nodev1.OffsetsResponse, error) {
	n.entered <- struct{}{}
	select {
	case <-n.let:
		return &nodev1.OffsetsResponse{Visible: 7}, nil
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

// Append sends its headers and stays open.
func (n *node) Append(s grpc.BidiStreamingServer[nodev1.AppendRequest, nodev1.AppendResponse]) error {
	if err := s.SendHeader(nil); err != nil {
		return err
	}
	<-s.Context().Done()
	return nil
}

// FetchStream sends its headers and stays open.
func (n *node) FetchStream(_ *nodev1.FetchRequest, s grpc.ServerStreamingServer[nodev1.FetchResponse]) error {
	if err := s.SendHeader(nil); err != nil {
		return err
	}
	<-s.Context().Done()
	return nil
}

func serve(t *testing.T, addr, name string) (*node, string, func()) {
	t.Helper()
	lis, err := net.Listen("tcp", addr)
	require.NoError(t, err)
	s := grpc.NewServer(grpc.MaxConcurrentStreams(1000)) // a node's default
	n := &node{name: name, entered: make(chan struct{}, 8), let: make(chan struct{})}
	nodev1.RegisterNodeServer(s, n)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(lis) }()
	stop := func() { s.Stop(); <-done }
	t.Cleanup(stop)
	return n, lis.Addr().String(), stop
}

func pool(t *testing.T, cfg upstream.Config) *upstream.Pool {
	t.Helper()
	if cfg.Credentials == nil {
		cfg.Credentials = func(string) credentials.TransportCredentials { return insecure.NewCredentials() }
	}
	p := upstream.New(cfg)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func await(t *testing.T, n *upstream.Node, want connectivity.State) {
	t.Helper()
	ctx := within(t, 20*time.Second)
	for s := n.State(); s != want; s = n.State() {
		require.True(t, n.WaitForStateChange(ctx, s), "state stays %s, want %s", s, want)
	}
}

func whoIs(t *testing.T, n *upstream.Node) string {
	t.Helper()
	r, err := nodev1.NewNodeClient(n.Conn()).Stats(within(t, 10*time.Second), &nodev1.StatsRequest{}, grpc.WaitForReady(true))
	require.NoError(t, err)
	return r.NodeId
}

func TestName(t *testing.T) {
	require.Equal(t, "node1", upstream.Name("node1.0a1b2c3d"))
	require.Equal(t, "a.example", upstream.Name("a.example.0a1b2c3d"))
	require.Equal(t, "bare", upstream.Name("bare"))
	require.Equal(t, "", upstream.Name(""))
}

func TestCredentialsAreAskedForTheNameInTheID(t *testing.T) {
	_, addr, _ := serve(t, "127.0.0.1:0", "n1")
	var asked []string
	p := pool(t, upstream.Config{Credentials: func(name string) credentials.TransportCredentials {
		asked = append(asked, name)
		return insecure.NewCredentials()
	}})
	_, err := p.Ensure("n1.0000000a", addr)
	require.NoError(t, err)
	seed, err := p.Dial(addr)
	require.NoError(t, err)
	require.NoError(t, seed.Close())
	require.Equal(t, []string{"n1", ""}, asked)
}

func TestOneNodeAnID(t *testing.T) {
	_, addr1, _ := serve(t, "127.0.0.1:0", "first")
	_, addr2, _ := serve(t, "127.0.0.1:0", "second")
	p := pool(t, upstream.Config{})

	a, err := p.Ensure("n1.0000000a", addr1)
	require.NoError(t, err)
	again, err := p.Ensure("n1.0000000a", addr1)
	require.NoError(t, err)
	require.Same(t, a, again)
	require.Equal(t, "first", whoIs(t, a))

	moved, err := p.Ensure("n1.0000000a", addr2)
	require.NoError(t, err)
	require.NotSame(t, a, moved)
	require.Equal(t, addr2, moved.Addr())
	require.Equal(t, "second", whoIs(t, moved))
	await(t, a, connectivity.Shutdown)
}

// More streams than a node takes on a connection keep nobody from being heard, and places
// that are free again are taken first.
func TestStreamsLeaveRoomForOtherCalls(t *testing.T) {
	_, addr, _ := serve(t, "127.0.0.1:0", "n")
	n, err := pool(t, upstream.Config{}).Ensure("n.0000000a", addr)
	require.NoError(t, err)
	for range 2 {
		ctx, cancel := context.WithCancel(within(t, 20*time.Second))
		client := nodev1.NewNodeClient(n.Conn())
		for range 600 {
			fetch, err := client.FetchStream(ctx, &nodev1.FetchRequest{})
			require.NoError(t, err)
			_, err = fetch.Header()
			require.NoError(t, err)
			appends, err := client.Append(ctx)
			require.NoError(t, err)
			_, err = appends.Header()
			require.NoError(t, err)
		}
		require.Equal(t, "n", whoIs(t, n))
		require.Equal(t, 3, n.Conns())
		cancel()
		require.Eventually(t, func() bool { return n.Streams() == 0 }, 10*time.Second, time.Millisecond)
	}
}

func TestANodeThatLeavesFinishesItsCalls(t *testing.T) {
	srv, addr, _ := serve(t, "127.0.0.1:0", "n")
	p := pool(t, upstream.Config{DrainTimeout: time.Minute})
	n, err := p.Ensure("n.0000000a", addr)
	require.NoError(t, err)

	release := n.Acquire()
	require.EqualValues(t, 1, n.InFlight())
	got := make(chan error, 1)
	go func() {
		_, err := nodev1.NewNodeClient(n.Conn()).Offsets(context.Background(), &nodev1.OffsetsRequest{})
		got <- err
	}()
	<-srv.entered
	p.Remove("n.0000000a")
	close(srv.let)
	require.NoError(t, <-got)
	require.NotEqual(t, connectivity.Shutdown, n.State())
	release()
	release() // a second one changes nothing
	require.Zero(t, n.InFlight())
	await(t, n, connectivity.Shutdown)
}

func TestCallsAreCounted(t *testing.T) {
	n, err := pool(t, upstream.Config{}).Ensure("n1.00000001", "127.0.0.1:1")
	require.NoError(t, err)
	a, b := n.Acquire(), n.Acquire()
	require.EqualValues(t, 2, n.InFlight())
	a()
	a() // of no effect
	require.EqualValues(t, 1, n.InFlight())
	b()
	require.EqualValues(t, 0, n.InFlight())
	require.Zero(t, n.Answers(), "nobody has said so")
	n.Answered()
	require.EqualValues(t, 1, n.Answers())
}

func TestDrainingANodeHasAnEnd(t *testing.T) {
	srv, addr, _ := serve(t, "127.0.0.1:0", "n")
	p := pool(t, upstream.Config{DrainTimeout: 10 * time.Millisecond})
	n, err := p.Ensure("n.0000000a", addr)
	require.NoError(t, err)
	defer n.Acquire()()
	got := make(chan error, 1)
	go func() {
		_, err := nodev1.NewNodeClient(n.Conn()).Offsets(context.Background(), &nodev1.OffsetsRequest{})
		got <- err
	}()
	<-srv.entered
	p.Remove("n.0000000a")
	require.Equal(t, codes.Canceled, status.Code(<-got))
}

func TestCloseEndsEverything(t *testing.T) {
	srv, addr, _ := serve(t, "127.0.0.1:0", "n")
	p := pool(t, upstream.Config{DrainTimeout: time.Hour})
	gone, err := p.Ensure("gone.0000000a", addr)
	require.NoError(t, err)
	defer gone.Acquire()()
	kept, err := p.Ensure("kept.0000000a", addr)
	require.NoError(t, err)
	got := make(chan error, 1)
	go func() {
		_, err := nodev1.NewNodeClient(kept.Conn()).Offsets(context.Background(), &nodev1.OffsetsRequest{})
		got <- err
	}()
	<-srv.entered
	p.Remove("gone.0000000a")
	require.NoError(t, p.Close())
	require.Equal(t, codes.Canceled, status.Code(<-got))
	require.Equal(t, connectivity.Shutdown, gone.State())
	_, err = p.Ensure("kept.0000000a", addr)
	require.ErrorIs(t, err, upstream.ErrClosed)
	require.NoError(t, p.Close())
}

// A node that comes back on its address after a while is reached again soon,
// however long it was away: the pauses between attempts are bounded.
func TestARestartedNodeIsReachedAgain(t *testing.T) {
	_, addr, stop := serve(t, "127.0.0.1:0", "before")
	p := pool(t, upstream.Config{})
	n, err := p.Ensure("n.0000000a", addr)
	require.NoError(t, err)
	require.Equal(t, "before", whoIs(t, n))

	stop()
	await(t, n, connectivity.TransientFailure)
	_, err = nodev1.NewNodeClient(n.Conn()).Stats(within(t, 10*time.Second), &nodev1.StatsRequest{})
	require.Equal(t, codes.Unavailable, status.Code(err), "a call to a node that is away fails at once")

	serve(t, addr, "after")
	back := time.Now()
	await(t, n, connectivity.Ready)
	t.Logf("reached again %s after it listened", time.Since(back))
	require.Equal(t, "after", whoIs(t, n))
}

func BenchmarkAcquire(b *testing.B) {
	p := upstream.New(upstream.Config{Credentials: func(string) credentials.TransportCredentials { return insecure.NewCredentials() }})
	defer func() { _ = p.Close() }()
	n, err := p.Ensure("n.0000000a", "127.0.0.1:1")
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		n.Acquire()()
	}
}
