package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/internal/cli/clitest"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/telemetry"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

// patience is for a machine that hangs; nothing here takes nearly as long.
const patience = 2 * time.Minute

var gossipKey = base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))

// node writes the configuration of a node that is a cluster of its own.
func node(t *testing.T, role tlsconf.Role) (file, dir string) {
	t.Helper()
	cert := tlstest.NewCA(t, "test").Files(t, role, "n1")
	dir = t.TempDir()
	file = filepath.Join(t.TempDir(), "n.hcl")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `
data_dir         = %q
bind_addr        = "127.0.0.1"
bootstrap_expect = 1
gossip_key       = %q
ports {
  rpc    = 0
  gossip = 0
  admin  = 0
}
tls {
  ca_file   = %q
  cert_file = %q
  key_file  = %q
}`, dir, gossipKey, cert.CA, cert.Cert, cert.Key), 0o600))
	return file, dir
}

func TestAgent(t *testing.T) {
	file, dir := node(t, tlsconf.RoleStorage)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, errs buffer
	done := make(chan int, 1) // 1: the exit code
	go func() {
		done <- cli.Main(ctx, "logd", "1.2.3", commands(telemetry.ReadBuild("1.2.3")),
			cli.Env{Stdout: &out, Stderr: &errs, Environ: []string{"LOGD_LOG_FORMAT=json"}}, []string{"agent", "-config", file})
	}()
	fact := func(name string) string {
		_, after, _ := strings.Cut(out.String(), name+": ")
		value, _, _ := strings.Cut(after, "\n")
		return value
	}
	require.Eventually(t, func() bool { return fact("Log level") != "" || len(done) > 0 }, patience, 10*time.Millisecond)
	require.True(t, strings.HasPrefix(out.String(), "==> logd agent running!\n"), errs.String())
	require.True(t, strings.HasPrefix(fact("Node ID"), "n1."))

	a, err := cli.NewAdmin(fact("Admin"))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return a.Ready(ctx) == nil }, patience, 10*time.Millisecond)
	require.Equal(t, result{}, logdIn(t, []string{"LOGD_ADMIN_ADDR=" + fact("Admin")}, "", "wait", "-timeout", "0"))
	got := logd(t, "", "members", "-admin", fact("Admin"))
	require.Equal(t, 0, got.code, got.stderr)
	require.Contains(t, got.stdout, fact("Node ID"))

	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, append(text, "\nlimits {\n  request_rate = 1000\n}\n"...), 0o600))
	require.Equal(t, result{0, "Reloaded; changed: limits.request_rate.\n", ""}, logd(t, "", "reload", "-admin", fact("Admin")))
	require.NoError(t, os.WriteFile(file, append(text, "\nlimits {\n"...), 0o600))
	got = logd(t, "", "reload", "-admin", fact("Admin"))
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "nothing was changed: ")
	require.NoError(t, os.WriteFile(file, text, 0o600))

	archive := filepath.Join(t.TempDir(), "debug.tar.gz")
	got = logd(t, "", "debug", "-admin", fact("Admin"), "-for", "1500ms", "-o", archive)
	require.Equal(t, 0, got.code, got.stderr)
	for _, name := range []string{"cpu.pprof", "heap.pprof", "goroutines.txt"} {
		require.Contains(t, got.stdout, "missing: "+name+": it is not served without admin { pprof = true }")
	}
	require.Equal(t, 3, strings.Count(got.stdout, "missing: "), got.stdout)
	said := clitest.Archive(t, archive)
	require.Equal(t, "ready\n", said["readyz.txt"])
	require.Contains(t, said["events.jsonl"], `"kind":"status","data":{"id":"`+fact("Node ID"))
	require.Contains(t, said["metrics-0s.prom"], "logd_build_info")
	require.Contains(t, said, "log.txt")
	for name, text := range said {
		require.NotContains(t, text, gossipKey, name)
		require.NotContains(t, text, "PRIVATE KEY", name)
	}

	got = logd(t, "", "agent", "-config", file)
	require.Equal(t, 1, got.code, "the data directory is in use")
	require.Contains(t, got.stderr, dir)

	// Its log, at a level that its own does not show, up to the end of a drain.
	var seen buffer
	watched := make(chan int, 1) // 1: the exit code
	go func() {
		watched <- cli.Main(t.Context(), "logd", "1.2.3", commands(telemetry.ReadBuild("1.2.3")),
			cli.Env{Stdout: &seen, Stderr: &errs}, []string{"monitor", "-admin", fact("Admin"), "-log-level", "debug", "-log-format", "text"})
	}()
	rpc, _, _ := strings.Cut(fact("RPC"), " ")
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", rpc) // which speaks no TLS
		if err == nil {
			_, err = conn.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
			err = errors.Join(err, conn.Close())
		}
		return strings.Contains(seen.String(), "[DEBUG] logd.server: connection refused") || len(watched) > 0 || err != nil
	}, patience, 10*time.Millisecond)
	require.NotContains(t, errs.String(), `"@level":"debug"`)
	cancel()
	require.Equal(t, 0, <-done, errs.String())
	require.Equal(t, 0, <-watched, errs.String())
	require.Contains(t, seen.String(), "draining: node="+fact("Node ID"))
	require.NotContains(t, seen.String(), "\n\n")
	got = logd(t, "", "monitor", "-admin", fact("Admin"))
	require.Equal(t, 1, got.code, "nobody is there")
}

func TestAgentRefuses(t *testing.T) {
	got := logd(t, "", "agent", "-ports-rpc", "70000", "-bootstrap-expect", "x")
	require.Equal(t, 1, got.code)
	for _, want := range []string{"ports.rpc", "bootstrap_expect", "data_dir", "tls.ca_file"} {
		require.Contains(t, got.stderr, want)
	}
	file, _ := node(t, tlsconf.RoleClient)
	got = logd(t, "", "agent", "-config", file)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "role client")
}

func TestFatalFaultsAreTold(t *testing.T) {
	fault := &replica.FatalError{Err: errors.New("fsync failed")}
	var fatal *cli.FatalError
	require.ErrorAs(t, fatalOr(fmt.Errorf("replica: %w", fault)), &fatal)
	plain := errors.New("port in use")
	require.Equal(t, plain, fatalOr(plain))
}
