package telemetry_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/internal/netlimit"
	"github.com/logd-io/logd/pkg/telemetry"
)

// outside is an address of this machine that is not loopback.
func outside(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	t.Skip("this machine has loopback only")
	return ""
}

func exposed(t *testing.T, address string, o telemetry.AdminOptions) string {
	t.Helper()
	o.Address = address
	o.Gatherer = telemetry.NewRegistry("logd", telemetry.ReadBuild("1.2.3"))
	o.Status = func() any { return "secret" }
	a, err := telemetry.OpenAdmin(o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1) // 1: Run's result, whenever it is fetched
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		require.NoError(t, <-done)
	})
	return a.Addr().String()
}

// From elsewhere there are probes and metrics, and nothing else, whatever a request
// says of itself; there is no telling what there is.
func TestAdminFromElsewhere(t *testing.T) {
	addr := exposed(t, net.JoinHostPort(outside(t), "0"), telemetry.AdminOptions{Profiling: true})
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		code, _ := get(t, "http://"+addr+path, "")
		require.Equal(t, http.StatusOK, code, path)
	}
	for _, path := range []string{"/api/status", "/debug/pprof/", "/debug/pprof/heap", "/", "/nothing", "/metrics/../api/status", "//api/status"} {
		for _, host := range []string{"", "localhost", "127.0.0.1:8402"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, nil)
			require.NoError(t, err)
			req.Host = host
			for _, h := range []string{"X-Forwarded-For", "X-Real-Ip", "Forwarded", "True-Client-Ip"} {
				req.Header.Set(h, "127.0.0.1")
			}
			res, err := http.DefaultClient.Do(req)
			require.NoError(t, err)
			body, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			require.Equal(t, http.StatusForbidden, res.StatusCode, "%s as %q", path, host)
			require.NotContains(t, string(body), "secret")
		}
	}
}

// A service mesh's sidecar brings others' connections from an address of the loopback.
func TestAMeshIsElsewhere(t *testing.T) {
	addr := exposed(t, "127.0.0.1:0", telemetry.AdminOptions{})
	for from, want := range map[string]int{"127.0.0.1": http.StatusOK, "127.0.0.6": http.StatusForbidden} {
		tr := &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/api/status", nil)
		require.NoError(t, err)
		res, err := tr.RoundTrip(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, want, res.StatusCode, from)
		tr.CloseIdleConnections()
	}
}

func TestProfilingOnlyWhenAsked(t *testing.T) {
	off := exposed(t, "127.0.0.1:0", telemetry.AdminOptions{})
	code, _ := get(t, "http://"+off+"/debug/pprof/heap", "")
	require.Equal(t, http.StatusNotFound, code)
	on := exposed(t, "127.0.0.1:0", telemetry.AdminOptions{Profiling: true})
	code, body := get(t, "http://"+on+"/debug/pprof/goroutine?debug=1", "")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, body, "goroutine profile")
	code, _ = get(t, "http://"+on+"/debug/pprof/heap", "rebound.example")
	require.Equal(t, http.StatusForbidden, code)
}

// A request that never ends, a header that is too large: the connection does. Others
// are answered meanwhile.
func TestSlowAndLargeRequests(t *testing.T) {
	addr := exposed(t, "127.0.0.1:0", telemetry.AdminOptions{})
	begin := func(text string) net.Conn {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
		_, err = io.WriteString(c, text)
		require.NoError(t, err)
		return c
	}
	slow := begin("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
	large := begin("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Large: " + strings.Repeat("x", 30<<10) + "\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(large), nil)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, res.StatusCode)
	code, _ := get(t, "http://"+addr+"/healthz", "")
	require.Equal(t, http.StatusOK, code)
	_, err = io.ReadAll(slow)
	if err != nil { // closed under us, but not for our own deadline
		require.NotErrorIs(t, err, context.DeadlineExceeded, fmt.Sprint(err))
		require.NotContains(t, err.Error(), "timeout")
	}
}

// A web page can make a browser on this machine post a form to any address.
func TestOrdersAreNotForOtherSites(t *testing.T) {
	drained, reloaded := 0, 0
	t.Run("drain", func(t *testing.T) {
		notForOtherSites(t, "/api/drain", telemetry.AdminOptions{Drain: func() { drained++ }}, &drained, http.StatusAccepted)
	})
	t.Run("reload", func(t *testing.T) {
		reload := func() ([]string, error) { reloaded++; return nil, nil }
		notForOtherSites(t, "/api/reload", telemetry.AdminOptions{Reload: reload}, &reloaded, http.StatusOK)
	})
}

func notForOtherSites(t *testing.T, path string, order telemetry.AdminOptions, done *int, ok int) {
	post := func(addr string, headers ...string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+path, nil)
		require.NoError(t, err)
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		return res.StatusCode
	}
	addr := exposed(t, "127.0.0.1:0", order)
	require.Equal(t, http.StatusForbidden, post(addr, "Sec-Fetch-Site", "cross-site"))
	require.Equal(t, http.StatusForbidden, post(addr, "Origin", "http://elsewhere.example"), "from before browsers said more")
	require.Equal(t, http.StatusForbidden, post(addr, "Origin", "null"))
	code, _ := get(t, "http://"+addr+path, "")
	require.Equal(t, http.StatusMethodNotAllowed, code, "a link does nothing")
	require.Equal(t, http.StatusForbidden, post(exposed(t, net.JoinHostPort(outside(t), "0"), order)))
	require.Equal(t, http.StatusNotFound, post(exposed(t, "127.0.0.1:0", telemetry.AdminOptions{})))
	require.Zero(t, *done)
	require.Equal(t, ok, post(addr))
	require.Equal(t, 1, *done)
}

// Connections that are only held push each other out, the oldest first; who asks gets in.
func TestConnectionsToTheAdminPortAreBounded(t *testing.T) {
	addr := exposed(t, "127.0.0.1:0", telemetry.AdminOptions{})
	dial := func() net.Conn {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
		return c
	}
	oldest := dial()
	_, err := io.WriteString(oldest, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") // and could ask again
	require.NoError(t, err)
	answers := bufio.NewReader(oldest)
	res, err := http.ReadResponse(answers, nil)
	require.NoError(t, err)
	_, err = io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	for range netlimit.Aside(netlimit.Files()) {
		dial()
	}
	code, _ := get(t, "http://"+addr+"/healthz", "")
	require.Equal(t, http.StatusOK, code)
	_, err = answers.ReadByte()
	require.Error(t, err)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "it was kept")
}
