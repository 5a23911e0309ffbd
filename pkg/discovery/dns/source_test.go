package dns_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/discovery"
	"github.com/logd-io/logd/pkg/discovery/discoverytest"
	"github.com/logd-io/logd/pkg/discovery/dns"
	"github.com/logd-io/logd/pkg/internal/testutil"
)

func TestMain(m *testing.M) { testutil.VerifyMain(m) }

var _ dns.Resolver = (*net.Resolver)(nil)

// names is a resolver that a test writes.
type names struct {
	mu    sync.Mutex
	addrs []string
	srv   []*net.SRV
	err   error
	asked int
}

func (n *names) LookupNetIP(_ context.Context, network, host string) (addrs []netip.Addr, _ error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	if network != "ip" || host != "logd.default.svc" {
		return nil, fmt.Errorf("asked for %s %s", network, host)
	}
	for _, a := range n.addrs {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	return addrs, n.err
}

func (n *names) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	if service != "" || proto != "" || name != "_logd._tcp.logd.default.svc" {
		return "", nil, fmt.Errorf("asked for %s %s %s", service, proto, name)
	}
	return name, n.srv, n.err
}

func (n *names) set(err error, addrs ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs, n.err = addrs, err
}

func source(t *testing.T, cfg dns.Config) discovery.Source {
	cfg.Name = "logd.default.svc"
	if cfg.SRV {
		cfg.Name = "_logd._tcp.logd.default.svc"
	} else {
		cfg.Port = 8400
	}
	s, err := dns.New(cfg)
	require.NoError(t, err)
	return s
}

func nodes(addrs ...string) (set []discovery.Node) {
	for _, a := range addrs {
		set = append(set, discovery.Node{RPCAddr: a})
	}
	return set
}

func TestConformance(t *testing.T) {
	t.Run("addresses", func(t *testing.T) {
		discoverytest.Suite{
			New: func(t *testing.T) discovery.Source {
				return source(t, dns.Config{Resolver: &names{addrs: []string{"10.0.0.2", "10.0.0.1", "::1", "::ffff:10.0.0.1"}}})
			},
			First: nodes("10.0.0.1:8400", "10.0.0.2:8400", "[::1]:8400"),
		}.Run(t)
	})
	t.Run("SRV", func(t *testing.T) {
		discoverytest.Suite{
			New: func(t *testing.T) discovery.Source {
				return source(t, dns.Config{SRV: true, Resolver: &names{
					srv: []*net.SRV{
						{Target: "logd-1.logd.default.svc.", Port: 8401, Priority: 9}, {Target: "logd-0.logd.default.svc.", Port: 8400},
						{Target: ".", Port: 1}, {Target: "portless.", Port: 0}, {Target: "logd-0.logd.default.svc.", Port: 8400},
					},
					err: errors.New("records with invalid names were left out"),
				}})
			},
			First: nodes("logd-0.logd.default.svc:8400", "logd-1.logd.default.svc:8401"),
		}.Run(t)
	})
}

// follow runs a source in a bubble. next is the set that is sent, nil when none is
// within an hour.
func follow(t *testing.T, cfg dns.Config) (next func() []discovery.Node) {
	ctx, cancel := context.WithCancel(t.Context())
	up, done := make(chan []discovery.Node), make(chan error, 1)
	src := source(t, cfg)
	go func() { done <- src.Run(ctx, up) }()
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
	return func() []discovery.Node {
		timer := time.NewTimer(time.Hour)
		defer timer.Stop()
		select {
		case set := <-up:
			return set
		case <-timer.C:
			return nil
		}
	}
}

func TestChangesAreFollowedAtTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &names{addrs: []string{"10.0.0.1"}}
		next := follow(t, dns.Config{Resolver: n, Interval: time.Minute})
		require.Equal(t, nodes("10.0.0.1:8400"), next())
		require.Nil(t, next(), "nothing has changed")
		synctest.Wait()
		require.InDelta(t, 60, n.asked, 7)
		n.set(nil, "10.0.0.2", "10.0.0.1")
		began := time.Now()
		require.Equal(t, nodes("10.0.0.1:8400", "10.0.0.2:8400"), next())
		require.LessOrEqual(t, time.Since(began), 66*time.Second)
	})
}

func TestTheLastGoodSetStays(t *testing.T) {
	for name, err := range map[string]error{
		"NXDOMAIN":  &net.DNSError{Err: "no such host", Name: "logd.default.svc", IsNotFound: true},
		"no server": &net.DNSError{Err: "server misbehaving", IsTemporary: true},
		"empty":     nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				failures := 0
				n := &names{addrs: []string{"10.0.0.1", "10.0.0.2"}}
				next := follow(t, dns.Config{
					Resolver: n, Interval: 10 * time.Minute,
					Logger: hclog.New(&hclog.LoggerOptions{Output: &log}), Failed: func() { failures++ },
				})
				require.Len(t, next(), 2)
				n.set(err)
				require.Nil(t, next())
				synctest.Wait()
				require.Equal(t, 1, strings.Count(log.String(), "is not found"), "%s", &log)
				require.Greater(t, failures, 100, "asked again each half a minute and not only at the interval")
				require.Less(t, failures, 300)
				n.set(nil, "10.0.0.3")
				began := time.Now()
				require.Equal(t, nodes("10.0.0.3:8400"), next())
				require.LessOrEqual(t, time.Since(began), 30*time.Second)
				synctest.Wait()
				require.Equal(t, 2, strings.Count(log.String(), "are found"), "%s", &log)
			})
		})
	}
}

func TestAFirstFailureIsMadeUpForSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &names{err: errors.New("the network is not there yet")}
		next := follow(t, dns.Config{Resolver: n})
		synctest.Wait()
		n.set(nil, "10.0.0.1")
		began := time.Now()
		require.Len(t, next(), 1)
		require.LessOrEqual(t, time.Since(began), time.Second)
	})
}

func TestACrowdIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &names{}
		for i := range 1000 {
			n.addrs = append(n.addrs, fmt.Sprintf("10.0.%d.%d", i/250, i%250))
		}
		require.Len(t, follow(t, dns.Config{Resolver: n})(), 256)
	})
}

func TestWhatCannotBeLookedUpIsRefused(t *testing.T) {
	for _, cfg := range []dns.Config{{}, {Name: "a"}, {Name: "a", Port: 65536}, {SRV: true}} {
		_, err := dns.New(cfg)
		require.Error(t, err)
	}
}

// A resolver that hangs is given up, and what it was asked for ends with the source.
type hanging struct{ names }

func (*hanging) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func TestAResolverThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failures := 0
		next := follow(t, dns.Config{Resolver: &hanging{}, Failed: func() { failures++ }})
		require.Nil(t, next())
		synctest.Wait()
		require.Greater(t, failures, 50)
	})
}
