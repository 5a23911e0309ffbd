package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/internal/http2test"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/proxy"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

// limited is a proxy with limits of its own.
func limited(t *testing.T, set func(*config.ProxyLimits)) (*node, *running) {
	t.Helper()
	ca := tlstest.NewCA(t, cluster)
	n := startNode(t, ca)
	c := conf(t, ca, n)
	set(&c.Limits)
	r := run(t, c)
	r.isReady(t)
	return n, r
}

// gauge is what a metric says.
func (r *running) gauge(t *testing.T, name string) float64 {
	t.Helper()
	_, body := get(t, r.AdminAddr(), "/metrics")
	lines := bufio.NewScanner(strings.NewReader(body))
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			f, err := strconv.ParseFloat(v, 64)
			require.NoError(t, err)
			return f
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func (r *running) comesTo(t *testing.T, name string, want float64) {
	t.Helper()
	testutil.Eventually(t, bound, func() error {
		if got := r.gauge(t, name); got != want {
			return fmt.Errorf("%s is %v, not %v", name, got, want)
		}
		return nil
	})
}

func echo(ctx context.Context, cc *grpc.ClientConn) error {
	var out wrapperspb.StringValue
	return cc.Invoke(ctx, "/test.Play/Count", text("x"), &out)
}

// open begins a call that stays, and returns when the node has it.
func open(t *testing.T, cc *grpc.ClientConn) grpc.ClientStream {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	s, err := cc.NewStream(ctx, bidi, "/test.Play/HeaderFirst")
	require.NoError(t, err)
	md, err := s.Header()
	require.NoError(t, err)
	require.NotNil(t, md)
	return s
}

func requireOverloaded(t *testing.T, err error) {
	t.Helper()
	require.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)
	require.Equal(t, apierr.ReasonOverloaded, apierr.ReasonOf(err))
	info, _ := apierr.From(err)
	require.Positive(t, info.RetryAfter())
}

// A client past its rate is refused, until it was told to come again; health is not.
func TestRequestRate(t *testing.T) {
	_, r := limited(t, func(l *config.ProxyLimits) { l.RequestRate = 20 })
	ctx := testutil.Context(t, bound)
	cc := dial(t, r.Addr(), nil)
	taken := 0
	var err error
	for range 10_000 {
		if err = echo(ctx, cc); err != nil {
			break
		}
		taken++
	}
	requireOverloaded(t, err)
	require.ErrorContains(t, err, "request_rate")
	require.GreaterOrEqual(t, taken, 20)
	for range 40 {
		_, err := healthv1.NewHealthClient(cc).Check(ctx, &healthv1.HealthCheckRequest{})
		require.NoError(t, err)
	}
	require.Positive(t, r.gauge(t, `logproxy_throttled_total{limit="request_rate",outcome="refused"}`))
	require.Positive(t, r.gauge(t, `logproxy_requests_past_rate_total{method="other",upstream="none"}`))
	testutil.Eventually(t, bound, func() error { return echo(ctx, cc) })
}

// Who connects and says nothing takes no place of a client.
func TestTheSilentTakeNoPlace(t *testing.T) {
	_, r := limited(t, func(l *config.ProxyLimits) { l.MaxConnections = 4 })
	var silent []*http2test.Conn
	for range 50 {
		silent = append(silent, http2test.Dial(t, r.Addr(), bound))
	}
	r.comesTo(t, "logproxy_connections_unknown", 50)
	require.NoError(t, echo(testutil.Context(t, bound), dial(t, r.Addr(), nil)))
	require.EqualValues(t, 1, r.gauge(t, "logproxy_connections"))
	for _, s := range silent {
		_ = s.Close()
	}
	r.comesTo(t, "logproxy_connections_unknown", 0)
}

func TestConnectionsAreBounded(t *testing.T) {
	_, r := limited(t, func(l *config.ProxyLimits) { l.MaxConnections = 4 })
	ctx := testutil.Context(t, bound)
	var all []*grpc.ClientConn
	for range 4 {
		cc := dial(t, r.Addr(), nil)
		require.NoError(t, echo(ctx, cc))
		all = append(all, cc)
	}
	require.EqualValues(t, 4, r.gauge(t, "logproxy_connections"))
	require.EqualValues(t, 4, r.gauge(t, "logproxy_connections_limit"))
	one := dial(t, r.Addr(), nil)
	require.Equal(t, codes.Unavailable, status.Code(echo(ctx, one)))
	require.Positive(t, r.gauge(t, `logproxy_connections_refused_total{limit="all"}`))
	for _, cc := range all {
		require.NoError(t, echo(ctx, cc), "who is in stays in")
	}
	require.NoError(t, one.Close()) // or it would try again, and take the place
	require.NoError(t, all[0].Close())
	r.comesTo(t, "logproxy_connections", 3)
	require.NoError(t, echo(ctx, dial(t, r.Addr(), nil)))
}

func TestCallsAreBounded(t *testing.T) {
	_, r := limited(t, func(l *config.ProxyLimits) { l.MaxCalls = 3 })
	ctx := testutil.Context(t, bound)
	a, b := dial(t, r.Addr(), nil), dial(t, r.Addr(), nil)
	first := open(t, a)
	open(t, a)
	open(t, b)
	requireOverloaded(t, echo(ctx, b))
	require.EqualValues(t, 3, r.gauge(t, "logproxy_calls"))
	require.EqualValues(t, 1, r.gauge(t, `logproxy_calls_refused_total{limit="all"}`))
	h, err := healthv1.NewHealthClient(b).Check(ctx, &healthv1.HealthCheckRequest{})
	require.NoError(t, err, "who asks how the proxy is gets an answer")
	require.Equal(t, healthv1.HealthCheckResponse_SERVING, h.Status)
	require.NoError(t, first.CloseSend())
	require.Error(t, first.RecvMsg(text("")))
	r.comesTo(t, "logproxy_calls", 2)
	require.NoError(t, echo(ctx, b))
}

// With certificates, one client leaves half of everything to the others.
func TestOneClientDoesNotTakeAll(t *testing.T) {
	ca := tlstest.NewCA(t, cluster)
	c := conf(t, ca, startNode(t, ca))
	f := ca.Files(t, tlsconf.RoleProxy, "px")
	c.Listener.TLS = config.TLS{CAFile: f.CA, CertFile: f.Cert, KeyFile: f.Key}
	c.Limits.MaxConnections, c.Limits.MaxCalls = 8, 4
	var out buffer
	r := runWith(t, c, proxy.Deps{Logger: hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Debug})})
	r.isReady(t)
	ctx := testutil.Context(t, bound)
	greedy := credentials.NewTLS(ca.Source(t, tlsconf.RoleClient, "greedy").Client(tlsconf.ALPNgRPC, tlsconf.RoleProxy, "px"))
	other := credentials.NewTLS(ca.Source(t, tlsconf.RoleClient, "other").Client(tlsconf.ALPNgRPC, tlsconf.RoleProxy, "px"))
	var cc *grpc.ClientConn
	for range 4 {
		cc = dial(t, r.Addr(), greedy)
		require.NoError(t, echo(ctx, cc))
	}
	require.Equal(t, codes.Unavailable, status.Code(echo(ctx, dial(t, r.Addr(), greedy))))
	require.Positive(t, r.gauge(t, `logproxy_connections_refused_total{limit="client"}`))
	open(t, cc)
	open(t, cc)
	requireOverloaded(t, echo(ctx, cc))
	require.EqualValues(t, 1, r.gauge(t, `logproxy_calls_refused_total{limit="client"}`))
	require.Regexp(t, `access: call: method=\S+ code=ResourceExhausted took=\S+ principal=greedy\n`, out.String(), "no metric says who it is")
	require.NoError(t, echo(ctx, dial(t, r.Addr(), other)))
}

func TestNoCallsWhileMemoryIsShort(t *testing.T) {
	_, r := limited(t, func(l *config.ProxyLimits) { l.Memory = 1 })
	ctx := testutil.Context(t, bound)
	cc := dial(t, r.Addr(), nil)
	testutil.Eventually(t, bound, func() error { // it was ready before anybody looked
		if err := echo(ctx, cc); err != nil {
			requireOverloaded(t, err)
			return nil
		}
		return errors.New("it was served")
	})
	require.Positive(t, r.gauge(t, `logproxy_calls_refused_total{limit="memory"}`))
	_, err := healthv1.NewHealthClient(cc).Check(ctx, &healthv1.HealthCheckRequest{})
	require.NoError(t, err)
}

// Of the clients that do not read only so many keep their streams, and who reads
// keeps its own.
func TestTheUnreadGiveWay(t *testing.T) {
	_, r := limited(t, func(l *config.ProxyLimits) { l.MaxUnread = 2 })
	cc := dial(t, r.Addr(), nil, grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(8<<20))
	flood := func() grpc.ClientStream {
		ctx, cancel := context.WithCancel(context.Background())
		t.Cleanup(cancel)
		s, err := cc.NewStream(ctx, bidi, "/test.Play/Flood")
		require.NoError(t, err)
		return s
	}
	reading := flood()
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() { // ended below
		var m wrapperspb.BytesValue
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if err := reading.RecvMsg(&m); err != nil {
				stopped <- err
				return
			}
		}
	}()
	var deaf []grpc.ClientStream
	for range 5 {
		deaf = append(deaf, flood())
	}
	r.comesTo(t, "logproxy_unread_streams_ended_total", 3)
	r.comesTo(t, "logproxy_unread_streams", 2)
	r.comesTo(t, "logproxy_calls", 3)
	ended := 0
	for _, s := range deaf {
		var m wrapperspb.BytesValue
		for range 100 { // far beyond what was on the way
			if err := s.RecvMsg(&m); err != nil {
				requireOverloaded(t, err)
				ended++
				break
			}
		}
	}
	require.Equal(t, 3, ended)
	close(stop)
	require.NoError(t, <-stopped)
}

// A connection with many streams that are not read goes as a whole, since gRPC holds
// what was queued for them even when they have ended.
func TestAConnectionFullOfTheUnreadIsClosed(t *testing.T) {
	_, r := limited(t, func(l *config.ProxyLimits) { l.MaxUnread = 2 })
	good := dial(t, r.Addr(), nil)
	ctx := testutil.Context(t, bound)
	require.NoError(t, echo(ctx, good))
	c := http2test.Connect(t, r.Addr(), bound)
	for range 80 {
		require.NoError(t, c.WriteData(c.Call("/test.Play/Flood"), true, nil))
	}
	c.IsClosed()
	require.EqualValues(t, 1, r.gauge(t, `logproxy_connections_refused_total{limit="unread"}`))
	r.comesTo(t, "logproxy_connections", 1)
	r.comesTo(t, "logproxy_calls", 0)
	require.NoError(t, echo(ctx, good))
}

// A client may open so many calls on one connection; those it opens all the same
// are refused, and the rest goes on.
func TestCallsOfOneConnection(t *testing.T) {
	_, r := limited(t, func(l *config.ProxyLimits) { l.MaxConcurrentStreams = 5 })
	c := http2test.Connect(t, r.Addr(), bound)
	first := uint32(0)
	for range 10 {
		id := c.Call("/test.Play/HeaderFirst")
		if first == 0 {
			first = id
		}
	}
	refused := map[uint32]bool{}
	c.Until("the refusals", func(f http2.Frame) bool {
		if rst, ok := f.(*http2.RSTStreamFrame); ok {
			require.Equal(t, http2.ErrCodeRefusedStream, rst.ErrCode)
			refused[rst.StreamID] = true
		}
		return len(refused) == 5
	})
	require.False(t, refused[first])
	r.comesTo(t, "logproxy_calls", 5)
	require.NoError(t, c.Close())
	r.comesTo(t, "logproxy_calls", 0)
}

// Calls that are reset as soon as they are made are work for nothing; they do not
// pile up, and others are served meanwhile.
func TestRapidReset(t *testing.T) {
	_, r := limited(t, func(l *config.ProxyLimits) { l.MaxConcurrentStreams = 20 })
	bystander := dial(t, r.Addr(), nil)
	ctx := testutil.Context(t, bound)
	require.NoError(t, echo(ctx, bystander))
	c := http2test.Connect(t, r.Addr(), bound)
	most := 0.0
	for range 20 {
		for range 100 {
			id := c.Call("/test.Play/HeaderFirst")
			if c.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
				break
			}
		}
		most = max(most, r.gauge(t, "logproxy_calls"))
		require.NoError(t, echo(ctx, bystander))
	}
	require.LessOrEqual(t, most, 20.0)
	require.NoError(t, c.Close())
	r.comesTo(t, "logproxy_calls", 0)
	r.comesTo(t, "logproxy_connections", 1)
}

func TestHeadersAreBounded(t *testing.T) {
	n, r := limited(t, func(*config.ProxyLimits) {})
	big := strings.Repeat("x", 20<<10)
	err := echo(metadata.AppendToOutgoingContext(testutil.Context(t, bound), "x-big", big), dial(t, r.Addr(), nil))
	require.ErrorContains(t, err, "16384", "a library that asks is told the limit")
	c := http2test.Connect(t, r.Addr(), bound)
	id := c.Call("/test.Play/HeaderFirst", "x-a", big[:7<<10], "x-b", big[:7<<10], "x-c", big[:7<<10])
	c.Until("the refusal", func(f http2.Frame) bool {
		rst, ok := f.(*http2.RSTStreamFrame)
		return ok && rst.StreamID == id
	})
	next := c.Call("/test.Other/Echo")
	require.Equal(t, "/test.Other/Echo", n.came(t).method, "the connection is as good as before")
	require.NoError(t, c.WriteRSTStream(next, http2.ErrCodeCancel))

	// A block that never ends ends the connection.
	c.EndlessHeaders(next + 2)
}

func TestPingsAreBounded(t *testing.T) {
	_, r := limited(t, func(*config.ProxyLimits) {})
	c := http2test.Connect(t, r.Addr(), bound)
	c.PingsTooMuch()
}

// Who does not get on with the handshake loses the connection, however it dawdles.
func TestSlowHandshakes(t *testing.T) {
	ca := tlstest.NewCA(t, cluster)
	n := startNode(t, ca)
	secure := conf(t, ca, n)
	f := ca.Files(t, tlsconf.RoleProxy, "px")
	secure.Listener.TLS = config.TLS{CAFile: f.CA, CertFile: f.Cert, KeyFile: f.Key}
	for name, c := range map[string]struct {
		config config.Proxy
		says   string
	}{
		"nothing":              {conf(t, ca, n), ""},
		"half of the preface":  {conf(t, ca, n), http2.ClientPreface[:12]},
		"the preface only":     {conf(t, ca, n), http2.ClientPreface},
		"another protocol":     {conf(t, ca, n), "GET / HTTP/1.1\r\nHost: here\r\n\r\n"},
		"TLS: nothing":         {secure, ""},
		"TLS: half of a hello": {secure, "\x16\x03\x01\x02\x00\x01\x00"},
		"TLS: plaintext":       {secure, http2.ClientPreface},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.config.Limits.HandshakeTimeout = 300 * time.Millisecond
			r := run(t, c.config)
			conn := http2test.Dial(t, r.Addr(), bound)
			for _, b := range []byte(c.says) { // a byte at a time
				if _, err := conn.Write([]byte{b}); err != nil {
					break
				}
			}
			conn.IsClosed()
			r.comesTo(t, "logproxy_connections_unknown", 0)
			r.comesTo(t, "logproxy_connections", 0)
		})
	}
}

// A flood of silent connections pushes out the oldest of them, and no client.
func TestTheOldestOfTheSilentGivesWay(t *testing.T) {
	_, r := limited(t, func(l *config.ProxyLimits) { l.HandshakeTimeout = time.Minute })
	cc := dial(t, r.Addr(), nil)
	ctx := testutil.Context(t, bound)
	require.NoError(t, echo(ctx, cc))
	var most int
	var all []net.Conn
	for most = 0; r.gauge(t, `logproxy_connections_refused_total{limit="unknown"}`) == 0; most += 100 {
		require.Less(t, most, 2000, "nothing gives way")
		for range 100 {
			all = append(all, http2test.Dial(t, r.Addr(), bound))
		}
	}
	require.LessOrEqual(t, r.gauge(t, "logproxy_connections_unknown"), 1024.0)
	require.NoError(t, echo(ctx, cc))
	require.NoError(t, echo(ctx, dial(t, r.Addr(), nil)))
	for _, c := range all {
		_ = c.Close()
	}
	r.comesTo(t, "logproxy_connections_unknown", 0)
}

// What a client said it would compress with, and nobody can unpack.
func TestACompressionNobodyKnows(t *testing.T) {
	_, r := limited(t, func(*config.ProxyLimits) {})
	c := http2test.Connect(t, r.Addr(), bound)
	id := c.Call("/test.Play/Count", "grpc-encoding", "none-of-ours")
	require.NoError(t, c.WriteData(id, true, []byte{1, 0, 0, 0, 1, 'x'}))
	c.Until("the status", func(f http2.Frame) bool {
		h, ok := f.(*http2.MetaHeadersFrame)
		if !ok || h.StreamID != id {
			return false
		}
		for _, x := range h.Fields {
			if x.Name == "grpc-status" {
				require.Equal(t, strconv.Itoa(int(codes.Unimplemented)), x.Value)
				return true
			}
		}
		return false
	})
}
