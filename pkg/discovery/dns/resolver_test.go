package dns_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/discovery"
	"github.com/logd-io/logd/pkg/discovery/dns"
	"github.com/logd-io/logd/pkg/discovery/dns/dnstest"
	"github.com/logd-io/logd/pkg/internal/testutil"
)

const bound = 30 * time.Second // a machine that hangs, not a claim

// Go's own resolver and a server: what its answers and errors are, and what comes of them.
func TestWithGoesResolver(t *testing.T) {
	s := dnstest.New(t)
	src, err := dns.New(dns.Config{Name: "logd.test.", Port: 8400, Interval: 10 * time.Millisecond, Resolver: s.Resolver()})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	up, done := make(chan []discovery.Node, 1), make(chan error, 1)
	go func() { done <- src.Run(ctx, up) }()
	defer func() {
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	}()
	next := func(want ...string) {
		t.Helper()
		select {
		case set := <-up:
			require.Equal(t, nodes(want...), set)
		case <-time.After(bound):
			t.Fatal("nothing is said")
		}
	}
	askedMore := func() {
		t.Helper()
		n := s.Asked() + 4 // A and AAAA, of the question under way and of one that was begun since
		testutil.Eventually(t, bound, func() error {
			if s.Asked() < n {
				return context.DeadlineExceeded
			}
			return nil
		})
	}

	askedMore() // NXDOMAIN
	s.Set("logd.test.", "10.0.0.2", "10.0.0.1", "fd00::1")
	next("10.0.0.1:8400", "10.0.0.2:8400", "[fd00::1]:8400")
	for _, trouble := range []func(){func() { s.Fail(true) }, func() { s.Fail(false); s.Set("logd.test.") }} {
		trouble()
		askedMore()
	}
	s.Set("logd.test.", "10.0.0.3")
	next("10.0.0.3:8400") // and nothing between
}

func TestSRVWithGoesResolver(t *testing.T) {
	s := dnstest.New(t)
	s.SetSRV("_rpc._tcp.logd.test.", dnstest.SRV{Host: "logd-1.logd.test.", Port: 8401}, dnstest.SRV{Host: "logd-0.logd.test.", Port: 8400})
	src, err := dns.New(dns.Config{Name: "_rpc._tcp.logd.test.", SRV: true, Resolver: s.Resolver()})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	up, done := make(chan []discovery.Node), make(chan error, 1)
	go func() { done <- src.Run(ctx, up) }()
	require.Equal(t, nodes("logd-0.logd.test:8400", "logd-1.logd.test:8401"), <-up)
	cancel()
	require.Error(t, <-done)
}
