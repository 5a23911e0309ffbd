package e2e_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/test/harness"
)

// setting appends to a node's configuration, which must not have been started.
func setting(t *testing.T, n *harness.Node, text string) {
	t.Helper()
	f, err := os.OpenFile(n.Config, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString(text)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// files is how many file descriptors a process has open.
func files(p *harness.Process) int {
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID()))
	if err != nil {
		return 0
	}
	return len(open)
}

// flood keeps n connections open on each address that never say a word, new ones
// for those that are closed. The returned function ends it.
func flood(ctx context.Context, n int, addresses ...string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for i := range n * len(addresses) {
		wg.Go(func() {
			for ctx.Err() == nil {
				conn, err := new(net.Dialer).DialContext(ctx, "tcp", addresses[i%len(addresses)])
				if err == nil {
					end := context.AfterFunc(ctx, func() { _ = conn.Close() })
					_, _ = conn.Read(make([]byte, 1)) // until either side closes it
					end()
					_ = conn.Close()
				}
				select { // the processes under test need some of the machine
				case <-time.After(100 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

// Whoever reaches the ports without a certificate can keep others out for a
// while, but takes no file descriptor from the log: segments go on being opened.
func TestFloodTakesNothingFromTheLog(t *testing.T) {
	w := prepare(t, nil)
	for _, n := range w.Nodes {
		setting(t, n, "log { segment_size = \"64KiB\" }\n")
	}
	const limit = 200
	for _, n := range w.Nodes {
		n.Args = append([]string{"-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, limit), n.Path}, n.Args...)
		n.Path = "/bin/sh"
	}
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))
	tr := w.load()
	tr.more(1000)
	leader := w.leader()
	before := w.stats(leader).GetSegments()
	quiet := files(leader.Process)
	stop := flood(w.ctx, limit/2, leader.RPC, leader.Gossip, leader.Admin)
	w.until("the flood", func() error {
		if n := files(leader.Process); n < quiet+limit/8 {
			return fmt.Errorf("%d files open, %d without a flood", n, quiet)
		}
		return nil
	})
	tr.more(3000)
	stop()
	for _, n := range w.Nodes {
		require.True(t, n.Running(), "%s ended:\n%s", n.Name, n.Tail(20))
	}
	require.Greater(t, w.stats(leader).GetSegments(), before)
	tr.finish()
}
