package e2e_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
)

// What a service manager hears: a node has started when it listens, though its
// cluster may be days away; a sidecar, when a program that is started after it finds
// the log; both say what they wait for, when they have reloaded, and that they stop.
func TestServiceManager(t *testing.T) {
	w := prepare(t, nil)
	node, sidecar := w.Nodes[0], w.proxy
	ofNode, ofSidecar := newNotifySocket(t), newNotifySocket(t)

	t.Setenv("NOTIFY_SOCKET", ofNode.path)
	require.NoError(t, node.Start())
	said := ofNode.next()
	require.Contains(t, said, "STATUS=reading the log in "+node.DataDir)
	require.Contains(t, said, "EXTEND_TIMEOUT_USEC=30000000")
	// In one message, or in two: the bootstrap may have looked before or after.
	ofNode.until("READY=1", "STATUS=in no cluster yet: waiting for nodes to begin a cluster with: bootstrap_expect is 3")

	t.Setenv("NOTIFY_SOCKET", ofSidecar.path)
	require.NoError(t, sidecar.Start())
	said = ofSidecar.next()
	require.Len(t, said, 1, "it is not ready: %q", said)
	require.Contains(t, []string{"STATUS=no node has been found", "STATUS=no node can be written to or read from"}, said[0])

	t.Setenv("NOTIFY_SOCKET", "")
	require.NoError(t, w.Start())
	ofNode.until("STATUS=ready")
	ofSidecar.until("READY=1")
	_, err := logv1.NewLogClient(w.naive()).Produce(w.ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte("the first")}})
	require.NoError(t, err, "READY means that the log can be used")

	for process, socket := range map[interface{ Signal(syscall.Signal) error }]*notifySocket{node: ofNode, sidecar: ofSidecar} {
		require.NoError(t, process.Signal(syscall.SIGHUP))
		socket.until("RELOADING=1")
		socket.until("READY=1")
	}
	require.NoError(t, node.Stop(w.ctx))
	require.Contains(t, ofNode.until("STOPPING=1"), "EXTEND_TIMEOUT_USEC=45000000")
	require.NoError(t, sidecar.Stop(w.ctx))
	ofSidecar.until("STOPPING=1")
}

// notifySocket is what NOTIFY_SOCKET names.
type notifySocket struct {
	t    *testing.T
	path string
	conn *net.UnixConn
}

func newNotifySocket(t *testing.T) *notifySocket {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return &notifySocket{t: t, path: path, conn: conn}
}

// next is the next message, a string a line.
func (s *notifySocket) next() []string {
	s.t.Helper()
	require.NoError(s.t, s.conn.SetReadDeadline(time.Now().Add(patience)))
	buf := make([]byte, 64<<10)
	n, err := s.conn.Read(buf)
	require.NoError(s.t, err)
	return strings.Split(string(buf[:n]), "\n")
}

// until reads on until each of the lines has come, or one that begins like it. It
// returns the message that had the last of them.
func (s *notifySocket) until(lines ...string) []string {
	s.t.Helper()
	ctx, cancel := context.WithTimeoutCause(s.t.Context(), patience, fmt.Errorf("not all of %q", lines))
	defer cancel()
	for {
		said := s.next()
		lines = slices.DeleteFunc(lines, func(line string) bool {
			return slices.ContainsFunc(said, func(l string) bool { return strings.HasPrefix(l, line) })
		})
		if len(lines) == 0 {
			return said
		}
		require.NoError(s.t, context.Cause(ctx), "the last message was %q", said)
	}
}
