package forward_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/proxy/forward"
)

// hints records what the forwarder says of the cluster.
type hints struct {
	mu     sync.Mutex
	leads  []string
	failed []string
}

func (h *hints) NotLeader(from, leader, addr string, term uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leads = append(h.leads, fmt.Sprintf("%s→%s@%s/%d", from, leader, addr, term))
}

func (h *hints) Failed(id string, _ error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failed = append(h.failed, id)
}

func (h *hints) all() (leads, failed []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.leads), slices.Clone(h.failed)
}

// proxy is a Forwarder behind a gRPC server, and a naive client of it.
type proxy struct {
	logv1.LogClient
	fwd   *forward.Forwarder
	hints *hints
	reg   *prometheus.Registry
	stop  func()
	conn  *grpc.ClientConn // LogClient's
	dial  func() *grpc.ClientConn
}

func newProxy(t testing.TB, c *fakeCluster, edit func(*forward.Config)) *proxy {
	p := &proxy{hints: &hints{}, reg: prometheus.NewRegistry()}
	cfg := forward.Config{Holder: &c.holder, Hints: p.hints, Registerer: p.reg, Self: "proxy-0", Addr: func() string { return "127.0.0.1:8410" }}
	if edit != nil {
		edit(&cfg)
	}
	fwd, err := forward.New(cfg)
	require.NoError(t, err)
	p.fwd = fwd
	lis := bufconn.Listen(1 << 20)
	s := grpc.NewServer(forward.ServerCodec(), grpc.MaxConcurrentStreams(1<<20))
	fwd.Register(s)
	go func() { _ = s.Serve(&addressed{Listener: lis}) }()
	var conns []*grpc.ClientConn
	p.dial = func() *grpc.ClientConn {
		conn, err := grpc.NewClient("passthrough:///proxy", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
		require.NoError(t, err)
		conns = append(conns, conn)
		return conn
	}
	p.conn = p.dial()
	p.LogClient = logv1.NewLogClient(p.conn)
	p.stop = sync.OnceFunc(func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
		s.Stop()
		require.NoError(t, fwd.Close())
	})
	t.Cleanup(p.stop)
	return p
}

// addressed gives each connection an address of its own, which bufconn does not.
type addressed struct {
	net.Listener
	n int
}

func (l *addressed) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.n++
	return addressedConn{conn, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: l.n}}, nil
}

type addressedConn struct {
	net.Conn
	addr *net.TCPAddr
}

func (c addressedConn) RemoteAddr() net.Addr { return c.addr }

// another is a client of p with a connection of its own.
func (p *proxy) another() logv1.LogClient { return logv1.NewLogClient(p.dial()) }

// metric is the value of a counter or gauge of forward's.
func (p *proxy) metric(name string) float64 {
	fams, err := p.reg.Gather()
	if err != nil {
		return -1
	}
	for _, fam := range fams {
		if fam.GetName() == "logproxy_forward_"+name {
			m := fam.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return -1
}

func ctxFor(t testing.TB, d time.Duration, kv ...string) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return metadata.AppendToOutgoingContext(ctx, kv...)
}

func rec(v string) *logv1.ProduceRequest {
	return &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte(v)}}
}

func requireReason(t testing.TB, want apierr.Reason, err error) {
	t.Helper()
	require.Error(t, err)
	require.Equal(t, want, apierr.ReasonOf(err), "%v", err)
}
