package main

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/pkg/telemetry"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

func TestMain(m *testing.M) {
	// A probe of memberlist's outlives its Shutdown by as long as it waits for an answer.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

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

func logd(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	return logdIn(t, nil, stdin, args...)
}

// logdIn is logd in an environment.
func logdIn(t *testing.T, environ []string, stdin string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	env := cli.Env{Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs, Environ: environ}
	code := cli.Main(t.Context(), "logd", "1.2.3", commands(telemetry.ReadBuild("1.2.3")), env, args)
	return result{code, out.String(), errs.String()}
}

func serve(t *testing.T, register func(*grpc.Server), opts ...grpc.ServerOption) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := grpc.NewServer(opts...)
	register(srv)
	done := make(chan error, 1) // 1: Serve's result
	go func() { done <- srv.Serve(lis) }()
	t.Cleanup(func() {
		srv.Stop()
		require.NoError(t, <-done)
	})
	return lis.Addr().String()
}

func TestNobodyThere(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, lis.Close())
	for _, command := range []string{"produce", "consume", "servers"} {
		got := logd(t, "x\n", command, "-address", lis.Addr().String())
		require.Equal(t, 1, got.code, command)
		require.Contains(t, got.stderr, lis.Addr().String())
		require.Contains(t, got.stderr, "is it running")
	}
}

func TestCertificatesAndKey(t *testing.T) {
	dir := t.TempDir()
	ca, caKey := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca-key.pem")
	got := logd(t, "", "tls", "ca", "create", "-cluster", "prod", "-out", dir)
	require.Equal(t, 0, got.code, got.stderr)
	require.Contains(t, got.stdout, ca)
	got = logd(t, "", "tls", "ca", "create", "-cluster", "prod", "-out", dir, "-force", "-format", "json")
	require.JSONEq(t, `{"cert_file": "`+ca+`", "key_file": "`+caKey+`"}`, got.stdout, got.stderr)

	create := []string{"tls", "cert", "create", "-ca", ca, "-ca-key", caKey, "-out", dir}
	got = logd(t, "", append(create, "-role", "storage", "-name", "n1", "-dns", "n1.example", "-ip", "10.0.0.1")...)
	require.Equal(t, 0, got.code, got.stderr)
	source, err := tlsconf.Load(tlsconf.Files{CA: ca, Cert: filepath.Join(dir, "n1.pem"), Key: filepath.Join(dir, "n1-key.pem")})
	require.NoError(t, err)
	require.Equal(t, "spiffe://prod/storage/n1", source.Identity().String())

	got = logd(t, "", append(create, "-role", "storage", "-name", "n1")...)
	require.Equal(t, 1, got.code, "existing files are kept")
	require.Contains(t, got.stderr, "n1.pem")
	require.Equal(t, 0, logd(t, "", append(create, "-role", "proxy", "-name", "n1", "-force")...).code)

	for _, args := range [][]string{
		{"-role", "king", "-name", "n1"}, {"-name", "n1"}, {"-role", "proxy"},
		{"-role", "proxy", "-name", "../n1"}, {"-role", "proxy", "-name", "p", "-ip", "x"}, {"-role", "proxy", "-name", "p", "-days", "0"},
	} {
		require.Equal(t, 2, logd(t, "", append(create, args...)...).code, "%v", args)
	}
	require.Equal(t, 2, logd(t, "", "tls", "ca", "create").code)

	one, two := logd(t, "", "keygen"), logd(t, "", "keygen")
	require.NotEqual(t, one.stdout, two.stdout)
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(one.stdout))
	require.NoError(t, err)
	require.Len(t, key, config.GossipKeyLen)
}

func TestValidate(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.hcl"), filepath.Join(dir, "bad.hcl")
	key := strings.TrimSpace(logd(t, "", "keygen").stdout)
	require.NoError(t, os.WriteFile(good, []byte(`
data_dir = "/data"
bootstrap_expect = 3
gossip_key = "`+key+`"
tls {
  ca_file = "a"
  cert_file = "b"
  key_file = "c"
}`), 0o600))
	require.NoError(t, os.WriteFile(bad, []byte("bogus = 1\ndrain_timeout = \"soon\"\nports {\n  rpc = 99999\n}\n"), 0o600))

	require.Equal(t, result{0, "Configuration is valid!\n", ""}, logd(t, "", "validate", "-no-files", good))
	got := logd(t, "", "validate", "-no-files", good, bad)
	require.Equal(t, 1, got.code)
	require.Empty(t, got.stdout)
	for _, want := range []string{"bad.hcl line 1", `"bogus"`, "bad.hcl line 2", `"soon" is not a duration`, "bad.hcl line 4", "99999 is out of range"} {
		require.Contains(t, got.stderr, want)
	}
	got = logd(t, "", "validate", "-no-files", "-format", "json", good)
	require.Equal(t, 0, got.code)
	require.JSONEq(t, `{"valid": true, "problems": [], "warnings": []}`, got.stdout)
	got = logdIn(t, []string{"LOGD_DATA_DIRS=/data", "LOGD_BOOTSTRAP_EXPECT=100"}, "", "validate", "-format", "json", good, bad)
	require.Equal(t, 1, got.code)
	require.Empty(t, got.stderr)
	require.JSONEq(t, `{"valid": false, "problems": [
		{"file": "`+bad+`", "line": 1, "message": "Unsupported argument: An argument named \"bogus\" is not expected here"},
		{"file": "`+bad+`", "line": 2, "setting": "drain_timeout", "message": "\"soon\" is not a duration: write a number and a unit, like \"300ms\", \"10s\" or \"1h\""},
		{"file": "`+bad+`", "line": 4, "setting": "ports.rpc", "message": "99999 is out of range: 0 to 65535"},
		{"setting": "bootstrap_expect", "message": "100 is out of range: 0 to 99 (environment LOGD_BOOTSTRAP_EXPECT)"}
	], "warnings": ["LOGD_DATA_DIRS in the environment is no setting. Did you mean LOGD_DATA_DIR?"]}`, got.stdout)
	require.Equal(t, 2, logd(t, "", "validate").code)
	for _, none := range []string{filepath.Join(dir, "none.hcl"), t.TempDir()} {
		got = logd(t, "", "validate", none)
		require.Equal(t, 1, got.code)
		require.Equal(t, 1, strings.Count(got.stderr, "Error:"), got.stderr)
		require.Contains(t, got.stderr, "Cannot read "+none)
	}
	acl := filepath.Join(dir, "acl.hcl")
	require.NoError(t, os.WriteFile(acl, []byte("acl {\n}\n"), 0o600))
	got = logd(t, "", "validate", good, acl)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "acl.policy")
}

// Whatever a node would end for at its start is told before, at once, and where it is said.
func TestValidateOpensWhatIsNamed(t *testing.T) {
	ca := tlstest.NewCA(t, "prod")
	own, client, others := ca.Files(t, tlsconf.RoleStorage, "n1"), ca.Files(t, tlsconf.RoleClient, "alice"), tlstest.NewCA(t, "prod").Files(t, tlsconf.RoleStorage, "n1")
	old := ca.Sign(t, &x509.Certificate{
		URIs:      []*url.URL{{Scheme: "spiffe", Host: "prod", Path: "/storage/n1"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(-time.Minute),
	})
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), mode))
		require.NoError(t, os.Chmod(path, mode))
		return path
	}
	gossip := write("gossip.key", logd(t, "", "keygen").stdout, 0o600)
	policy := write("policy.csv", "p, root, *, produce\n", 0o600)
	config := func(files tlsconf.Files, more string) string {
		return write("n.hcl", fmt.Sprintf(`data_dir = "/data"
bootstrap_expect = 3
gossip_key_file = %q
tls {
  ca_file = %q
  cert_file = %q
  key_file = %q
}
acl {
  policy = %q
}
`, gossip, files.CA, files.Cert, files.Key, policy)+more, 0o600)
	}
	valid := result{0, "Configuration is valid!\n", ""}
	require.Equal(t, valid, logd(t, "", "validate", config(own, "")))
	for what, c := range map[string]struct {
		files tlsconf.Files
		more  string
		want  []string
	}{
		"no such files": {tlsconf.Files{CA: own.CA, Cert: dir + "/none.pem", Key: dir + "/none-key.pem"}, "", []string{
			"Invalid tls.cert_file", "n.hcl line 6", dir + "/none.pem: read certificate file: no such file or directory; put it there, or change the setting",
			"Invalid tls.key_file", "n.hcl line 7", dir + "/none-key.pem: read key file: no such file or directory",
		}},
		"another's key":      {tlsconf.Files{CA: own.CA, Cert: own.Cert, Key: client.Key}, "", []string{"Invalid tls.cert_file", "with key file " + client.Key + ": tls: private key does not match public key"}},
		"no certificate":     {tlsconf.Files{CA: policy, Cert: own.Cert, Key: own.Key}, "", []string{"Invalid tls.ca_file", "n.hcl line 5", policy + ": holds no CA certificate"}},
		"another CA":         {tlsconf.Files{CA: own.CA, Cert: others.Cert, Key: others.Key}, "", []string{"Invalid tls.cert_file", "against CA file " + own.CA, "signed by unknown authority"}},
		"another role":       {client, "", []string{"Invalid tls.cert_file", "is the certificate of alice, with role client; role storage is needed here (logd tls cert create -role storage)"}},
		"expired":            {old, "", []string{"Invalid tls.cert_file", "has expired", "make another (logd tls cert create)"}},
		"names it has not":   {own, "name = \"n2\"\ncluster = \"test\"", []string{"Invalid name", "n.hcl line 12", `is the certificate of "n1"`, "Invalid cluster", "n.hcl line 13", `of cluster "prod"`}},
		"an acl with typos":  {own, "", []string{"Invalid acl.policy", "n.hcl line 10", policy + `:2: action "comsume": one of produce, consume, admin, join, impersonate`}},
		"an open gossip key": {own, "", []string{"Invalid gossip_key_file", "n.hcl line 3", gossip + " has mode -rw-rw-rw-"}},
	} {
		t.Run(what, func(t *testing.T) {
			switch what {
			case "an acl with typos":
				write("policy.csv", "p, root, *, produce\np, root, *, comsume\n", 0o600)
				defer write("policy.csv", "p, root, *, produce\n", 0o600)
			case "an open gossip key":
				require.NoError(t, os.Chmod(gossip, 0o666))
				defer func() { require.NoError(t, os.Chmod(gossip, 0o600)) }()
			}
			file := config(c.files, c.more)
			got := logd(t, "", "validate", file)
			require.Equal(t, 1, got.code)
			said := strings.Join(strings.Fields(got.stderr), " ") // it is wrapped
			for _, want := range c.want {
				require.Contains(t, said, want)
			}
			require.Equal(t, valid, logd(t, "", "validate", "-no-files", file))
		})
	}

	// Everything at once, for a program too.
	require.NoError(t, os.Remove(policy))
	require.NoError(t, os.Remove(gossip))
	file := config(tlsconf.Files{CA: dir + "/ca.pem", Cert: own.Cert, Key: client.Key}, "")
	got := logd(t, "", "validate", "-format", "json", file)
	require.Equal(t, 1, got.code)
	var verdict struct {
		Problems []struct {
			File, Setting string
			Line          int
		}
	}
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &verdict))
	var at []string
	for _, p := range verdict.Problems {
		require.Equal(t, file, p.File)
		at = append(at, fmt.Sprintf("%d %s", p.Line, p.Setting))
	}
	require.Equal(t, []string{"5 tls.ca_file", "6 tls.cert_file", "3 gossip_key_file", "10 acl.policy"}, at)
}

func TestValidateReadsTheEnvironment(t *testing.T) {
	shipped := filepath.Join("..", "..", "deploy", "k8s", "base", "logd.hcl")
	environ := []string{"LOGD_TLS_CERT_FILE=/tls/n.pem", "LOGD_TLS_KEY_FILE=/tls/n-key.pem"}
	require.Equal(t, 1, logd(t, "", "validate", "-no-files", shipped).code, "it leaves the certificate to the environment")
	require.Equal(t, result{0, "Configuration is valid!\n", ""}, logdIn(t, environ, "", "validate", "-no-files", shipped))
	got := logdIn(t, append(environ, "LOGD_DRAIN_TIMEOUT=soon"), "", "validate", shipped)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "LOGD_DRAIN_TIMEOUT).")
}

func TestAMistypedVariableIsWarnedAbout(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "n.hcl")
	require.NoError(t, os.WriteFile(file, []byte(`
data_dir = "`+dir+`/data"
bootstrap_expect = 1
gossip_key_file = "`+dir+`/none"
tls {
  ca_file = "`+dir+`/none"
  cert_file = "`+dir+`/none"
  key_file = "`+dir+`/none"
}`), 0o600))
	environ := []string{"LOGD_LOG_LEVEI=debug", "LOGD_SERVICE_HOST=10.0.0.1"}
	const warning = "Warning: LOGD_LOG_LEVEI in the environment is no setting. Did you mean LOGD_LOG_LEVEL?\n"
	require.Equal(t, result{0, "Configuration is valid!\n", warning}, logdIn(t, environ, "", "validate", "-no-files", file))

	got := logdIn(t, environ, "", "agent", "-config", file) // without certificates it ends there
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "[WARN]  logd: a variable in the environment is no setting, and is ignored: variable=LOGD_LOG_LEVEI did_you_mean=LOGD_LOG_LEVEL")
	require.NotContains(t, got.stderr, "LOGD_SERVICE_HOST")
	got = logdIn(t, []string{"LOGD_DATA_DIRS=/data"}, "", "agent")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "Warning: LOGD_DATA_DIRS in the environment is no setting. Did you mean LOGD_DATA_DIR?\n")
}

func TestVersion(t *testing.T) {
	require.True(t, strings.HasPrefix(logd(t, "", "version").stdout, "logd 1.2.3"))
	require.Contains(t, logd(t, "", "version", "-format", "json").stdout, `"version": "1.2.3"`)
}

// Every command explains itself.
func TestHelp(t *testing.T) {
	for _, c := range commands(telemetry.Build{}) {
		for _, flag := range []string{"-h", "--help"} {
			got := logd(t, "", append(strings.Fields(c.Name), flag)...)
			require.Equal(t, 0, got.code, c.Name)
			require.Contains(t, got.stdout, "Usage: logd "+c.Name)
			require.Empty(t, got.stderr)
		}
	}
}
