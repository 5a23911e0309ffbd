//go:build system

package e2e_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/harness"
)

// The containers of deploy/docker, as docs/ops/docker.md has them started, with a
// naive client that makes load all the time. Networks are cut, containers killed, alone
// and all at once, everything is restarted; and then each record is counted.
func TestSystemCompose(t *testing.T) {
	c := newCompose(t)
	c.document("docker")
	c.image()
	c.confinement()
	c.healthy()
	c.moves(300)

	// The port that is published says how the gateway is, and no more: docs/ops/docker.md has it.
	c.answers("/readyz", http.StatusOK)
	c.answers("/metrics", http.StatusOK)
	c.answers("/", http.StatusForbidden)
	c.answers("/api/status", http.StatusForbidden)

	// The gateway is there for others too: for who has a certificate.
	_, err := logv1.NewLogClient(c.gateway()).GetOffsets(c.ctx, &logv1.GetOffsetsRequest{})
	require.NoError(t, err)

	leader := c.leader()
	c.docker("network", "disconnect", c.project+"_cluster", c.container(leader))
	c.moves(300)
	c.leads(leader, false)
	c.docker("network", "connect", "--alias", leader, c.project+"_cluster", c.container(leader))
	c.healthy()

	leader = c.leader()
	c.docker("kill", "--signal", "KILL", c.container(leader))
	c.moves(300)
	c.leads(leader, false)
	c.docker("start", c.container(leader))
	c.healthy()

	// Now the client notices: it has to repeat what was under way.
	c.docker("kill", "--signal", "KILL", c.container("gateway"))
	c.docker("start", c.container("gateway"))
	c.moves(300)

	all := []string{"kill", "--signal", "KILL"}
	for _, node := range composeNodes {
		all = append(all, c.container(node))
	}
	c.docker(all...)
	c.docker(append([]string{"start"}, all[3:]...)...)
	c.moves(300)
	c.document("docker trouble")
	c.moves(300)
	c.docker(append([]string{"restart", "--time", "45", c.container("gateway")}, all[3:]...)...)
	c.healthy()
	c.moves(300)

	// The client says what it counted, and fails if that is not what it did.
	c.docker("stop", "--time", "45", c.container("demo"))
	require.Equal(t, "exited 0", c.docker("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", c.container("demo")), c.demo())
	last := regexp.MustCompile(`^acked (\d+)  read (\d+)  .*  lost 0  twice 0  out of turn 0$`).FindStringSubmatch(c.demo())
	require.NotNil(t, last, c.demo())
	acked, err := strconv.Atoi(last[1])
	require.NoError(t, err)
	require.Equal(t, last[1], last[2])
	t.Log(c.demo())

	// So do we, on every node.
	var want string
	for _, node := range composeNodes {
		got := c.operator("logd", "consume", "-address", node+":8400", "-offsets")
		if want == "" {
			want = got
			require.Equal(t, acked, countDemo(t, got))
		}
		require.True(t, got == want, "%s has another log than %s", node, composeNodes[0])
	}

	c.docker(append([]string{"stop", "--time", "45", c.container("gateway")}, all[3:]...)...)
	for _, service := range append([]string{"gateway"}, composeNodes...) {
		state := c.docker("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", c.container(service))
		require.Equal(t, "exited 0", state, "%s after SIGTERM", service)
	}
}

// countDemo counts the records of the demo's client, each of which must be there
// once, in the order of its producer, in a log without holes.
func countDemo(t *testing.T, lines string) (n int) {
	t.Helper()
	next := make(map[string]int) // by run and producer
	for at, line := range strings.Split(strings.TrimSuffix(lines, "\n"), "\n") {
		offset, value, ok := strings.Cut(line, "\t")
		require.True(t, ok, line)
		require.Equal(t, strconv.Itoa(at), offset)
		if value == "hello" { // the document's
			continue
		}
		i := strings.LastIndexByte(value, ' ')
		require.Positive(t, i, line)
		require.Equal(t, strconv.Itoa(next[value[:i]]), value[i+1:], line)
		next[value[:i]]++
		n++
	}
	return n
}

var composeNodes = []string{"node1", "node2", "node3"}

// image looks into the image: it is our programs and nothing else.
func (c *compose) image() {
	c.t.Helper()
	var config struct {
		User   string
		Env    []string
		Labels map[string]string
	}
	require.NoError(c.t, json.Unmarshal([]byte(c.docker("inspect", "--format", "{{json .Config}}", c.project+":test")), &config))
	require.Equal(c.t, "65532:65532", config.User)
	require.Equal(c.t, []string{"PATH=/usr/local/bin"}, config.Env)
	for _, label := range []string{"title", "description", "source", "licenses", "version", "revision"} {
		require.NotEmpty(c.t, config.Labels["org.opencontainers.image."+label], label)
	}
	key, err := os.ReadFile(filepath.Join(c.dir, "secrets", "gossip.key"))
	require.NoError(c.t, err)
	history := c.docker("history", "--no-trunc", c.project+":test")
	require.NotContains(c.t, history, strings.TrimSpace(string(key)))
	require.NotContains(c.t, history, "PRIVATE")

	id := c.docker("create", c.project+":test")
	defer c.docker("rm", id)
	owners := make(map[string]int)
	// What docker itself puts there for a container is empty.
	c.untar([]string{"docker", "export", id}, func(h *tar.Header, content []byte) {
		if h.Size > 0 || strings.HasPrefix(h.Name, "var/lib/logd") || strings.HasPrefix(h.Name, "etc/logd") {
			owners[strings.TrimSuffix(h.Name, "/")] = h.Uid
		}
		if !strings.HasPrefix(h.Name, "usr/local/bin/") || h.Size == 0 {
			return
		}
		program, err := elf.NewFile(bytes.NewReader(content))
		require.NoError(c.t, err)
		for _, p := range program.Progs {
			require.NotEqual(c.t, elf.PT_INTERP, p.Type, "%s is not static", h.Name)
		}
	})
	require.Equal(c.t, map[string]int{
		"usr/local/bin/logd": 0, "usr/local/bin/logproxy": 0,
		"etc/logd": 0, "etc/logd/tls": 65532, "etc/logd/tls/README": 65532,
		"var/lib/logd": 65532, "var/lib/logd/README": 65532,
	}, owners)
}

// untar reads the archive that a command writes.
func (c *compose) untar(argv []string, f func(h *tar.Header, content []byte)) {
	c.t.Helper()
	r := tar.NewReader(strings.NewReader(c.run(argv...)))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(c.t, err)
		content, err := io.ReadAll(r)
		require.NoError(c.t, err)
		f(h, content)
	}
}

// confinement is what containers may do, as the kernel has it where it can be asked,
// and what they are told.
func (c *compose) confinement() {
	c.t.Helper()
	secrets := map[string][]string{
		"node1": {"ca.pem", "gossip.key", "node-key.pem", "node.pem"}, "gateway": {"ca.pem", "gateway-key.pem", "gateway.pem", "gossip.key"},
		"demo": {"ca.pem", "client-key.pem", "client.pem"},
	}
	networks := map[string][]string{"gateway": {"clients", "cluster"}, "demo": {"clients"}}
	for _, service := range append([]string{"gateway", "demo"}, composeNodes...) {
		var box struct {
			State      struct{ Pid int }
			Config     struct{ Env []string }
			HostConfig struct {
				ReadonlyRootfs, Privileged bool
				CapDrop, SecurityOpt       []string
			}
			NetworkSettings struct{ Networks map[string]any }
		}
		require.NoError(c.t, json.Unmarshal([]byte(c.docker("inspect", "--format", "{{json .}}", c.container(service))), &box))
		require.True(c.t, box.HostConfig.ReadonlyRootfs, service)
		require.Equal(c.t, []string{"ALL"}, box.HostConfig.CapDrop, service)
		require.Contains(c.t, box.HostConfig.SecurityOpt, "no-new-privileges:true", service)
		for _, env := range box.Config.Env {
			require.NotContains(c.t, env, "GOSSIP_KEY=", service)
		}
		var in []string
		for name := range box.NetworkSettings.Networks {
			in = append(in, strings.TrimPrefix(name, c.project+"_"))
		}
		slices.Sort(in)
		if want := networks[service]; want != nil {
			require.Equal(c.t, want, in, service)
		} else {
			require.Equal(c.t, []string{"cluster"}, in, service)
		}
		if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", box.State.Pid)); err == nil && os.Getenv("DOCKER_HOST") == "" {
			require.Regexp(c.t, `(?s)\nUid:\s65532\s65532\s65532\s65532\n.*\nCapPrm:\s0+\nCapEff:\s0+\nCapBnd:\s0+\n.*\nNoNewPrivs:\s1\n`, string(status), service)
		}
		if want := secrets[service]; want != nil {
			var has []string
			c.untar([]string{"docker", "cp", c.container(service) + ":/etc/logd/tls/.", "-"}, func(h *tar.Header, _ []byte) {
				if name := filepath.Base(h.Name); h.Typeflag == tar.TypeReg && name != "README" {
					require.Equal(c.t, 65532, h.Uid, name)
					has = append(has, name)
				}
			})
			slices.Sort(has)
			require.Equal(c.t, want, has, service)
		}
	}
	require.Equal(c.t, "true", c.docker("network", "inspect", "--format", "{{.Internal}}", c.project+"_cluster"))
}

// demo is the last count that the demo's client wrote, "" before the first.
func (c *compose) demo() (count string) {
	c.t.Helper()
	for line := range strings.SplitSeq(c.docker("logs", "--tail", "50", c.container("demo")), "\n") {
		if strings.HasPrefix(line, "acked ") {
			count = line
		}
	}
	return count
}

// moves waits until n more records are acknowledged, and read.
func (c *compose) moves(n int) {
	c.t.Helper()
	count := regexp.MustCompile(`(?m)^acked (\d+)  read (\d+)  `)
	read := func() int {
		m := count.FindStringSubmatch(c.demo())
		if m == nil {
			return 0
		}
		acked, _ := strconv.Atoi(m[1])
		read, _ := strconv.Atoi(m[2])
		return min(acked, read)
	}
	want := read() + n
	c.until(fmt.Sprintf("the client to be at %d", want), func() error {
		if at := read(); at < want {
			return fmt.Errorf("it is at %d", at)
		}
		return nil
	})
}

// healthy waits until docker finds every container so.
func (c *compose) healthy() {
	c.t.Helper()
	for _, service := range append([]string{"gateway"}, composeNodes...) {
		c.until(service+" to be healthy", func() error {
			if is := c.docker("inspect", "--format", "{{.State.Health.Status}}", c.container(service)); is != "healthy" {
				return fmt.Errorf("%s is %s", service, is)
			}
			return nil
		})
	}
}

// leads waits until the node leads, or no longer does.
func (c *compose) leads(node string, is bool) {
	c.t.Helper()
	c.until("another leader", func() error {
		if leader := c.leader(); (leader == node) != is || leader == "" {
			return fmt.Errorf("%q leads", leader)
		}
		return nil
	})
}

// document runs the blocks of docs/ops/docker.md that are marked `sh <place>`, with the
// names of this project and its command.
func (c *compose) document(place string) {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(repo, "docs", "ops", "docker.md"))
	require.NoError(c.t, err)
	blocks := regexp.MustCompile("(?ms)^```sh "+place+"$\n(.*?)^```$").FindAllSubmatch(text, -1)
	require.NotEmpty(c.t, blocks, place)
	for _, block := range blocks {
		script := strings.ReplaceAll(string(block[1]), "logd_cluster", c.project+"_cluster")
		if c.command[0] != "docker-compose" {
			script = strings.ReplaceAll(script, "docker-compose", strings.Join(c.command, " "))
		}
		c.run("sh", "-euc", script)
	}
}

// compose is a project of docker-compose with a name, images and a copy of
// deploy/docker of its own, so that it meets no other.
type compose struct {
	t       *testing.T
	ctx     context.Context
	dir     string // deploy/docker
	project string
	env     []string
	command []string          // docker-compose
	ids     map[string]string // of the services' containers, as far as they were asked for
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
	checkout, err := filepath.Abs(repo)
	require.NoError(t, err)
	root := t.TempDir()
	dir := filepath.Join(root, "deploy", "docker")
	require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join(repo, "deploy", "docker"))))
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "secrets"))) // of whoever works here
	require.NoError(t, os.Symlink(filepath.Join(checkout, "bin"), filepath.Join(root, "bin")))
	// The images are made from the checkout, and from nothing that is elsewhere.
	make := filepath.Join(root, "make")
	require.NoError(t, os.WriteFile(make, fmt.Appendf(nil, "#!/bin/sh\nshift 2\nexec make -C '%s' IMAGE_FLAGS=--network=none \"$@\"\n", checkout), 0o700))

	var raw [4]byte
	_, err = rand.Read(raw[:])
	require.NoError(t, err)
	project := "logd-test-" + hex.EncodeToString(raw[:])
	c := &compose{
		t: t, ctx: ctx, dir: dir, project: project, command: command, ids: map[string]string{},
		env: append(os.Environ(),
			"COMPOSE="+strings.Join(command, " "),
			"COMPOSE_PROJECT_NAME="+project,
			"LOGD_IMAGE="+project+":test", "LOGD_CLIENT_IMAGE="+project+"-client:test",
			"LOGD_GATEWAY_PORT=", "LOGD_GATEWAY_ADMIN_PORT=",
			"MAKE="+make,
		),
	}
	t.Cleanup(func() { c.remove() })
	return c
}

// remove takes away all that the project made, and fails when something is left.
func (c *compose) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute) // the test's own has ended
	defer cancel()
	c.ctx = ctx
	if c.t.Failed() {
		c.t.Logf("the end of the logs:\n%s", c.compose("logs", "--no-color", "--tail", "60"))
	}
	c.compose("down", "--volumes", "--remove-orphans", "--timeout", "1")
	images := []string{c.project + ":test", c.project + "-client:test"}
	for _, image := range images {
		if c.docker("images", "--quiet", image) != "" {
			c.docker("rmi", "--force", image)
		}
	}
	label := "label=com.docker.compose.project=" + c.project
	require.Empty(c.t, c.docker("ps", "--all", "--quiet", "--filter", label), "containers are left")
	require.Empty(c.t, c.docker("network", "ls", "--quiet", "--filter", label), "networks are left")
	require.Empty(c.t, c.docker("volume", "ls", "--quiet", "--filter", label), "volumes are left")
	for _, image := range images {
		require.Empty(c.t, c.docker("images", "--quiet", image), "the image is left")
	}
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

// operator runs a command of ours in a container of its own, beside the nodes.
func (c *compose) operator(argv ...string) string {
	c.t.Helper()
	return c.compose(append([]string{"run", "--rm", "-T", "operator"}, argv...)...)
}

// exec runs a command of ours in a service's container.
func (c *compose) exec(service string, argv ...string) string {
	c.t.Helper()
	return c.docker(append([]string{"exec", c.container(service)}, argv...)...)
}

// container is the id of a service's container, which stays as long as it is not made
// anew.
func (c *compose) container(service string) string {
	c.t.Helper()
	if id := c.ids[service]; id != "" {
		return id
	}
	id := c.docker("ps", "--all", "--quiet", "--filter", "label=com.docker.compose.project="+c.project,
		"--filter", "label=com.docker.compose.oneoff=False", "--filter", "label=com.docker.compose.service="+service)
	require.NotEmpty(c.t, id, service)
	c.ids[service] = id
	return id
}

// gateway is a connection as any program with a certificate makes one.
func (c *compose) gateway() *grpc.ClientConn {
	c.t.Helper()
	file := func(name string) string { return filepath.Join(c.dir, "secrets", name) }
	ca, err := os.ReadFile(file("ca.pem"))
	require.NoError(c.t, err)
	roots := x509.NewCertPool()
	require.True(c.t, roots.AppendCertsFromPEM(ca))
	cert, err := tls.LoadX509KeyPair(file("client.pem"), file("client-key.pem"))
	require.NoError(c.t, err)
	conn, err := grpc.NewClient(c.docker("port", c.container("gateway"), "8410/tcp"),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}})))
	require.NoError(c.t, err)
	c.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// answers asks the published admin port of the gateway, from this machine.
func (c *compose) answers(path string, want int) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.ctx, http.MethodGet, "http://"+c.docker("port", c.container("gateway"), "8412/tcp")+path, nil)
	require.NoError(c.t, err)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	require.NoError(c.t, err)
	require.NoError(c.t, res.Body.Close())
	require.Equal(c.t, want, res.StatusCode, path)
}

// leader is the service that leads, as the gateway sees it; "" when none does.
func (c *compose) leader() string {
	c.t.Helper()
	var st struct {
		LeaderID string `json:"leader_id"`
	}
	require.NoError(c.t, json.Unmarshal([]byte(c.exec("gateway", "logproxy", "status", "-format", "json")), &st))
	name, _, _ := strings.Cut(st.LeaderID, ".")
	return name
}

func (c *compose) until(what string, ok func() error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeoutCause(c.ctx, patience, fmt.Errorf("waited %s for: %s", patience, what))
	defer cancel()
	require.NoError(c.t, harness.Until(ctx, ok))
}
