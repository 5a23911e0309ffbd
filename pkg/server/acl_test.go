package server_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/authz"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/server"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// lines is a log of which a test looks for lines.
type lines struct{ testutil.Log }

// with are the lines with all of parts.
func (l *lines) with(parts ...string) (found []string) {
next:
	for line := range strings.Lines(l.String()) {
		for _, part := range parts {
			if !strings.Contains(line, part) {
				continue next
			}
		}
		found = append(found, line)
	}
	return found
}

// policed is a server with a policy.
type policed struct {
	*rig
	authz *authz.Authorizer
	file  string
	log   *lines
	reg   *prometheus.Registry
}

func startPoliced(t *testing.T, policy string) *policed {
	t.Helper()
	p := &policed{file: filepath.Join(t.TempDir(), "policy.csv"), log: new(lines), reg: prometheus.NewRegistry()}
	require.NoError(t, os.WriteFile(p.file, []byte(policy), 0o600))
	a, err := authz.Open(authz.Options{Files: authz.Files{Policy: p.file}})
	require.NoError(t, err)
	p.authz = a
	p.rig = start(t, func(c *server.Config) {
		c.Authz, c.Registerer = a, p.reg
		c.Logger = hclog.New(&hclog.LoggerOptions{Output: p.log, Level: hclog.Debug})
	})
	return p
}

func (p *policed) reload(policy string) {
	p.t.Helper()
	require.NoError(p.t, os.WriteFile(p.file, []byte(policy), 0o600))
	require.NoError(p.t, p.authz.Reload())
}

func (p *policed) as(name string) logv1.LogClient {
	return logv1.NewLogClient(p.dial(tlsconf.RoleClient, name))
}

func requireDenied(t *testing.T, err error, parts ...string) {
	t.Helper()
	require.Equal(t, codes.PermissionDenied, status.Code(err), "%v", err)
	for _, part := range parts {
		require.ErrorContains(t, err, part)
	}
}

const everybody = "p, alice, *, produce\np, alice, *, consume\np, bob, *, produce\np, bob, *, consume\np, p1, *, impersonate\n"

func TestAPolicyDecides(t *testing.T) {
	p := startPoliced(t, "p, alice, *, produce\np, bob, *, consume\np, p1, *, impersonate\n")
	_, err := p.as("alice").Produce(ctxOf(t), &logv1.ProduceRequest{})
	require.NoError(t, err)
	_, err = p.as("bob").Produce(ctxOf(t), &logv1.ProduceRequest{})
	requireDenied(t, err, "bob may not produce")
	_, err = p.as("bob").Consume(ctxOf(t), &logv1.ConsumeRequest{})
	require.NoError(t, err)
	_, err = p.as("alice").Consume(ctxOf(t), &logv1.ConsumeRequest{})
	requireDenied(t, err, "alice may not consume")

	_, err = p.proxyFor("p1", "bob").Fetch(ctxOf(t), &nodev1.FetchRequest{})
	require.NoError(t, err)
	_, err = p.proxyFor("p1", "alice").Fetch(ctxOf(t), &nodev1.FetchRequest{})
	requireDenied(t, err, "alice, for whom p1 speaks, may not consume")
	_, err = p.proxyFor("p2", "bob").Fetch(ctxOf(t), &nodev1.FetchRequest{})
	requireDenied(t, err, "p2 may not impersonate")
	stream, err := p.proxyFor("p1", "bob").Append(ctxOf(t))
	require.NoError(t, err)
	_, err = stream.Recv()
	requireDenied(t, err, "bob, for whom p1 speaks, may not produce")
}

// What streams were allowed is asked again after a reload, and only then.
func TestStreamsEndWhenTheirCallerMayNotGoOn(t *testing.T) {
	p := startPoliced(t, everybody)
	p.put("one")
	type stream struct {
		// next says that the stream goes on: that it was told of another record.
		next func() error
	}
	produceOn := func(name string) stream {
		s, err := p.as(name).ProduceStream(ctxOf(t))
		require.NoError(t, err)
		return stream{func() error {
			_ = s.Send(&logv1.ProduceRequest{Record: &logv1.Record{Value: []byte(name)}}) // Recv has the reason
			_, err := s.Recv()
			return err
		}}
	}
	appendOn := func(name string) stream {
		s, err := p.proxyFor("p1", name).Append(ctxOf(t))
		require.NoError(t, err)
		return stream{func() error {
			_ = s.Send(&nodev1.AppendRequest{Count: 1, Records: []byte{0}})
			_, err := s.Recv()
			return err
		}}
	}
	consumeOn := func(name string) stream {
		s, err := p.as(name).ConsumeStream(ctxOf(t), &logv1.ConsumeRequest{})
		require.NoError(t, err)
		return stream{func() error {
			p.put("more")
			_, err := s.Recv()
			return err
		}}
	}
	fetchOn := func(name string) stream {
		s, err := p.proxyFor("p1", name).FetchStream(ctxOf(t), &nodev1.FetchRequest{HeartbeatMs: 10})
		require.NoError(t, err)
		return stream{func() error { _, err := s.Recv(); return err }}
	}
	open := func(name string) map[string]stream {
		return map[string]stream{
			"ProduceStream": produceOn(name), "Append": appendOn(name), "ConsumeStream": consumeOn(name), "FetchStream": fetchOn(name),
		}
	}
	alice, bob := open("alice"), open("bob")
	for range 3 {
		for name, s := range alice {
			require.NoError(t, s.next(), name)
		}
		for name, s := range bob {
			require.NoError(t, s.next(), name)
		}
		p.reload(everybody + "p, carol, *, produce\n") // changes nothing for them
	}
	p.reload("p, alice, *, produce\np, alice, *, consume\np, p1, *, impersonate\n")
	for name, s := range bob {
		var err error
		for range 10_000 { // what was under way may still come
			if err = s.next(); err != nil {
				break
			}
		}
		requireDenied(t, err, "bob", "may not")
		_ = name
	}
	for name, s := range alice {
		require.NoError(t, s.next(), "%s of alice, whom it is not about", name)
	}
}

// A read that has waited shows nothing that came after its caller was shut out.
func TestAReadThatWaitsIsDecidedAgain(t *testing.T) {
	p := startPoliced(t, everybody)
	p.follow()                 // it waits: one that leads would say that there is no such position
	got := make(chan error, 1) // 1: the result
	go func() {
		_, err := p.proxyFor("p1", "bob").Fetch(ctxOf(t), &nodev1.FetchRequest{MinPosition: 1, WaitMs: 20_000})
		got <- err
	}()
	require.Eventually(t, func() bool { return p.waiting() == 1 }, 20*time.Second, 5*time.Millisecond)
	p.reload("p, alice, *, consume\np, p1, *, impersonate\n")
	p.put("too late for bob")
	requireDenied(t, <-got, "bob, for whom p1 speaks, may not consume")
}

// The same for everybody behind a proxy that may speak for nobody any more.
func TestAProxyThatMayNotSpeakAnyMore(t *testing.T) {
	p := startPoliced(t, everybody)
	s, err := p.proxyFor("p1", "alice").FetchStream(ctxOf(t), &nodev1.FetchRequest{HeartbeatMs: 10})
	require.NoError(t, err)
	_, err = s.Recv()
	require.NoError(t, err)
	p.reload("p, alice, *, consume\n")
	for err == nil {
		_, err = s.Recv()
	}
	requireDenied(t, err, "p1 may not impersonate")
}

// A batch that was taken is acknowledged before its stream ends: nothing that was
// appended is told to have been refused.
func TestWhatWasTakenIsAcknowledgedBeforeTheEnd(t *testing.T) {
	p := startPoliced(t, everybody)
	p.hold()
	s, err := p.proxyFor("p1", "bob").Append(ctxOf(t))
	require.NoError(t, err)
	for i := range 3 {
		require.NoError(t, s.Send(&nodev1.AppendRequest{FirstSequence: uint64(i), Count: 1, Records: []byte{0}}))
	}
	taken := []*pending{<-p.arrived, <-p.arrived, <-p.arrived}
	p.reload("p, alice, *, produce\np, p1, *, impersonate\n")
	require.Eventually(t, func() bool { return len(p.log.with("denied", "bob")) == 1 }, 20*time.Second, 5*time.Millisecond)
	require.NoError(t, s.Send(&nodev1.AppendRequest{FirstSequence: 3, Count: 1, Records: []byte{0}}))
	for i, b := range taken {
		p.settle(b, nil)
		ack, err := s.Recv()
		require.NoError(t, err)
		require.Equal(t, uint64(i), ack.GetFirstSequence())
	}
	_, err = s.Recv()
	requireDenied(t, err, "bob, for whom p1 speaks, may not produce")
	require.Equal(t, 3, p.count(), "a batch was taken after the rules had changed")
}

// A reader that does not read is told too, and soon.
func TestAStuckReaderIsCutOff(t *testing.T) {
	p := startPoliced(t, everybody) // with a send timeout of half a minute
	for range 64 {
		p.put(strings.Repeat("x", 64<<10))
	}
	narrow := p.dial(tlsconf.RoleClient, "bob", grpc.WithStaticStreamWindowSize(64<<10)) // else it may hold it all
	s, err := logv1.NewLogClient(narrow).ConsumeStream(ctxOf(t), &logv1.ConsumeRequest{})
	require.NoError(t, err)
	_, err = s.Recv()
	require.NoError(t, err)
	p.reload("p, alice, *, consume\n")
	require.Eventually(t, func() bool { return len(p.log.with("denied", "bob")) == 1 }, 20*time.Second, 5*time.Millisecond)
	// Its handler is over, though nobody reads, and long before the send timeout.
	require.Eventually(t, func() bool { return handled(t, p.reg, "ConsumeStream", "PermissionDenied") == 1 }, 20*time.Second, 5*time.Millisecond)
	for err == nil {
		_, err = s.Recv()
	}
	requireDenied(t, err, "bob may not consume")
}

func TestAuditNamesBoth(t *testing.T) {
	p := startPoliced(t, "p, alice, *, produce\np, p1, *, impersonate\np, ops, *, admin\np, n2, *, join\n")
	_, err := p.proxyFor("p1", "mallory").Fetch(ctxOf(t), &nodev1.FetchRequest{})
	requireDenied(t, err)
	require.Len(t, p.log.with("[WARN]", "audit: denied", "method=/node.v1.Node/Fetch", "/proxy/p1", "principal=mallory", "may not consume"), 1)
	_, err = p.as("alice").Consume(ctxOf(t), &logv1.ConsumeRequest{})
	requireDenied(t, err)
	require.Len(t, p.log.with("audit: denied", "/client/alice", "principal=alice"), 1)
	as := metadata.AppendToOutgoingContext(ctxOf(t), "logd-original-principal", "root")
	_, err = p.as("alice").Consume(as, &logv1.ConsumeRequest{})
	requireDenied(t, err)
	require.Len(t, p.log.with("audit: denied", "/client/alice", "principal=root"), 1)

	two := metadata.AppendToOutgoingContext(ctxOf(t), "logd-original-principal", "a", "logd-original-principal", "b")
	_, err = nodev1.NewNodeClient(p.dial(tlsconf.RoleProxy, "p1")).Fetch(two, &nodev1.FetchRequest{})
	requireDenied(t, err)
	require.Len(t, p.log.with("audit: denied", "/proxy/p1", "exactly one name is needed"), 1)

	_, err = nodev1.NewNodeClient(p.dial(tlsconf.RoleAdmin, "ops")).RemovePeer(ctxOf(t), &nodev1.RemovePeerRequest{Id: otherID})
	require.NoError(t, err)
	require.Len(t, p.log.with("[INFO]", "audit: allowed", "RemovePeer", "/admin/ops", "principal=ops"), 1)
	_, err = nodev1.NewNodeClient(p.dial(tlsconf.RoleStorage, "n2")).Join(ctxOf(t), &nodev1.JoinRequest{Id: otherID})
	require.NoError(t, err)
	require.Len(t, p.log.with("audit: allowed", "Join", "/storage/n2"), 1)
	_, err = p.as("alice").Produce(ctxOf(t), &logv1.ProduceRequest{})
	require.NoError(t, err)
	require.Empty(t, p.log.with("audit: allowed", "Produce"), "one line for every record would be no audit")
}

// One who is refused ten thousand times does not fill the disk, nor hide others.
func TestAuditIsBounded(t *testing.T) {
	p := startPoliced(t, "p, ops, *, admin\n")
	mallory := p.as("mallory")
	began := time.Now()
	for range 500 {
		_, err := mallory.Produce(ctxOf(t), &logv1.ProduceRequest{})
		requireDenied(t, err)
	}
	_, err := p.as("bob").Produce(ctxOf(t), &logv1.ProduceRequest{})
	requireDenied(t, err)
	windows := int(time.Since(began)/time.Second) + 2
	require.LessOrEqual(t, len(p.log.with("audit: denied", "mallory")), 5*windows)
	require.Len(t, p.log.with("audit: denied", "bob"), 1)
	_, err = nodev1.NewNodeClient(p.dial(tlsconf.RoleAdmin, "ops")).RemovePeer(ctxOf(t), &nodev1.RemovePeerRequest{Id: otherID})
	require.NoError(t, err)
	require.Len(t, p.log.with("audit: allowed", "ops"), 1)
}

// Calls and streams that come while the rules change are decided by the old ones or
// by the new ones, and none that the new ones refuse goes on under the old.
func TestCallsRaceReloads(t *testing.T) {
	p := startPoliced(t, everybody)
	p.put("one")
	ctx, cancel := context.WithCancel(ctxOf(t))
	var wg sync.WaitGroup
	for i := range 4 {
		c := p.as([]string{"alice", "bob"}[i%2])
		wg.Go(func() {
			for ctx.Err() == nil {
				s, err := c.ConsumeStream(ctx, &logv1.ConsumeRequest{})
				for err == nil {
					_, err = s.Recv()
				}
				if code := status.Code(err); code != codes.PermissionDenied && code != codes.Canceled || i%2 == 0 && code != codes.Canceled {
					t.Errorf("%d: %v", i, err)
					return
				}
			}
		})
	}
	for i := range 60 {
		p.reload(everybody + fmt.Sprintf("p, u%d, *, consume\n", i))
		p.put("more")
		p.reload("p, alice, *, consume\n")
	}
	// What has been open is over: a record that comes now is no more bob's.
	denied, err := p.as("bob").ConsumeStream(ctx, &logv1.ConsumeRequest{})
	require.NoError(t, err)
	_, err = denied.Recv()
	requireDenied(t, err)
	cancel()
	wg.Wait()
}
