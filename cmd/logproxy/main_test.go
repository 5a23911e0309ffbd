package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/pkg/proxy"
	"github.com/logd-io/logd/pkg/telemetry"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// buffer may be written and read at once.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

type result struct {
	code           int
	stdout, stderr string
}

func logproxy(t *testing.T, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	env := cli.Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs}
	code := cli.Main(t.Context(), "logproxy", "1.2.3", commands(telemetry.ReadBuild("1.2.3")), env, args)
	return result{code, out.String(), errs.String()}
}

func startAdmin(t *testing.T, o telemetry.AdminOptions) string {
	t.Helper()
	o.Address = "127.0.0.1:0"
	a, err := telemetry.OpenAdmin(o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1) // 1: Run's result
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return a.Addr().String()
}

func TestWait(t *testing.T) {
	var asked atomic.Int32
	addr := startAdmin(t, telemetry.AdminOptions{Ready: func() []string {
		if asked.Add(1) < 4 {
			return []string{"no leader known"}
		}
		return nil
	}})
	require.Equal(t, result{0, "", ""}, logproxy(t, "wait", "-admin", addr))
	require.EqualValues(t, 4, asked.Load())
}

func TestWaitSaysWhyNot(t *testing.T) {
	addr := startAdmin(t, telemetry.AdminOptions{Ready: func() []string { return []string{"no leader known", "no upstream"} }})
	got := logproxy(t, "wait", "-admin", addr, "-timeout", "0")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "not ready: no leader known; no upstream")

	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, lis.Close())
	got = logproxy(t, "wait", "-admin", lis.Addr().String(), "-timeout", "0")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, lis.Addr().String())

	require.Equal(t, 2, logproxy(t, "wait", "-admin", "8412").code)
}

func TestValidate(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.hcl"), filepath.Join(dir, "bad.hcl")
	require.NoError(t, os.WriteFile(good, []byte(`
upstream {
  tls {
    ca_file   = "a"
    cert_file = "b"
    key_file  = "c"
  }
}
discovery "static" {
  nodes = ["n1:8400"]
}`), 0o600))
	require.NoError(t, os.WriteFile(bad, []byte(`
listener {
  address = "0.0.0.0:8410"
  port    = 1
}
produce {
  hold_timeout = 10
}
`), 0o600))
	require.Equal(t, result{0, "Configuration is valid!\n", ""}, logproxy(t, "validate", good))
	got := logproxy(t, "validate", good, bad)
	require.Equal(t, 1, got.code)
	for _, want := range []string{"plaintext is not served", `"port"`, "10 is not a duration", "bad.hcl line 3", "bad.hcl line 7"} {
		require.Contains(t, got.stderr, want)
	}
}

func TestVersion(t *testing.T) {
	require.True(t, strings.HasPrefix(logproxy(t, "version").stdout, "logproxy 1.2.3"))
}

// Every command explains itself.
func TestHelp(t *testing.T) {
	for _, c := range commands(telemetry.Build{}) {
		got := logproxy(t, append(strings.Fields(c.Name), "-h")...)
		require.Equal(t, 0, got.code, c.Name)
		require.Contains(t, got.stdout, "Usage: logproxy "+c.Name)
		require.LessOrEqual(t, len(c.Synopsis), 50, c.Name)
	}
}

func TestStatus(t *testing.T) {
	st := proxy.Status{
		ID: "p1", Version: "1.2.3", Ready: true, ClusterID: "c", Term: 7, LeaderID: "n1.00000001", Listener: "127.0.0.1:8410",
		Nodes: []proxy.NodeStatus{
			{ID: "n1.00000001", Address: "10.0.0.1:8400", Connection: "READY", Leader: true, Ready: true, Watched: true, Visible: 9, InFlight: 2},
			{ID: "n2.00000002", Address: "10.0.0.2:8400", Connection: "READY", Readable: true, Ready: true, Watched: true, Visible: 8, Lag: 1},
			{ID: "n3.00000003", Connection: "TRANSIENT_FAILURE", Problem: "another cluster"},
		},
	}
	addr := startAdmin(t, telemetry.AdminOptions{Status: func() any { return st }})
	got := logproxy(t, "status", "-admin", addr)
	require.Equal(t, 0, got.code, got.stderr)
	var rows [][]string
	for l := range strings.Lines(got.stdout) {
		rows = append(rows, strings.Fields(l))
	}
	require.Contains(t, rows, []string{"Leader", "n1.00000001"})
	require.Contains(t, rows, []string{"n1.00000001", "10.0.0.1:8400", "leader", "READY", "9", "0", "2", "ok"})
	require.Contains(t, rows, []string{"n2.00000002", "10.0.0.2:8400", "follower", "READY", "8", "1", "0", "ok"})
	require.Contains(t, rows, []string{"n3.00000003", "-", "unused", "TRANSIENT_FAILURE", "0", "0", "0", "another", "cluster"})

	got = logproxy(t, "status", "-admin", addr, "-format", "json")
	var again proxy.Status
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &again))
	require.Equal(t, st, again)

	plain := startAdmin(t, telemetry.AdminOptions{})
	got = logproxy(t, "status", "-admin", plain)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "404")
}

// The agent serves from its first answer to its drain, and says what it bound.
func TestAgent(t *testing.T) {
	ca := tlstest.NewCA(t, "test")
	cert := ca.Files(t, tlsconf.RoleProxy, "p1")
	dir := t.TempDir()
	file := filepath.Join(dir, "p.hcl")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `
listener {
  address = "127.0.0.1:0"
}
admin {
  address = "127.0.0.1:0"
}
discovery "static" {
  nodes = ["127.0.0.1:1"]
}
upstream {
  tls {
    ca_file   = %q
    cert_file = %q
    key_file  = %q
  }
}`, cert.CA, cert.Cert, cert.Key), 0o600))

	ctx, cancel := context.WithCancel(t.Context())
	var out, errs buffer
	done := make(chan int, 1) // 1: the exit code
	go func() {
		done <- cli.Main(ctx, "logproxy", "1.2.3", commands(telemetry.ReadBuild("1.2.3")),
			cli.Env{Stdout: &out, Stderr: &errs, Environ: []string{"LOGPROXY_LOG_FORMAT=json"}}, []string{"agent", "-config", file, "-data-dir", dir})
	}()
	fact := func(name string) (value string) {
		require.Eventually(t, func() bool {
			_, after, ok := strings.Cut(out.String(), name+": ")
			value, _, _ = strings.Cut(after, "\n")
			return ok || len(done) > 0
		}, time.Minute, 10*time.Millisecond)
		require.NotEmpty(t, value, errs.String())
		return value
	}
	require.Contains(t, fact("Listener"), "plaintext")
	admin := fact("Admin")
	got := logproxy(t, "wait", "-admin", admin, "-timeout", "0")
	require.Equal(t, 1, got.code, "there is no node")
	got = logproxy(t, "status", "-admin", admin)
	require.Equal(t, 0, got.code, got.stderr)
	require.Contains(t, got.stdout, "127.0.0.1:")

	res, err := http.Get("http://" + admin + "/metrics")
	require.NoError(t, err)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, res.Body.Close())
	http.DefaultClient.CloseIdleConnections()
	require.NoError(t, err)
	require.Contains(t, string(body), `logproxy_build_info{goversion="`)
	require.FileExists(t, filepath.Join(dir, "addrs.json"))

	cancel()
	require.Equal(t, 0, <-done, errs.String())
	require.True(t, strings.HasPrefix(out.String(), "==> logproxy agent running!\n"))
}

func TestAgentRefusesABadConfiguration(t *testing.T) {
	got := logproxy(t, "agent", "-listener-address", "0.0.0.0:8410")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "listener.address")
	require.Contains(t, got.stderr, "upstream.tls.ca_file")
	require.Contains(t, got.stderr, "gossip.key")
}
