package e2e_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/test/harness"
)

// site runs a runbook from its first line to its last, on machines that are folders
// and loopback addresses, so that it needs no root. A block `sh node1 node2` is run
// on those machines, one after the other; the operator's has no address. What the
// document says is run as it is written, but for these:
//
//   - /etc/logd, /etc/logproxy and /var/lib/logd are below the machine's folder, in
//     commands and in the configuration files that scp brings;
//   - name.example.net and 127.0.0.1 are the machine's loopback address;
//   - scp copies, and systemctl and journalctl do what they would with the units of
//     deploy/systemd, which systemd itself would not do for a test;
//   - node2.1a2b3c4d is the id of node2 as it is then.
//
// After the places may follow `until`: the block is repeated until the next one, which
// is `text`, shows; or `fails`: it must. A block `text` is what the one before it
// shows: each of its lines, in that order, … being whatever there is. A comment
// <!-- test: … --> has something happen that nobody types.
type site struct {
	t        *testing.T
	ctx      context.Context
	doc      string
	dir      string // the machines' folders, by name
	shims    string
	net      [2]byte
	at       map[string]int // the last byte of each machine's address
	env      map[string][]string
	services map[string]*harness.Process // by machine
	keep     sync.Map                    // of services: the func that ends their supervision
	heard    map[string]chan struct{}    // by machine; room for one: the service has said READY=1
	exports  map[string]string           // by machine
}

func newSite(t *testing.T, doc string, limit time.Duration) *site {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, errors.New("the test took too long"))
	t.Cleanup(cancel)
	s := &site{
		t: t, ctx: ctx, doc: doc, dir: t.TempDir(), at: map[string]int{"proxy1": 101},
		env: map[string][]string{}, services: map[string]*harness.Process{}, heard: map[string]chan struct{}{}, exports: map[string]string{},
	}
	for i := 1; i <= 5; i++ {
		s.at[fmt.Sprintf("node%d", i)] = i
	}
	_, err := rand.Read(s.net[:])
	require.NoError(t, err)
	s.net[0] = s.net[0]%254 + 1
	s.shims = filepath.Join(s.dir, "shims")
	require.NoError(t, os.MkdirAll(s.shims, 0o700))
	if _, err := exec.LookPath("curl"); err != nil {
		self, err := os.Executable()
		require.NoError(t, err)
		require.NoError(t, os.Symlink(self, filepath.Join(s.shims, "curl"))) // see TestMain
	}
	s.names()
	s.machine("operator")
	examples, err := filepath.Abs(filepath.Join(repo, "examples"))
	require.NoError(t, err)
	require.NoError(t, os.Symlink(examples, filepath.Join(s.dir, "operator", "examples")))
	for name := range s.at {
		s.machine(name)
	}
	t.Cleanup(s.close)
	return s
}

// machine makes an empty one.
func (s *site) machine(name string) {
	s.t.Helper()
	for _, dir := range []string{"etc/logd", "etc/logproxy", "var/lib/logd"} {
		require.NoError(s.t, os.MkdirAll(filepath.Join(s.dir, name, dir), 0o700))
	}
	if s.at[name] > 100 {
		s.env[name] = []string{"LOGPROXY_ADMIN_ADDRESS=" + s.address(name) + ":8412", "LOGD_ADDR=" + s.address(name) + ":8410"}
	}
	if raceEnabled && s.at[name] > 0 && s.at[name] <= 100 {
		s.env[name] = []string{"LOGD_RAFT_HEARTBEAT_TIMEOUT=1s"}
	}
}

func (s *site) address(name string) string {
	return fmt.Sprintf("127.%d.%d.%d", s.net[0], s.net[1], s.at[name])
}

// names writes the stand-in for scp, which knows the machines' addresses.
func (s *site) names() {
	s.t.Helper()
	script := `#!/bin/sh
set -eu
for to; do :; done
host=${to%%.*}
case $to in *.example.net:/*) ;; *) echo "scp: where is $to?" >&2; exit 1 ;; esac
root=` + s.dir + `/$host
last=$#; i=1; set -- "$@"
while [ $i -lt $last ]; do from=$1; shift; set -- "$@" "$from"; i=$((i+1)); done
shift
cp "$@" "$root${to#*:}"
case $host in
`
	for name := range s.at {
		script += name + ") own=" + s.address(name) + " ;;\n"
	}
	script += `esac
find "$root/etc" -name '*.hcl' -exec sed -i -e "s#\"/etc/#\"$root/etc/#; s#\"/var/lib/#\"$root/var/lib/#; s#\"0\.0\.0\.0#\"$own#; s#\"127\.0\.0\.1#\"$own#"`
	for name := range s.at {
		script += fmt.Sprintf(` -e 's#"%s\.example\.net#"%s#g'`, name, s.address(name))
	}
	script += " {} +\n"
	require.NoError(s.t, os.WriteFile(filepath.Join(s.shims, "scp"), []byte(script), 0o700))
}

func (s *site) close() {
	for name, p := range s.services {
		s.kill(name)
		if s.t.Failed() {
			s.t.Logf("the end of the log on %s:\n%s", name, p.Tail(30))
		}
		requireNoRace(s.t, p)
	}
}

var (
	hostPort   = regexp.MustCompile(`\b(node[0-9]|proxy[0-9])\.example\.net:([0-9]+)`)
	folders    = regexp.MustCompile(`(^|[\s"'=])(/etc/logd|/etc/logproxy|/var/lib/logd)\b`)
	exampleID  = regexp.MustCompile(`\b(node[0-9])\.1a2b3c4d\b`)
	unitOrder  = regexp.MustCompile(`^systemctl (start|stop|restart|reload) (logd|logproxy)$`)
	unitLog    = regexp.MustCompile(`^journalctl -u (?:logd|logproxy) -n ([0-9]+)$`)
	unitStarts = regexp.MustCompile(`(?m)^ExecStart=/usr/bin/(\S+) (.*)$`)
	unitRests  = regexp.MustCompile(`(?m)^RestartSec=([0-9]+)$`)
)

// here is a command as this machine runs what is written for one of the document's.
func (s *site) here(place, line string) string {
	line = hostPort.ReplaceAllStringFunc(line, func(m string) string {
		parts := hostPort.FindStringSubmatch(m)
		return s.address(parts[1]) + ":" + parts[2]
	})
	line = folders.ReplaceAllString(line, "${1}"+filepath.Join(s.dir, place)+"${2}")
	if s.at[place] > 0 {
		line = strings.ReplaceAll(line, "127.0.0.1:", s.address(place)+":")
	}
	return exampleID.ReplaceAllStringFunc(line, func(m string) string {
		name := strings.TrimSuffix(m, ".1a2b3c4d")
		return s.id(name)
	})
}

// id is the one that the cluster knows a node of that name by.
func (s *site) id(name string) (id string) {
	s.t.Helper()
	s.until("the id of "+name, func() error {
		for other, p := range s.services {
			if !p.Running() || s.at[other] > 100 {
				continue
			}
			for _, p := range s.peers(other) {
				if strings.HasPrefix(p.ID, name+".") {
					id = p.ID
					return nil
				}
			}
		}
		return errors.New("no node that runs tells it")
	})
	return id
}

// listedPeer is a node as list-peers tells of it.
type listedPeer struct {
	ID     string `json:"id"`
	Leader bool   `json:"leader"`
}

// peers are the nodes as one says that is asked; none, if it does not answer.
func (s *site) peers(asked string) (peers []listedPeer) {
	s.t.Helper()
	out, err := s.shell("operator", "logd operator raft list-peers -format json -timeout 5s -address "+s.address(asked)+":8400")
	if err != nil || json.Unmarshal([]byte(out), &peers) != nil {
		return nil
	}
	return peers
}

// ledWithout waits until all nodes that run know a leader that is not the one with that id.
func (s *site) ledWithout(id string) {
	s.t.Helper()
	s.until("a leader that is not "+id, func() error {
		for name, p := range s.services {
			if !p.Running() || s.at[name] > 100 {
				continue
			}
			if !slices.ContainsFunc(s.peers(name), func(p listedPeer) bool { return p.Leader && p.ID != id }) {
				return errors.New(name + " knows none")
			}
		}
		return nil
	})
}

func (s *site) until(what string, ok func() error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeoutCause(s.ctx, patience, fmt.Errorf("waited %s for: %s", patience, what))
	defer cancel()
	require.NoError(s.t, harness.Until(ctx, ok))
}

// shell runs a line as the machine's own shell, and answers all that it wrote.
func (s *site) shell(place, line string) (string, error) {
	script := fmt.Sprintf("export PATH=%s:%s:$PATH\n%s%s", s.shims, bin, s.exports[place], line)
	ctx, cancel := context.WithTimeout(s.ctx, 2*patience) // a line may wait for much
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", script)
	cmd.WaitDelay = time.Second // of what the shell has started
	cmd.Dir = filepath.Join(s.dir, place)
	cmd.Env = append(os.Environ(), s.env[place]...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// run runs one command of the document.
func (s *site) run(place, line string) (string, error) {
	if m := unitOrder.FindStringSubmatch(line); m != nil {
		return "", s.unit(place, m[1], m[2])
	}
	if m := unitLog.FindStringSubmatch(line); m != nil {
		n, err := strconv.Atoi(m[1])
		require.NoError(s.t, err)
		require.Contains(s.t, s.services, place)
		return s.services[place].Tail(n) + "\n", nil
	}
	line = s.here(place, line)
	if strings.HasPrefix(line, "export ") {
		s.exports[place] += line + "\n"
		return "", nil
	}
	return s.shell(place, line)
}

// unit does what systemctl does with a unit of deploy/systemd.
func (s *site) unit(place, order, name string) error {
	p := s.services[place]
	switch order {
	case "reload":
		return p.Signal(syscall.SIGHUP)
	case "stop", "restart":
		s.unsupervise(place)
		if p.Running() {
			if err := p.Stop(s.ctx); err != nil {
				return err
			}
		}
		if order == "stop" {
			return nil
		}
	}
	text := fileText(s.t, filepath.Join(repo, "deploy", "systemd", name+".service"))
	starts := unitStarts.FindStringSubmatch(text)
	require.NotNil(s.t, starts, "%s.service starts nothing", name)
	args := append(slices.Clone(s.env[place]), filepath.Join(bin, starts[1]))
	args = append(args, strings.Fields(s.here(place, starts[2]))...)
	if p == nil {
		p = &harness.Process{Name: place, Log: filepath.Join(s.dir, place+".log")}
		s.services[place] = p
		s.listen(place)
	}
	p.Path, p.Args = "/usr/bin/env", append([]string{"NOTIFY_SOCKET=" + s.notifySocket(place)}, args...)
	for _, line := range []string{"Type=notify", "Restart=on-failure"} {
		require.Contains(s.t, text, "\n"+line+"\n", name)
	}
	pause, err := time.ParseDuration(unitRests.FindStringSubmatch(text)[1] + "s")
	require.NoError(s.t, err)
	select {
	case <-s.heard[place]: // of a life before
	default:
	}
	if err := p.Start(); err != nil {
		return err
	}
	defer s.supervise(place, p, pause)
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	ended := make(chan struct{})
	go func() { // ends with ctx, at the latest
		_, _ = p.Wait(ctx)
		close(ended)
	}()
	select {
	case <-s.heard[place]:
		return nil
	case <-ended:
		return fmt.Errorf("job for %s failed; journalctl -u %s says more", name, name)
	}
}

func (s *site) notifySocket(place string) string { return filepath.Join(s.shims, place+".sock") }

// listen hears what the service on a machine tells its manager.
func (s *site) listen(place string) {
	s.t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.notifySocket(place), Net: "unixgram"})
	require.NoError(s.t, err)
	ready, ended := make(chan struct{}, 1), make(chan struct{})
	s.heard[place] = ready
	go func() { // joined by the cleanup
		defer close(ended)
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			if slices.Contains(strings.Split(string(b[:n]), "\n"), "READY=1") {
				select {
				case ready <- struct{}{}:
				default:
				}
			}
		}
	}()
	s.t.Cleanup(func() { _ = conn.Close(); <-ended })
}

// supervise starts a service again that has failed, until somebody stops it.
func (s *site) supervise(place string, p *harness.Process, pause time.Duration) {
	ctx, cancel := context.WithCancel(s.ctx)
	ended := make(chan struct{})
	s.keep.Store(place, func() { cancel(); <-ended })
	go func() { // joined by unsupervise
		defer close(ended)
		for {
			code, err := p.Wait(ctx)
			if err != nil || code == 0 {
				return
			}
			rest(ctx, pause)
			if ctx.Err() != nil || p.Start() != nil {
				return
			}
		}
	}()
}

func (s *site) unsupervise(place string) {
	if end, ok := s.keep.LoadAndDelete(place); ok {
		end.(func())()
	}
}

// kill is the end of a process that nobody asked to end.
func (s *site) kill(place string) {
	s.t.Helper()
	s.unsupervise(place)
	if p := s.services[place]; p.Running() {
		require.NoError(s.t, p.Kill())
	}
}
