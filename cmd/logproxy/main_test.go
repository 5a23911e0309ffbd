package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/pkg/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
  adress  = "x"
}
produce {
  hold_timeout = 10
}
`), 0o600))
	require.Equal(t, result{0, "Configuration is valid!\n", ""}, logproxy(t, "validate", good))
	got := logproxy(t, "validate", good, bad)
	require.Equal(t, 1, got.code)
	for _, want := range []string{"plaintext is not served", `"adress"`, "10 is not a duration", "bad.hcl line 3", "bad.hcl line 7"} {
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
