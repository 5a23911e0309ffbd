package cli_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/internal/cli"
)

// manager is a service manager's end of the notification socket.
type manager struct {
	t      *testing.T
	socket string
	conn   *net.UnixConn
}

func newManager(t *testing.T, socket string) *manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return &manager{t: t, socket: socket, conn: conn}
}

func (m *manager) env(more ...string) cli.Env {
	return cli.Env{Stdout: io.Discard, Stderr: io.Discard, Environ: append(more, "NOTIFY_SOCKET="+m.socket)}
}

// next is the next message, by variable.
func (m *manager) next() map[string]string {
	m.t.Helper()
	require.NoError(m.t, m.conn.SetReadDeadline(time.Now().Add(time.Minute)))
	buf := make([]byte, 64<<10)
	n, err := m.conn.Read(buf)
	require.NoError(m.t, err)
	said := make(map[string]string)
	for line := range strings.SplitSeq(string(buf[:n]), "\n") {
		name, value, ok := strings.Cut(line, "=")
		require.True(m.t, ok, "%q", buf[:n])
		require.NotContains(m.t, said, name)
		said[name] = value
	}
	return said
}

// standing is a process that is told how it stands.
type standing struct {
	process
	changed chan struct{}
	stop    chan struct{} // closed: Run may return

	mu      sync.Mutex
	reasons []string
}

func newStanding(reasons ...string) *standing {
	return &standing{changed: make(chan struct{}), stop: make(chan struct{}), reasons: reasons}
}

func (p *standing) NotReady() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reasons
}

func (p *standing) Follow(ctx context.Context, f func()) {
	for {
		f()
		select {
		case <-p.changed:
		case <-ctx.Done():
			return
		}
	}
}

func (p *standing) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		<-p.stop
	case <-p.stop:
	}
	return p.err
}

func (p *standing) stands(reasons ...string) {
	p.mu.Lock()
	p.reasons = reasons
	p.mu.Unlock()
	p.changed <- struct{}{}
}

// served runs a service; end makes its context end, and what Serve answers is sent.
func served(t *testing.T, env cli.Env, s cli.Service) (end func(), ended <-chan error) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1) // 1: Serve's result
	go func() { done <- cli.Serve(ctx, env, s) }()
	return cancel, done
}

func TestNotifyTheServiceManager(t *testing.T) {
	m := newManager(t, filepath.Join(t.TempDir(), "notify"))
	p := newStanding("in no cluster yet: waiting for 3 nodes")
	end, ended := served(t, m.env(), cli.Service{Process: p, Reload: p.reload, DrainTimeout: 30 * time.Second})

	// It listens, and that is a start: the cluster may be a long time coming.
	require.Equal(t, map[string]string{"READY": "1", "STATUS": "in no cluster yet: waiting for 3 nodes"}, m.next())
	// What others say gets into a status, and must not become a message of its own.
	p.stands("refused:\nMAINPID=1", "and more")
	require.Equal(t, map[string]string{"STATUS": "refused: MAINPID=1; and more"}, m.next())
	p.stands("refused:\nMAINPID=1", "and more") // nothing new
	p.stands()
	require.Equal(t, map[string]string{"STATUS": "ready"}, m.next())

	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
	said := m.next()
	require.Equal(t, "1", said["RELOADING"])
	usec, err := strconv.ParseInt(said["MONOTONIC_USEC"], 10, 64)
	require.NoError(t, err)
	require.Positive(t, usec)
	require.Len(t, said, 2)
	require.Equal(t, map[string]string{"READY": "1", "STATUS": "ready"}, m.next())
	require.EqualValues(t, 1, p.reloaded.Load(), "READY is said after the reload, not before")

	end()
	require.Equal(t, map[string]string{"STOPPING": "1", "STATUS": "draining", "EXTEND_TIMEOUT_USEC": "45000000"}, m.next())
	p.stands("draining") // too late to be of interest
	close(p.stop)
	require.NoError(t, <-ended)
	conn, err := net.Dial("unixgram", m.socket)
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("LAST=1"))
	require.NoError(t, err)
	require.Equal(t, map[string]string{"LAST": "1"}, m.next(), "nothing is said after STOPPING")
}

func TestNotifyOfAProcessThatOthersWaitFor(t *testing.T) {
	m := newManager(t, "@logd-test-"+strconv.Itoa(os.Getpid())) // an abstract one
	p := newStanding("no node has been found")
	_, ended := served(t, m.env(), cli.Service{Process: p, Reload: p.reload, Useful: true})
	require.Equal(t, map[string]string{"STATUS": "no node has been found"}, m.next())

	// Before it is READY a reload is its own affair.
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
	require.Eventually(t, func() bool { return p.reloaded.Load() == 1 }, time.Minute, 10*time.Millisecond)
	p.stands()
	require.Equal(t, map[string]string{"READY": "1", "STATUS": "ready"}, m.next())
	p.stands("no node can be written to or read from")
	require.Equal(t, map[string]string{"STATUS": "no node can be written to or read from"}, m.next(), "once started, always started")

	p.err = errors.New("listener: it broke\nREADY=1")
	close(p.stop)
	require.Equal(t, map[string]string{"STOPPING": "1", "STATUS": "listener: it broke READY=1", "EXTEND_TIMEOUT_USEC": "15000000"}, m.next())
	require.ErrorIs(t, <-ended, p.err)
}

func TestNotifyWhileOpening(t *testing.T) {
	m := newManager(t, filepath.Join(t.TempDir(), "notify"))
	opened := cli.Opening(m.env(), "reading the log")
	require.Equal(t, map[string]string{"STATUS": "reading the log", "EXTEND_TIMEOUT_USEC": "30000000"}, m.next())
	opened()
}

func TestNotifyTheWatchdog(t *testing.T) {
	m := newManager(t, filepath.Join(t.TempDir(), "notify"))
	for _, pid := range []int{os.Getpid(), os.Getpid() + 1} {
		p := newStanding()
		end, ended := served(t, m.env("WATCHDOG_USEC=2000", "WATCHDOG_PID="+strconv.Itoa(pid)), cli.Service{Process: p})
		require.Equal(t, "1", m.next()["READY"])
		if pid == os.Getpid() {
			require.Equal(t, map[string]string{"WATCHDOG": "1"}, m.next())
		}
		end()
		said := m.next()
		for said["WATCHDOG"] != "" {
			require.Equal(t, os.Getpid(), pid, "another process was meant")
			said = m.next()
		}
		require.Equal(t, "1", said["STOPPING"])
		close(p.stop)
		require.NoError(t, <-ended)
	}
}

// A manager that is gone, or one of a kind we do not know, is no reason not to run.
func TestNotifyNobody(t *testing.T) {
	for socket, complaints := range map[string]int{filepath.Join(t.TempDir(), "gone"): 1, "vsock:2:1": 0, "": 0} {
		var errs buffer
		env := cli.Env{Stdout: io.Discard, Stderr: &errs, Environ: []string{"NOTIFY_SOCKET=" + socket}}
		cli.Opening(env, "reading the log")()
		complained := strings.Count(errs.String(), "does not listen")
		require.Equal(t, complaints, complained, socket)
		p := newStanding()
		end, ended := served(t, env, cli.Service{Process: p})
		end()
		close(p.stop)
		require.NoError(t, <-ended)
		require.Equal(t, 2*complaints, strings.Count(errs.String(), "does not listen"), "once a notifier")
	}
}
