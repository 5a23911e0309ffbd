package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/test/harness"
)

const (
	// groundRules are what a cluster with these proxies needs, whoever its clients are.
	groundRules = `p, nodes, *, join
g, node1, nodes
g, node2, nodes
g, node3, nodes
p, admin, *, admin
p, speakers, *, impersonate
g, proxy1, speakers
g, proxy2, speakers
g, proxy3, speakers
g, proxy4, speakers
`
	// aliceAndBob: she may produce, he may only consume, and so may the clients of
	// proxy1, who are nobody in particular.
	aliceAndBob = groundRules + "p, alice, *, produce\np, bob, *, consume\np, proxy1, *, consume\n"
)

// policed is a cluster with a policy, which all nodes read from one file.
type policed struct {
	*world
	file    string
	gateway *harness.Proxy // with TLS: its clients show certificates
}

// preparePoliced makes three nodes and the sidecar for itself, and starts nothing.
func preparePoliced(t *testing.T, policy string) *policed {
	t.Helper()
	p := &policed{}
	p.world = prepare(t, nil, func(o *harness.Options) {
		p.file = filepath.Join(o.Dir, "policy.csv")
		o.NodeConfig = fmt.Sprintf("acl {\n  policy = %q\n}\n", p.file)
	})
	p.write(policy)
	return p
}

// startPoliced starts three nodes and four proxies: sidecars for itself, alice and bob,
// and a gateway.
func startPoliced(t *testing.T) *policed {
	t.Helper()
	p := preparePoliced(t, aliceAndBob)
	for _, name := range []string{"alice", "bob", "carol"} {
		require.NoError(t, p.AddCert(tlsconf.RoleClient, name))
	}
	var err error
	p.gateway, err = p.AddProxy("")
	require.NoError(t, err)
	tls := filepath.Join(filepath.Dir(p.file), "gateway.hcl")
	cert := p.Cert(p.gateway.Name)
	require.NoError(t, os.WriteFile(tls, fmt.Appendf(nil, "listener {\n  tls {\n    ca_file = %q\n    cert_file = %q\n    key_file = %q\n  }\n}\n",
		cert.CA, cert.Cert, cert.Key), 0o600))
	p.gateway.Args = append(p.gateway.Args, "-config", tls)
	for _, principal := range []string{"alice", "bob"} {
		_, err := p.AddProxy(fmt.Sprintf("principal = %q\n", principal))
		require.NoError(t, err)
	}
	require.NoError(t, p.Start())
	require.NoError(t, p.Ready(p.ctx))
	return p
}

// write replaces the policy as a careful operator does.
func (p *policed) write(text string) {
	p.t.Helper()
	require.NoError(p.t, os.WriteFile(p.file+".new", []byte(text), 0o600))
	require.NoError(p.t, os.Rename(p.file+".new", p.file))
}

// conns are the ways in for somebody: through the gateway, a sidecar, and straight
// to the node that leads and to one that follows.
func (p *policed) conns(name string, sidecar int) map[string]*grpc.ClientConn {
	p.t.Helper()
	gateway, err := p.DialProxy(name, p.gateway)
	require.NoError(p.t, err)
	p.t.Cleanup(func() { _ = gateway.Close() })
	return map[string]*grpc.ClientConn{
		"gateway": gateway, "sidecar": p.naiveTo(p.Proxy[sidecar]),
		"leader": p.dial(name, p.leader()),
	}
}

// produceOne and consumeOne are on streams; produce and consume are unary.
func produceOne(ctx context.Context, conn grpc.ClientConnInterface) error {
	s, err := logv1.NewLogClient(conn).ProduceStream(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(s.Send(&logv1.ProduceRequest{Record: &logv1.Record{Value: []byte("s")}}), s.CloseSend()); err != nil {
		_, err = s.Recv()
		return err
	}
	_, err = s.Recv()
	return err
}

func consumeOne(ctx context.Context, conn grpc.ClientConnInterface) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := logv1.NewLogClient(conn).ConsumeStream(ctx, &logv1.ConsumeRequest{})
	if err != nil {
		return err
	}
	_, err = s.Recv()
	return err
}

func consumeUnary(ctx context.Context, conn grpc.ClientConnInterface) error {
	_, err := logv1.NewLogClient(conn).Consume(ctx, &logv1.ConsumeRequest{})
	return err
}

func produceUnary(ctx context.Context, conn grpc.ClientConnInterface) error {
	_, err := produce(ctx, conn, "u")
	return err
}

var (
	producing = map[string]func(context.Context, grpc.ClientConnInterface) error{"Produce": produceUnary, "ProduceStream": produceOne}
	consuming = map[string]func(context.Context, grpc.ClientConnInterface) error{"Consume": consumeUnary, "ConsumeStream": consumeOne}
)

// audited waits for a line of a node's log, of any, with all of parts.
func (p *policed) audited(parts ...string) {
	p.t.Helper()
	p.until("an audit line with "+strings.Join(parts, " "), func() error {
		for _, n := range p.Nodes {
			f, err := os.Open(n.Log)
			if err != nil {
				return err
			}
			defer f.Close()
		lines:
			for lines := bufio.NewScanner(f); lines.Scan(); {
				for _, part := range parts {
					if !strings.Contains(lines.Text(), part) {
						continue lines
					}
				}
				return nil
			}
		}
		return errors.New("there is none")
	})
}

// Who may do what is the same on every way in: by the certificate that a client shows
// a node or a gateway, and through a sidecar by whom that says its clients are.
func TestAliceProducesAndBobConsumes(t *testing.T) {
	p := startPoliced(t)
	alice, bob := p.conns("alice", 2), p.conns("bob", 3)
	for way, conn := range alice {
		for method, do := range producing {
			require.NoError(t, do(p.ctx, conn), "alice: %s by %s", method, way)
		}
		for method, do := range consuming {
			err := do(p.ctx, conn)
			require.Equal(t, codes.PermissionDenied, status.Code(err), "alice: %s by %s: %v", method, way, err)
			require.ErrorContains(t, err, "alice")
			require.ErrorContains(t, err, "may not consume")
		}
	}
	for way, conn := range bob {
		for method, do := range consuming {
			require.NoError(t, do(p.ctx, conn), "bob: %s by %s", method, way)
		}
		for method, do := range producing {
			err := do(p.ctx, conn)
			require.Equal(t, codes.PermissionDenied, status.Code(err), "bob: %s by %s: %v", method, way, err)
			require.ErrorContains(t, err, "bob")
			require.ErrorContains(t, err, "may not produce")
		}
	}
	// The clients of a sidecar that names nobody are the sidecar.
	require.NoError(t, consumeUnary(p.ctx, p.naive()))
	err := produceUnary(p.ctx, p.naive())
	require.Equal(t, codes.PermissionDenied, status.Code(err), "%v", err)
	require.ErrorContains(t, err, "proxy1, for whom proxy1 speaks, may not produce")
	// Carol may nothing.
	for way, conn := range p.conns("carol", 0) {
		if way == "sidecar" {
			continue
		}
		require.Equal(t, codes.PermissionDenied, status.Code(produceUnary(p.ctx, conn)), way)
		require.Equal(t, codes.PermissionDenied, status.Code(consumeUnary(p.ctx, conn)), way)
	}
	// What she says she is counts for nothing: a node refuses it, a proxy does not pass it on.
	as := metadata.AppendToOutgoingContext(p.ctx, "logd-original-principal", "alice")
	carol := p.conns("carol", 0)
	for way, want := range map[string]string{"gateway": "carol, for whom", "leader": "only a proxy speaks for others"} {
		err := produceUnary(as, carol[way])
		require.Equal(t, codes.PermissionDenied, status.Code(err), "%s: %v", way, err)
		require.ErrorContains(t, err, want)
	}
	// A proxy that says for nobody is refused, whatever the policy lets it do.
	err = consumeUnary(p.ctx, p.dial("proxy1", p.leader()))
	require.Equal(t, codes.PermissionDenied, status.Code(err), "%v", err)
	require.ErrorContains(t, err, "has to say for whom")

	p.audited("audit: denied", "method=/log.v1.Log/Produce ", "/client/bob", "principal=bob")
	p.audited("audit: denied", "method=/node.v1.Node/Append", "/proxy/"+p.gateway.Name, "principal=bob", "may not produce")
	p.audited("audit: denied", "method=/node.v1.Node/Append", "/proxy/proxy4", "principal=bob")
	p.audited("audit: allowed", "method=/node.v1.Node/Promise", "/storage/")
}

// While one principal of a gateway is refused over and over, another of it produces
// as if nothing were.
func TestOneWhoIsRefusedDisturbsNobodyElse(t *testing.T) {
	p := startPoliced(t)
	alice, bob := p.conns("alice", 2)["gateway"], p.conns("bob", 3)["gateway"]
	var refused, appended atomic.Int64
	p.underOneLeader(func(*harness.Node) error { // another one is a reason to try again
		ctx, stop := context.WithCancel(p.ctx)
		defer stop()
		retried := p.gauge(p.gateway.Admin, "logproxy_forward_append_retries_total")
		enough := [2]int64{refused.Load() + 1000, appended.Load() + 1000}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for ctx.Err() == nil {
					if err := produceUnary(p.ctx, bob); status.Code(err) != codes.PermissionDenied {
						t.Errorf("bob is answered %v", err)
						return
					}
					refused.Add(1)
				}
			})
			wg.Go(func() {
				for ctx.Err() == nil {
					if err := produceUnary(p.ctx, alice); err != nil {
						t.Errorf("alice is answered %v", err)
						return
					}
					appended.Add(1)
				}
			})
		}
		p.until("both have been answered often", func() error {
			if refused.Load() < enough[0] || appended.Load() < enough[1] {
				return fmt.Errorf("%d refused, %d appended", refused.Load(), appended.Load())
			}
			return nil
		})
		stop()
		wg.Wait()
		if n := p.gauge(p.gateway.Admin, "logproxy_forward_append_retries_total") - retried; n > 0 {
			return fmt.Errorf("%v batches of alice's were sent again", n)
		}
		return nil
	})
	next := p.logEnd("bob")
	require.Equal(t, appended.Load(), int64(next), "a refused record is in the log")
}

// The policy changes while everything runs: streams that may not go on end, the others
// do not notice, and a file that does not load changes nothing.
func TestThePolicyChangesWhileStreamsAreOpen(t *testing.T) {
	p := startPoliced(t)
	alice, bob := p.conns("alice", 2), p.conns("bob", 3)
	require.NoError(t, produceUnary(p.ctx, alice["leader"]))
	ends := make(chan error, len(bob)) // one each
	for _, conn := range bob {
		s, err := logv1.NewLogClient(conn).ConsumeStream(p.ctx, &logv1.ConsumeRequest{})
		require.NoError(t, err)
		_, err = s.Recv()
		require.NoError(t, err)
		go func() {
			for err == nil {
				_, err = s.Recv()
			}
			ends <- err
		}()
	}
	streams := map[string]logv1.Log_ProduceStreamClient{}
	for way, conn := range alice {
		s, err := logv1.NewLogClient(conn).ProduceStream(p.ctx)
		require.NoError(t, err)
		streams[way] = s
	}
	goesOn := func() {
		t.Helper()
		for way, s := range streams {
			require.NoError(t, s.Send(&logv1.ProduceRequest{Record: &logv1.Record{Value: []byte("x")}}), way)
			_, err := s.Recv()
			require.NoError(t, err, way)
		}
	}
	goesOn()

	// Half a file: nobody notices but the operator.
	p.write(groundRules + "p, bob, *, consu")
	everywhere := func(what string, failing float64) {
		t.Helper()
		p.until("every node "+what, func() error {
			for _, n := range p.Nodes {
				if p.metric(n, "logd_acl_reload_failing") != failing {
					return errors.New(n.Name + " does not")
				}
			}
			return nil
		})
	}
	everywhere("refuses the file", 1)
	goesOn()
	require.NoError(t, consumeUnary(p.ctx, bob["gateway"]))

	// Bob may nothing any more.
	p.write(groundRules + "p, alice, *, produce\n")
	for range bob {
		select {
		case err := <-ends:
			require.Equal(t, codes.PermissionDenied, status.Code(err), "%v", err)
			require.ErrorContains(t, err, "bob")
		case <-p.ctx.Done():
			t.Fatal("a stream of bob's goes on")
		}
	}
	everywhere("takes the file", 0)
	goesOn()

	// By an order, and now he may even produce; alice may not, and hears of it.
	p.write(groundRules + "p, bob, *, produce\np, bob, *, consume\n")
	for _, n := range p.Nodes {
		require.NoError(t, n.Signal(syscall.SIGHUP))
	}
	for way, s := range streams {
		for {
			_ = s.Send(&logv1.ProduceRequest{Record: &logv1.Record{Value: []byte("x")}}) // Recv has the reason
			if _, err := s.Recv(); err != nil {
				require.Equal(t, codes.PermissionDenied, status.Code(err), "%s: %v", way, err)
				break
			}
		}
	}
	for way, conn := range bob {
		p.until("bob produces by "+way, func() error { return produceUnary(p.ctx, conn) })
	}
}

// A policy that forgets the nodes keeps them from forming a cluster. They say so, and
// form one once it is mended.
func TestAPolicyThatForgetsTheNodes(t *testing.T) {
	p := preparePoliced(t, "p, alice, *, produce\n")
	require.NoError(t, p.Start())
	p.until("a node says that it may not join", func() error {
		var all []string
		for _, n := range p.Nodes {
			all = append(all, p.readiness(n))
		}
		if text := strings.Join(all, "\n"); !strings.Contains(text, "may not join") {
			return errors.New(text)
		}
		return nil
	})
	p.write(aliceAndBob)
	require.NoError(t, p.Ready(p.ctx))
}

// readiness is what a node says it waits for.
func (p *policed) readiness(n *harness.Node) string {
	req, err := http.NewRequestWithContext(p.ctx, http.MethodGet, "http://"+n.Admin+"/readyz", nil)
	require.NoError(p.t, err)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(p.t, err)
	return string(b)
}
