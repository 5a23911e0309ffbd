//go:build system

package e2e_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/harness"
)

// The containers of deploy/docker, as ./up starts them: the leader's is killed
// under load, nobody notices, nothing is lost, and a stop is an orderly end.
func TestSystemCompose(t *testing.T) {
	c := newCompose(t)
	c.run("./up")
	c.exec("gateway", "logproxy", "wait")

	conn := c.gateway()
	load := &harness.Load{Producers: 16}
	ctx, cancel := context.WithCancel(c.ctx)
	ended, tailed := make(chan struct{}), make(chan error, 1)
	var seen atomic.Uint64
	go func() { // joined below
		defer close(ended)
		load.Run(ctx, conn)
	}()
	go func() { // joined by the cleanup
		tailed <- harness.Tail(ctx, conn, 0, func(rec *logv1.Record) bool {
			seen.Store(rec.GetOffset() + 1)
			return true
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		t.Log("the tail ended:", <-tailed)
	})
	more := func(n uint64) {
		t.Helper()
		want := load.Acked() + n
		c.until(fmt.Sprintf("%d acknowledgements", want), func() error {
			if load.Failed() > 0 {
				return harness.Ended(load.Err())
			}
			if got := load.Acked(); got < want {
				return fmt.Errorf("%d acknowledged", got)
			}
			return nil
		})
	}

	more(300)
	leader := c.leader()
	c.docker("kill", "--signal", "KILL", c.container(leader))
	more(500)
	require.NotEqual(t, leader, c.leader())
	c.docker("start", c.container(leader))
	more(300)
	load.Stop()
	<-ended
	require.NoError(t, load.Err())
	require.Zero(t, load.Failed())

	recs, err := harness.ReadAll(c.ctx, conn)
	require.NoError(t, err)
	v, err := harness.Check(recs, load.Offsets())
	require.NoError(t, err)
	require.Equal(t, harness.Verdict{InLog: load.Acked()}, v)
	c.until("the tail", func() error {
		if at := seen.Load(); at < v.InLog {
			return fmt.Errorf("it has read %d of %d", at, v.InLog)
		}
		return nil
	})
	require.Empty(t, tailed, "the tail outlives the leader")

	var want bytes.Buffer
	for _, rec := range recs {
		fmt.Fprintf(&want, "%d\t%s\n", rec.GetOffset(), rec.GetValue())
	}
	for _, node := range composeNodes {
		got := c.tool("logd", "consume", "-address", node+":8400", "-from", "earliest",
			"-follow", "-n", fmt.Sprint(v.InLog), "-offsets")
		require.True(t, got == want.String(), "%s has another log than the gateway showed", node)
	}

	c.compose("stop")
	for _, service := range append([]string{"gateway"}, composeNodes...) {
		state := c.docker("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", c.container(service))
		require.Equal(t, "exited 0", state, "%s after SIGTERM", service)
	}
}

var composeNodes = []string{"node1", "node2", "node3"}

// compose is a project of docker-compose with a name, an image and a copy of
// deploy/docker of its own, so that it meets no other.
type compose struct {
	t       *testing.T
	ctx     context.Context
	dir     string // deploy/docker
	env     []string
	command []string // docker-compose
}

func newCompose(t *testing.T) *compose {
	t.Helper()
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("there is no docker here")
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 8*time.Minute, errors.New("the test took too long"))
	t.Cleanup(cancel)
	command := []string{"docker-compose"}
	if _, err := exec.LookPath(command[0]); err != nil {
		command = []string{"docker", "compose"}
	}

	// What the build of the image may see of a checkout.
	root := t.TempDir()
	const repo = "../.."
	require.NoError(t, os.CopyFS(filepath.Join(root, "deploy", "docker"), os.DirFS(filepath.Join(repo, "deploy", "docker"))))
	ignore, err := os.ReadFile(filepath.Join(repo, ".dockerignore"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(root, ".dockerignore"), ignore, 0o600))
	err = os.Remove(filepath.Join(root, "deploy", "docker", ".env")) // the project of whoever works here
	require.True(t, err == nil || errors.Is(err, os.ErrNotExist), err)
	build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(root, "bin")+string(filepath.Separator),
		"github.com/logd-io/logd/cmd/logd", "github.com/logd-io/logd/cmd/logproxy")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)

	var raw [4]byte
	_, err = rand.Read(raw[:])
	require.NoError(t, err)
	project := "logd-test-" + hex.EncodeToString(raw[:])
	c := &compose{
		t: t, ctx: ctx, dir: filepath.Join(root, "deploy", "docker"), command: command,
		env: append(os.Environ(),
			"COMPOSE="+strings.Join(command, " "),
			"COMPOSE_PROJECT_NAME="+project,
			"LOGD_IMAGE="+project+":test",
			"LOGD_GATEWAY_PORT=", "LOGD_GATEWAY_ADMIN_PORT=",
			"MAKE=true", // the binaries are there
		),
	}
	t.Cleanup(func() { c.remove(project) })
	return c
}

// remove takes away all that the project made, and fails when something is left.
func (c *compose) remove(project string) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute) // the test's own has ended
	defer cancel()
	c.ctx = ctx
	c.env = append(c.env, "LOGD_GOSSIP_KEY=none") // ./up may have failed before it made one
	if c.t.Failed() {
		c.t.Logf("the end of the logs:\n%s", c.compose("logs", "--no-color", "--tail", "60"))
	}
	c.compose("down", "--volumes", "--remove-orphans", "--timeout", "1")
	image := project + ":test"
	if c.docker("images", "--quiet", image) != "" {
		c.docker("rmi", "--force", image)
	}
	label := "label=com.docker.compose.project=" + project
	require.Empty(c.t, c.docker("ps", "--all", "--quiet", "--filter", label), "containers are left")
	require.Empty(c.t, c.docker("network", "ls", "--quiet", "--filter", label), "networks are left")
	require.Empty(c.t, c.docker("volume", "ls", "--quiet", "--filter", label), "volumes are left")
	require.Empty(c.t, c.docker("images", "--quiet", image), "the image is left")
}

// run answers what the command wrote to its output; it must succeed.
func (c *compose) run(argv ...string) string {
	c.t.Helper()
	cmd := exec.CommandContext(c.ctx, argv[0], argv[1:]...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stderr = c.dir, c.env, &stderr
	out, err := cmd.Output()
	require.NoError(c.t, err, "%s\n%s%s", strings.Join(argv, " "), out, stderr.Bytes())
	return string(out)
}

func (c *compose) docker(args ...string) string {
	c.t.Helper()
	return strings.TrimSpace(c.run(append([]string{"docker"}, args...)...))
}

func (c *compose) compose(args ...string) string {
	c.t.Helper()
	return c.run(append(append([]string(nil), c.command...), args...)...)
}

// tool runs a command of ours in a container of its own, with a client's
// certificate.
func (c *compose) tool(argv ...string) string {
	c.t.Helper()
	return c.compose(append([]string{"run", "--rm", "-T", "tool"}, argv...)...)
}

// exec runs a command of ours in a service's container.
func (c *compose) exec(service string, argv ...string) string {
	c.t.Helper()
	return c.docker(append([]string{"exec", c.container(service)}, argv...)...)
}

func (c *compose) container(service string) string {
	c.t.Helper()
	id := strings.TrimSpace(c.compose("ps", "--all", "--quiet", service))
	require.NotEmpty(c.t, id, service)
	return id
}

// gateway is a connection as any program with a certificate makes one.
func (c *compose) gateway() *grpc.ClientConn {
	c.t.Helper()
	dir := c.t.TempDir()
	file := func(name string) string {
		c.docker("cp", c.container("gateway")+":/etc/logd/tls/"+name, dir)
		return filepath.Join(dir, name)
	}
	ca, err := os.ReadFile(file("ca.pem"))
	require.NoError(c.t, err)
	roots := x509.NewCertPool()
	require.True(c.t, roots.AppendCertsFromPEM(ca))
	cert, err := tls.LoadX509KeyPair(file("you.pem"), file("you-key.pem"))
	require.NoError(c.t, err)
	conn, err := grpc.NewClient(c.docker("port", c.container("gateway"), "8410/tcp"),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}})))
	require.NoError(c.t, err)
	c.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// leader is the service that leads, as the gateway sees it.
func (c *compose) leader() string {
	c.t.Helper()
	var st struct {
		LeaderID string `json:"leader_id"`
	}
	require.NoError(c.t, json.Unmarshal([]byte(c.exec("gateway", "logproxy", "status", "-format", "json")), &st))
	name, _, ok := strings.Cut(st.LeaderID, ".")
	require.True(c.t, ok, "leader %q", st.LeaderID)
	return name
}

func (c *compose) until(what string, ok func() error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeoutCause(c.ctx, patience, fmt.Errorf("waited %s for: %s", patience, what))
	defer cancel()
	require.NoError(c.t, harness.Until(ctx, ok))
}
