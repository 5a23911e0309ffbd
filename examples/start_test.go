package examples_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/pkg/agent"
	"github.com/logd-io/logd/pkg/proxy"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

// process is what an example starts.
type process interface {
	Run(ctx context.Context) error
	Close() error
	AdminAddr() string
}

// TestEveryExampleStarts starts a process with each example as it is, but for the
// files and addresses, which the environment puts in a place of the test's own.
func TestEveryExampleStarts(t *testing.T) {
	for _, file := range configurations(t) {
		if !strings.HasPrefix(file, "hcl/") || filepath.Base(file) == "broken.hcl" {
			continue
		}
		t.Run(file, func(t *testing.T) {
			dir := t.TempDir()
			key := make([]byte, 32)
			_, _ = rand.Read(key) // never fails
			keyFile := filepath.Join(dir, "gossip.key")
			require.NoError(t, os.WriteFile(keyFile, []byte(base64.StdEncoding.EncodeToString(key)+"\n"), 0o600))
			start := startNode
			if strings.Contains(file, "proxy") {
				start = startProxy
			}
			p := start(t, file, dir, keyFile)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1) // 1: Run's result
			go func() { ended <- p.Run(ctx) }()

			want := "/healthz"
			if file == "hcl/node.hcl" {
				want = "/readyz" // it is a cluster of its own
			}
			require.Eventually(t, func() bool { return answers(t, p.AdminAddr(), want) }, time.Minute, 20*time.Millisecond)
			cancel()
			require.NoError(t, <-ended)
			require.NoError(t, p.Close())
		})
	}
}

func answers(t *testing.T, addr, path string) bool {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, nil)
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, res.Body) // only the code counts
	return res.Body.Close() == nil && res.StatusCode == http.StatusOK
}

// certificate is one of the cluster that the examples are of, in variables of the
// environment.
func certificate(t *testing.T, role tlsconf.Role, name string, prefixes ...string) (environ []string) {
	t.Helper()
	files := tlstest.NewCA(t, "example").Files(t, role, name)
	for _, prefix := range prefixes {
		environ = append(environ, prefix+"CA_FILE="+files.CA, prefix+"CERT_FILE="+files.Cert, prefix+"KEY_FILE="+files.Key)
	}
	return environ
}

func startNode(t *testing.T, file, dir, keyFile string) process {
	t.Helper()
	plain, err := config.LoadNode(config.From{Paths: []string{file}})
	require.NoError(t, err)
	conf, err := config.LoadNode(config.From{Paths: []string{file}, Environ: append(
		certificate(t, tlsconf.RoleStorage, plain.Name, "LOGD_TLS_"),
		"LOGD_DATA_DIR="+filepath.Join(dir, "data"), "LOGD_GOSSIP_KEY_FILE="+keyFile,
		"LOGD_BIND_ADDR=127.0.0.1", "LOGD_ADVERTISE_ADDR=127.0.0.1",
		"LOGD_PORTS_RPC=0", "LOGD_PORTS_GOSSIP=0", "LOGD_PORTS_ADMIN=0")})
	require.NoError(t, err)
	a, err := agent.Open(conf, agent.Deps{})
	require.NoError(t, err)
	return a
}

func startProxy(t *testing.T, file, dir, keyFile string) process {
	t.Helper()
	plain, err := config.LoadProxy(config.From{Paths: []string{file}})
	require.NoError(t, err)
	tls := []string{"LOGPROXY_UPSTREAM_TLS_"}
	if !plain.Listener.TLS.IsZero() {
		tls = append(tls, "LOGPROXY_LISTENER_TLS_")
	}
	environ := append(certificate(t, tlsconf.RoleProxy, plain.Name, tls...), "LOGPROXY_ADMIN_ADDRESS=127.0.0.1:0")
	listener := "127.0.0.1:0"
	if network, _ := plain.Listener.Network(); network == "unix" {
		listener = "unix://" + filepath.Join(dir, "proxy.sock")
	}
	environ = append(environ, "LOGPROXY_LISTENER_ADDRESS="+listener)
	if plain.UsesGossip() {
		environ = append(environ, "LOGPROXY_GOSSIP_ADDRESS=127.0.0.1:0", "LOGPROXY_GOSSIP_KEY_FILE="+keyFile)
	}
	conf, err := config.LoadProxy(config.From{Paths: []string{file}, Environ: environ})
	require.NoError(t, err)
	p, err := proxy.Open(conf, proxy.Deps{})
	require.NoError(t, err)
	return p
}
