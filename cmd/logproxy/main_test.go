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

	"github.com/logd-io/logd/config"
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
	return logproxyIn(t, nil, args...)
}

// logproxyIn is logproxy in an environment.
func logproxyIn(t *testing.T, environ []string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	env := cli.Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Environ: environ}
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
	require.Equal(t, result{0, "Configuration is valid!\n", ""}, logproxy(t, "validate", "-no-files", good))
	got := logproxy(t, "validate", "-no-files", good, bad)
	require.Equal(t, 1, got.code)
	for _, want := range []string{"plaintext is not served", `"port"`, "10 is not a duration", "bad.hcl line 3", "bad.hcl line 7"} {
		require.Contains(t, got.stderr, want)
	}
}

func TestValidateOpensWhatIsNamed(t *testing.T) {
	ca := tlstest.NewCA(t, "prod")
	own, node := ca.Files(t, tlsconf.RoleProxy, "p1"), ca.Files(t, tlsconf.RoleStorage, "n1")
	dir := t.TempDir()
	gossip, file := filepath.Join(dir, "gossip.key"), filepath.Join(dir, "p.hcl")
	require.NoError(t, os.WriteFile(gossip, []byte("NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ=\n"), 0o600))
	config := func(up, down tlsconf.Files) {
		const block = `  tls {
    ca_file   = %q
    cert_file = %q
    key_file  = %q
  }
`
		require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "upstream {\n"+block+"}\nlistener {\n"+block+`}
gossip {
  key_file   = %q
  retry_join = ["n1:8401"]
}`, up.CA, up.Cert, up.Key, down.CA, down.Cert, down.Key, gossip), 0o600))
	}
	config(own, own)
	require.Equal(t, result{0, "Configuration is valid!\n", ""}, logproxy(t, "validate", file))

	config(node, tlsconf.Files{CA: own.CA, Cert: own.Cert, Key: dir + "/none-key.pem"})
	require.NoError(t, os.WriteFile(gossip, []byte("NDQ0\n"), 0o600))
	require.Equal(t, result{0, "Configuration is valid!\n", ""}, logproxy(t, "validate", "-no-files", file))
	got := logproxy(t, "validate", file)
	require.Equal(t, 1, got.code)
	said := strings.Join(strings.Fields(got.stderr), " ") // it is wrapped
	for _, want := range []string{
		"Invalid upstream.tls.cert_file", "p.hcl line 4", "with role storage; role proxy is needed here",
		"Invalid listener.tls.key_file", "p.hcl line 12", dir + "/none-key.pem: read key file: no such file or directory",
		"Invalid gossip.key_file", "p.hcl line 16", gossip + ":",
	} {
		require.Contains(t, said, want)
	}
}

// The packaged proxy may write where it is to remember things.
func TestThePackageHasAPlaceToRemember(t *testing.T) {
	deploy := filepath.Join("..", "..", "deploy")
	conf, err := config.LoadProxy(config.From{Paths: []string{filepath.Join(deploy, "deb", "logproxy.hcl")}})
	require.NoError(t, err)
	unit, err := os.ReadFile(filepath.Join(deploy, "systemd", "logproxy.service"))
	require.NoError(t, err)
	require.Equal(t, "/var/lib/logproxy", conf.DataDir)
	require.Contains(t, string(unit), "\nStateDirectory=logproxy\n")
}

func TestValidateReadsTheEnvironment(t *testing.T) {
	shipped := filepath.Join("..", "..", "deploy", "nomad", "logproxy.hcl")
	environ := []string{"LOGPROXY_GOSSIP_RETRY_JOIN=10.0.0.1:8401"}
	require.Equal(t, 1, logproxy(t, "validate", "-no-files", shipped).code, "it leaves whom to join to the environment")
	require.Equal(t, result{0, "Configuration is valid!\n", ""}, logproxyIn(t, environ, "validate", "-no-files", shipped))
}

func TestAMistypedVariableIsWarnedAbout(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "p.hcl")
	require.NoError(t, os.WriteFile(file, []byte(`
upstream {
  tls {
    ca_file   = "`+dir+`/none"
    cert_file = "`+dir+`/none"
    key_file  = "`+dir+`/none"
  }
}
discovery "static" {
  nodes = ["n1:8400"]
}`), 0o600))
	environ := []string{"LOGPROXY_LOG_LEVEI=debug", "LOGPROXY_SERVICE_HOST=10.0.0.1"}
	const warning = "Warning: LOGPROXY_LOG_LEVEI in the environment is no setting. Did you mean LOGPROXY_LOG_LEVEL?\n"
	require.Equal(t, result{0, "Configuration is valid!\n", warning}, logproxyIn(t, environ, "validate", "-no-files", file))

	got := logproxyIn(t, environ, "agent", "-config", file) // without certificates it ends there
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "is no setting, and is ignored: variable=LOGPROXY_LOG_LEVEI did_you_mean=LOGPROXY_LOG_LEVEL")
	require.NotContains(t, got.stderr, "LOGPROXY_SERVICE_HOST")
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
	}
}

func TestStatus(t *testing.T) {
	at := func(n uint64) *uint64 { return &n }
	st := proxy.Status{
		ID: "p1", Version: "1.2.3", Ready: true, ClusterID: "c", Term: 7, LeaderID: "n1.00000001", Addrs: proxy.Addrs{Listener: "127.0.0.1:8410"},
		Nodes: []proxy.NodeStatus{
			{ID: "n1.00000001", Address: "10.0.0.1:8400", Connection: "READY", Leader: true, Ready: true, Watched: true, Visible: at(9), Lag: at(0), InFlight: 2},
			{ID: "n2.00000002", Address: "10.0.0.2:8400", Connection: "READY", Readable: true, Ready: true, Watched: true, Visible: at(8), Lag: at(1)},
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
	require.Contains(t, rows, []string{"n3.00000003", "-", "unused", "TRANSIENT_FAILURE", "-", "-", "0", "another", "cluster"})

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

	socket := filepath.Join(dir, "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	require.NoError(t, err)
	defer manager.Close()

	ctx, cancel := context.WithCancel(t.Context())
	var out, errs buffer
	done := make(chan int, 1) // 1: the exit code
	go func() {
		done <- cli.Main(ctx, "logproxy", "1.2.3", commands(telemetry.ReadBuild("1.2.3")),
			cli.Env{Stdout: &out, Stderr: &errs, Environ: []string{"LOGPROXY_LOG_FORMAT=json", "LOGPROXY_DRAIN_DELAY=20ms", "NOTIFY_SOCKET=" + socket}}, []string{"agent", "-config", file, "-data-dir", dir})
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

	require.Equal(t, result{0, "Reloaded; no setting has changed.\n", ""}, logproxy(t, "reload", "-admin", admin))
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, append(text, "\nlimits {\n  request_rate = 1000\n}\n"...), 0o600))
	require.Equal(t, result{0, "Reloaded; changed: limits.request_rate.\n", ""}, logproxy(t, "reload", "-admin", admin))
	require.NoError(t, os.WriteFile(file, append(text, "\nget_servers = \"cluster\"\n"...), 0o600))
	got = logproxy(t, "reload", "-admin", admin)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "nothing was changed: a restart is needed for get_servers")

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

	require.NoError(t, manager.SetReadDeadline(time.Now().Add(time.Minute)))
	var said string
	for buf := make([]byte, 4096); !strings.Contains(said, "STOPPING=1"); {
		n, err := manager.Read(buf)
		require.NoError(t, err)
		said = string(buf[:n])
	}
	require.Contains(t, said, "EXTEND_TIMEOUT_USEC=45020000", "drain_delay, drain_timeout and 15 s")
}

func TestAgentRefusesABadConfiguration(t *testing.T) {
	got := logproxy(t, "agent", "-listener-address", "0.0.0.0:8410")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "listener.address")
	require.Contains(t, got.stderr, "upstream.tls.ca_file")
	require.Contains(t, got.stderr, "gossip.key")
}
