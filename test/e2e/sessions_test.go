package e2e_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/test/harness"
)

// I13: sessions while followers lag, which is when one could be shown less than it was
// told. Followers are stopped in turns; then one is stopped, records are acknowledged
// without it, and the leader is killed: until there is another, the follower that lags
// is one of the two that answer. Just before that a proxy is killed as well, which forgets
// all sessions. Half of the clients have one proxy only, the others go to and fro between
// two; all take their position along.
func TestSessionsOnFollowersThatLag(t *testing.T) {
	t.Parallel()
	w := prepare(t, nil, ofApp, func(o *harness.Options) { o.Heartbeat = time.Second })
	_, err := w.AddProxy("")
	require.NoError(t, err)
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))
	c := newCrowd(w)
	const clients, writers = 8, 2
	for i := range clients + 2*writers {
		proxies := w.Proxy
		if i%2 == 0 {
			proxies = w.Proxy[:1]
		}
		m := c.newMover(i, proxies...)
		if i < clients {
			// Where the log ends is what a follower that lags could be wrong about.
			m.steps = append(m.steps, m.ends, m.ends, m.reread)
		} else {
			m.steps = []func(int) error{m.write}
		}
		c.wg.Go(func() { m.run(i) })
	}
	for i := range 4 {
		w.stopped(200*time.Millisecond, w.followers()[i%2].Process)
		w.pause(100 * time.Millisecond)
	}
	l := lags{c: c}
	for round := range 3 {
		l.behind(w.followers()[round%2], w.Proxy[round%2])
	}
	for _, p := range w.Proxy {
		l.count(p)
	}
	require.GreaterOrEqual(t, len(l.by), 2, "a follower was to be behind when the leader was killed: %v", l.by)
	require.Positive(t, l.refused, "reads that a follower was too far behind for")
	c.finish()
	t.Logf("followers were behind by %v records; %v reads were refused for it, and %v asked the leader first", l.by, l.refused, l.asked)
}

// lags is what was seen of lagging followers.
type lags struct {
	c              *crowd
	by             []uint64 // records acknowledged that a follower in use had not
	refused, asked float64  // reads, by the proxies' metrics
}

// count adds what p has counted since it was started.
func (l *lags) count(p *harness.Proxy) {
	l.c.w.t.Helper()
	l.refused += l.c.w.gauge(p.Admin, "logproxy_forward_session_behind_total")
	l.asked += l.c.w.gauge(p.Admin, "logproxy_forward_session_asks_total")
}

// behind makes f lag, kills p and the leader, and waits until all is well again.
func (l *lags) behind(f *harness.Node, p *harness.Proxy) {
	w := l.c.w
	t := w.t
	t.Helper()
	leader := w.leader()
	require.NoError(t, f.Signal(syscall.SIGSTOP))
	l.count(p)
	require.NoError(t, p.Kill())
	require.NoError(t, p.Start())
	want := l.c.appended.Load() + 30
	w.until("records that the follower has not", func() error {
		if n := l.c.appended.Load(); n < want {
			return errors.Join(l.c.err(), fmt.Errorf("%d of %d", n, want))
		}
		return nil
	})
	// What is acknowledged was below this in the log, whoever has heard of it.
	acked := l.c.appended.Load()
	require.NoError(t, leader.Kill())
	require.NoError(t, f.Signal(syscall.SIGCONT))
	// A read for nobody in particular.
	_, err := logv1.NewLogClient(w.dial("client", f)).Consume(w.ctx, &logv1.ConsumeRequest{Offset: acked - 1})
	if info, _ := apierr.From(err); info.Reason == apierr.ReasonBehind {
		visible, _ := info.Uint(apierr.KeyVisible)
		l.by = append(l.by, acked-visible)
	}
	require.NoError(t, leader.Process.Start())
	require.NoError(t, w.Ready(w.ctx))
}

// followers are the nodes that do not lead now.
func (w *world) followers() (fs []*harness.Node) {
	w.t.Helper()
	leader := w.leader()
	for _, n := range w.Nodes {
		if n != leader {
			fs = append(fs, n)
		}
	}
	return fs
}
