package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/test/harness"
)

// bin holds the programs under test, built once with the race detector when the
// tests have it, so that a race in a program fails the test that met it.
var bin string

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "curl" { // a runbook's machine that has none
		os.Exit(curl(os.Args[1:]))
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

// curl writes what is at the last of args, as the real one does with -s or -sf.
func curl(args []string) int {
	url := args[len(args)-1]
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	resp, err := http.Get(url) //nolint:noctx // its own process
	if err == nil {
		if resp.StatusCode >= 400 && args[0] == "-sf" {
			return 22
		}
		_, err = io.Copy(os.Stdout, resp.Body)
		err = errors.Join(err, resp.Body.Close())
	}
	if err != nil {
		return 7
	}
	return 0
}

func run(m *testing.M) (code int, err error) {
	bin, err = os.MkdirTemp("", "logd-e2e-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(bin)) }()
	args := []string{"build", "-o", bin + string(filepath.Separator)}
	if raceEnabled {
		args = append(args, "-race")
	}
	args = append(args, "github.com/logd-io/logd/cmd/logd", "github.com/logd-io/logd/cmd/logproxy")
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return m.Run(), nil
}

// long begins a test that takes a minute, which the race detector makes several: make
// test-long runs those whose names begin with TestLong, without it.
func long(t *testing.T) {
	t.Helper()
	if raceEnabled {
		t.Skip("make test-long runs it, without the race detector")
	}
}

// patience is how long anything may take before a test gives up. No test
// asserts a time; this only ends what hangs.
const patience = 90 * time.Second

// world is a running cluster with one proxy.
type world struct {
	*harness.Cluster
	t     *testing.T
	ctx   context.Context
	proxy *harness.Proxy
}

func start(t *testing.T) *world {
	t.Helper()
	w := prepare(t, nil)
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))
	return w
}

// prepare makes a cluster and a proxy, and starts nothing.
func prepare(t *testing.T, hosts harness.Hosts, tweaks ...func(*harness.Options)) *world {
	t.Helper()
	return prepareFor(t, hosts, 4*time.Minute, tweaks...)
}

// prepareFor is prepare for a test that may take as long as limit.
func prepareFor(t *testing.T, hosts harness.Hosts, limit time.Duration, tweaks ...func(*harness.Options)) *world {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, errors.New("the test took too long"))
	t.Cleanup(cancel)
	heartbeat := time.Duration(0)
	if raceEnabled || hosts != nil { // a network that is cut is trouble enough
		heartbeat = time.Second
	}
	opt := harness.Options{Bin: bin, Dir: t.TempDir(), Heartbeat: heartbeat, Hosts: hosts}
	for _, tweak := range tweaks {
		tweak(&opt)
	}
	c, err := harness.New(opt)
	require.NoError(t, err)
	proxy, err := c.AddProxy("")
	require.NoError(t, err)
	w := &world{Cluster: c, t: t, ctx: ctx, proxy: proxy}
	t.Cleanup(func() {
		require.NoError(t, c.Close())
		if t.Failed() {
			for _, n := range c.Nodes {
				t.Logf("the end of %s's log:\n%s", n.Name, n.Tail(40))
			}
			for _, p := range c.Proxy {
				t.Logf("the end of %s's log:\n%s", p.Name, p.Tail(40))
			}
		}
		for _, n := range c.Nodes {
			requireNoRace(t, n.Process)
		}
		for _, p := range c.Proxy {
			requireNoRace(t, p.Process)
		}
	})
	return w
}

// requireNoRace reads a process's output for what must not be in it.
func requireNoRace(t *testing.T, p *harness.Process) {
	t.Helper()
	f, err := os.Open(p.Log)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	require.NoError(t, err)
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
			if strings.Contains(lines.Text(), bad) {
				t.Fatalf("%s: %s; the end of its output:\n%s", p.Name, lines.Text(), p.Tail(100))
			}
		}
	}
	require.NoError(t, lines.Err())
}

// naive is a connection that knows only the proxy's address.
func (w *world) naive() *grpc.ClientConn {
	conn, err := harness.Naive(w.proxy.Addr)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// dial is a connection straight to a node.
func (w *world) dial(cert string, n *harness.Node) *grpc.ClientConn {
	conn, err := w.Dial(cert, n)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (w *world) leader() *harness.Node {
	w.t.Helper()
	ctx, cancel := context.WithTimeoutCause(w.ctx, patience, errors.New("no leader for too long"))
	defer cancel()
	n, err := w.Leader(ctx)
	require.NoError(w.t, err)
	return n
}

// underOneLeader has f say something of a cluster in which one node leads. When it is
// wrong, and an election has come between, for which a busy machine is enough, it says it
// again, once: what is tried brings the second one.
func (w *world) underOneLeader(f func(leader *harness.Node) error) {
	w.t.Helper()
	leader := w.leader()
	term := w.stats(leader).GetTerm()
	err := f(leader)
	if err == nil {
		return
	}
	next := w.leader()
	if w.stats(next).GetTerm() == term {
		require.NoError(w.t, err)
	}
	w.t.Logf("once more, since there was an election: %v", err)
	require.NoError(w.t, f(next), "after an election")
}

func (w *world) follower() *harness.Node {
	w.t.Helper()
	leader := w.leader()
	for _, n := range w.Nodes {
		if n != leader && n.Running() {
			return n
		}
	}
	w.t.Fatal("no follower runs")
	return nil
}

func (w *world) until(what string, ok func() error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeoutCause(w.ctx, patience, fmt.Errorf("waited %s for: %s", patience, what))
	defer cancel()
	require.NoError(w.t, harness.Until(ctx, ok))
}

// load starts naive producers and a naive tail on the proxy.
func (w *world) load() *traffic {
	tr := &traffic{w: w, Load: &harness.Load{Producers: 16}, ended: make(chan struct{}), tailed: make(chan error, 1)}
	conns := []grpc.ClientConnInterface{w.naive(), w.naive(), w.naive(), w.naive()}
	tailConn := w.naive()
	ctx, cancel := context.WithCancel(w.ctx)
	go func() { // joined by finish or the cleanup
		defer close(tr.ended)
		tr.Run(ctx, conns...)
	}()
	tailDone := make(chan struct{})
	go func() { // joined by the cleanup
		defer close(tailDone)
		tr.tailed <- harness.Tail(ctx, tailConn, 0, func(rec *logv1.Record) bool {
			tr.seen.Store(rec.GetOffset() + 1)
			return true
		})
	}()
	w.t.Cleanup(func() { cancel(); <-tr.ended; <-tailDone })
	return tr
}

// logEnd is where the log ends for a linearizable read: what was acknowledged before is
// below it. A node that has just been elected, or one that does not know yet that another
// was, may show less. cert is of somebody who may consume.
func (w *world) logEnd(cert string) (next uint64) {
	w.t.Helper()
	ask := func(n *harness.Node) error {
		conn, err := w.Dial(cert, n)
		if err != nil {
			return err
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
		defer cancel()
		_, err = logv1.NewLogClient(conn).Consume(ctx, &logv1.ConsumeRequest{Offset: math.MaxUint64, Linearizable: true})
		info, _ := apierr.From(err)
		if at, ok := info.Uint(apierr.KeyNext); ok && info.Reason == apierr.ReasonOutOfRange {
			next = at
			return nil
		}
		return fmt.Errorf("%s: %w", n.Name, err)
	}
	w.until("a node says where the log ends", func() error {
		err := errors.New("no node runs")
		for _, n := range w.Nodes {
			if n.Running() {
				if err = ask(n); err == nil {
					return nil
				}
			}
		}
		return err
	})
	return next
}

// stats of a node, waiting for it to answer.
func (w *world) stats(n *harness.Node) (st *nodev1.StatsResponse) {
	w.t.Helper()
	w.until("stats of "+n.Name, func() (err error) {
		st, err = w.Stats(w.ctx, n)
		return err
	})
	return st
}
