//go:build system

package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/test/harness"
)

// README.md marks each block of commands with the place where it is run: `sh dev`
// beside `make dev`, `sh node` on a node's machine, and so on. The tests below
// run them all there as they are written.

// shell is how a command begins.
var shell = regexp.MustCompile(`^((make|logd|logproxy|grpcurl|curl|echo|cat|docker|go|for|export) |bin/|\./)`)

// blocks are README.md's commands by marker, one string a command.
func blocks(t *testing.T) map[string][]string {
	t.Helper()
	found := make(map[string][]string)
	for _, b := range docBlocks(t, "README.md") {
		place, isShell := b.shell()
		if !isShell {
			continue
		}
		for _, line := range b.commands() {
			require.Regexp(t, shell, line, "in a block that is run")
			found[place] = append(found[place], line)
		}
	}
	return found
}

// lasts tells whether a command runs until it is told to end.
func lasts(line string) bool {
	return strings.Contains(line, " agent ") || strings.Contains(line, " -follow")
}

// machine is where commands are run.
type machine struct {
	t      *testing.T
	ctx    context.Context
	prefix []string // what puts a command there
	dir    string
	path   string // PATH, with our programs
}

// run runs commands one after the other, each of which must succeed, and
// answers what they wrote. Those that last go on until the end of the test.
func (m *machine) run(lines ...string) string {
	m.t.Helper()
	var out bytes.Buffer
	exports := ""
	for _, line := range lines {
		switch {
		case strings.HasPrefix(line, "export "):
			exports += line + "\n"
		case lasts(line):
			m.start(line)
		default:
			cmd := m.command(exports + line)
			var stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &stderr
			require.NoError(m.t, cmd.Run(), "%s\n%s%s", line, out.Bytes(), stderr.Bytes())
		}
	}
	return out.String()
}

func (m *machine) argv(script string) []string {
	script = fmt.Sprintf("export PATH=%s\ncd %s\n%s", m.path, m.dir, script)
	return append(append([]string(nil), m.prefix...), "sh", "-c", script)
}

func (m *machine) command(script string) *exec.Cmd {
	argv := m.argv(script)
	return exec.CommandContext(m.ctx, argv[0], argv[1:]...)
}

// start runs a command that lasts. Asked to end, it must do so with exit code 0.
func (m *machine) start(line string) *harness.Process {
	m.t.Helper()
	argv := m.argv("exec " + line)
	p := &harness.Process{Name: line, Path: argv[0], Args: argv[1:], Log: filepath.Join(m.t.TempDir(), "out")}
	require.NoError(m.t, p.Start())
	m.t.Cleanup(func() {
		if p.Running() {
			ctx, cancel := context.WithTimeout(context.Background(), patience) // the test's own has ended
			defer cancel()
			require.NoError(m.t, p.Stop(ctx))
		}
		if m.t.Failed() {
			m.t.Logf("the end of what %q wrote:\n%s", line, p.Tail(40))
		}
	})
	return p
}

func (m *machine) until(what string, ok func() error) {
	m.t.Helper()
	ctx, cancel := context.WithTimeoutCause(m.ctx, patience, fmt.Errorf("waited %s for: %s", patience, what))
	defer cancel()
	require.NoError(m.t, harness.Until(ctx, ok))
}

// newMachine is this machine, in a folder of its own that has what a checkout
// has after make build, and with the programs in the path.
func newMachine(t *testing.T) *machine {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience*3, errors.New("the test took too long"))
	t.Cleanup(cancel)
	dir := t.TempDir()
	require.NoError(t, os.Symlink(bin, filepath.Join(dir, "bin")))
	examples, err := filepath.Abs(filepath.Join(repo, "examples"))
	require.NoError(t, err)
	require.NoError(t, os.Symlink(examples, filepath.Join(dir, "examples")))
	path := bin + ":" + filepath.Dir(clientTool(t, "grpcurl")) + ":" + os.Getenv("PATH")
	return &machine{t: t, ctx: ctx, dir: dir, path: path}
}

// Every block has a place that a test here knows.
func TestSystemReadmeIsRun(t *testing.T) {
	known := map[string]bool{"make": true, "dev": true, "credentials": true, "node": true, "sidecar": true, "operator": true}
	found := blocks(t)
	for place := range found {
		require.True(t, known[place], "nobody runs `sh %s`", place)
	}
	require.Len(t, found, len(known))

	// The others are what CI runs, or run dev as the next test does.
	makefile, err := os.ReadFile(filepath.Join(repo, "Makefile"))
	require.NoError(t, err)
	ci, err := os.ReadFile(filepath.Join(repo, ".ci", "run"))
	require.NoError(t, err)
	for _, line := range found["make"] {
		target := strings.Fields(line)[1]
		require.Contains(t, string(makefile), "\n"+target+": ", line)
		if target != "dev" {
			require.Regexp(t, `(?m)^stage \S+ \S+ make `+target+`$`, string(ci), line)
		}
	}
	require.Contains(t, string(makefile), "$(BIN)/logd dev $(DEV_FLAGS)\n")
}

// The quick start, with the default ports.
func TestSystemReadmeDev(t *testing.T) {
	clientTool(t, "grpcurl")
	if !inOwnNetwork(t) {
		return
	}
	require.NoError(t, ip("link set lo up"))
	m := newMachine(t)
	m.start("bin/logd dev")
	m.run("bin/logproxy wait")
	for _, line := range blocks(t)["dev"] {
		if !lasts(line) {
			m.run(line)
			continue
		}
		tail := m.start(line)
		m.until("what was produced", func() error {
			if out := tail.Tail(9); out != "hello" {
				return fmt.Errorf("%s shows %q", line, out)
			}
			return nil
		})
	}
	require.Equal(t, "hello\nhello\n", m.run("bin/logd consume -n 2"))

	// What the text shows in passing.
	text, err := os.ReadFile(filepath.Join(repo, "README.md"))
	require.NoError(t, err)
	inline := func(line string) *exec.Cmd {
		require.Contains(t, string(text), "`"+line+"`")
		return m.command(line)
	}
	out, err := inline("curl 127.0.0.1:8412/readyz").Output()
	require.NoError(t, err)
	require.Equal(t, "ready\n", string(out))
	out, err = inline("logd validate examples/hcl/broken.hcl").CombinedOutput()
	require.Error(t, err)
	require.Equal(t, 3, bytes.Count(out, []byte("on examples/hcl/broken.hcl line ")), "%s", out)
}

// A cluster by the book: credentials, three nodes, a sidecar, each on a host of
// its own with the examples' files in place. What comes after is docs/ops/cluster.md.
func TestSystemReadmeCluster(t *testing.T) {
	clientTool(t, "grpcurl")
	if !inOwnNetwork(t) {
		return
	}
	do := blocks(t)
	h := newHosts(t)
	operator := newMachine(t)
	operator.run(do["credentials"]...)
	etc := privateEtc(t, h)
	nodes := map[string]*machine{}
	for i := 1; i <= 3; i++ {
		name := fmt.Sprintf("node%d", i)
		nodes[name] = operator.host(h, i, "logd")
		operator.run(
			fmt.Sprintf("cp examples/hcl/cluster/%s.hcl %s/netns/h%d/logd/logd.hcl", name, etc, i),
			fmt.Sprintf("cp ca.pem %[1]s.pem %[1]s-key.pem %[2]s/netns/h%[3]d/logd/tls", name, etc, i),
			fmt.Sprintf("cp gossip.key %s/netns/h%d/logd", etc, i))
	}
	sidecar := operator.host(h, 101, "logproxy")
	operator.run(
		fmt.Sprintf("cp examples/hcl/proxy.hcl %s/netns/h101/logproxy/logproxy.hcl", etc),
		fmt.Sprintf("cp ca.pem proxy1.pem proxy1-key.pem %s/netns/h101/logproxy/tls", etc),
		fmt.Sprintf("cp gossip.key %s/netns/h101/logproxy", etc))

	agents := map[string]*harness.Process{}
	for name, m := range nodes {
		for _, line := range do["node"] {
			if lasts(line) {
				agents[name] = m.start(line)
				break
			}
			m.run(line)
		}
		require.Contains(t, agents, name, "no block starts a node")
	}
	sidecar.run(do["sidecar"]...)
	sidecar.run("echo hello | logd produce")
	require.Equal(t, "hello\n", sidecar.run("logd consume"))
	gossip := nodes["node1"].run(do["node"][len(do["node"])-1])
	require.Contains(t, gossip, "proxy1.")
	seen := operator.run(do["operator"]...)
	require.Equal(t, 3, strings.Count(seen, "leader"), "members, list-peers and autopilot name one each:\n%s", seen)
}

// privateEtc makes /etc a copy that only this process and its children see. What
// lies in netns/<host> of it, a host sees in /etc.
func privateEtc(t *testing.T, h *hosts) string {
	t.Helper()
	const copied, etc = "/run/etc", "/etc"
	out, err := exec.Command("cp", "-a", etc, copied).CombinedOutput()
	require.NoError(t, err, "%s", out)
	names := "127.0.0.1 localhost\n"
	for i := 1; i <= 3; i++ {
		names += fmt.Sprintf("%s node%d.example.net\n", h.Address(i), i)
	}
	require.NoError(t, os.Remove(filepath.Join(copied, "hosts")))
	require.NoError(t, os.WriteFile(filepath.Join(copied, "hosts"), []byte(names), 0o644))
	require.NoError(t, os.MkdirAll(filepath.Join(copied, "logd"), 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(copied, "logproxy"), 0o755))
	require.NoError(t, syscall.Mount(copied, etc, "", syscall.MS_BIND, ""))
	require.NoError(t, syscall.Mount("tmpfs", "/var/lib", "tmpfs", 0, ""))
	return etc
}

// host is a machine of its own with folders /etc/<program> and /var/lib/logd.
func (m *machine) host(h *hosts, i int, program string) *machine {
	m.t.Helper()
	state := fmt.Sprintf("/var/lib/h%d", i)
	require.NoError(m.t, os.MkdirAll(state, 0o700))
	require.NoError(m.t, os.MkdirAll("/var/lib/logd", 0o700))
	require.NoError(m.t, os.MkdirAll(fmt.Sprintf("/etc/netns/h%d/%s/tls", i, program), 0o755))
	// ip netns exec gives a command mounts of its own, too.
	prefix, err := h.Command(i, []string{"sh", "-c", "mount --bind " + state + ` /var/lib/logd && exec "$0" "$@"`})
	require.NoError(m.t, err)
	host := *m
	host.prefix = prefix
	return &host
}
