package e2e_test

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/test/harness"
)

// TestChaos kills, pauses, restarts and deposes nodes at random under naive
// clients of every kind, who must notice nothing: no error, and nothing they are
// told contradicts the promises as package history checks them. A second proxy is
// killed, too: clients with a session and request ids of their own move between the
// two, and are promised the same.
//
// LOGD_CHAOS=5m makes it as long; LOGD_CHAOS_SEED repeats a run's order of events.
func TestChaos(t *testing.T) {
	length := 15 * time.Second
	if v := os.Getenv("LOGD_CHAOS"); v != "" {
		var err error
		length, err = time.ParseDuration(v)
		require.NoError(t, err)
	}
	seed := uint64(time.Now().UnixNano())
	if v := os.Getenv("LOGD_CHAOS_SEED"); v != "" {
		var err error
		seed, err = strconv.ParseUint(v, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("LOGD_CHAOS_SEED=%d", seed)

	w := prepareFor(t, nil, length+4*time.Minute, ofApp)
	_, err := w.AddProxy("")
	require.NoError(t, err)
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))
	c := newCrowd(w)
	c.start()
	w.storm(rand.New(rand.NewPCG(seed, 1)), length, c.failed)
	c.plantsAreFound(c.finish())
}

// storm does one bad thing after another, and waits after each until all nodes
// are well: what is promised is promised for the loss of one, and for a majority
// that is away for less than produces are held.
func (w *world) storm(rng *rand.Rand, length time.Duration, failed <-chan struct{}) {
	t := w.t
	names := []string{
		"kill", "kill and start at once", "stop", "term", "transfer", "kill two", "stop two", "stop the proxy",
		"kill the second proxy", "stop the second proxy",
	}
	second := w.Proxy[1]
	for end := time.Now().Add(length); time.Now().Before(end) && w.ctx.Err() == nil; {
		select {
		case <-failed:
			return
		default:
		}
		n, who := w.leader(), "leader"
		if rng.IntN(3) == 0 {
			n, who = w.Nodes[rng.IntN(len(w.Nodes))], "node"
		}
		other := w.Nodes[rng.IntN(len(w.Nodes))]
		down := time.Duration(rng.IntN(2500)) * time.Millisecond
		what := rng.IntN(len(names))
		t.Logf("%s: %s %s, %s", names[what], who, n.Name, down)
		switch what {
		case 0:
			require.NoError(t, n.Kill())
			w.pause(down)
			require.NoError(t, n.Process.Start())
		case 1:
			require.NoError(t, n.Kill())
			require.NoError(t, n.Process.Start())
		case 2:
			w.stopped(down, n.Process)
		case 3:
			ctx, cancel := context.WithTimeout(w.ctx, patience)
			require.NoError(t, n.Stop(ctx))
			cancel()
			require.NoError(t, n.Process.Start())
		case 4:
			w.depose(rng)
		case 5:
			require.NoError(t, n.Kill())
			if other != n {
				require.NoError(t, other.Kill())
			}
			w.pause(down / 2)
			require.NoError(t, w.Start())
		case 6:
			w.stopped(down, n.Process, other.Process)
		case 7:
			w.stopped(down, w.proxy.Process)
		case 8:
			require.NoError(t, second.Kill())
			w.pause(down / 4)
			require.NoError(t, second.Start())
			ctx, cancel := context.WithTimeout(w.ctx, patience)
			require.NoError(t, w.ProxyReady(ctx, second))
			cancel()
		case 9:
			w.stopped(down, second.Process)
		}
		for _, n := range w.Nodes {
			ctx, cancel := context.WithTimeout(w.ctx, patience)
			require.NoError(t, w.NodeReady(ctx, n))
			cancel()
		}
		w.pause(time.Duration(rng.IntN(1000)) * time.Millisecond)
	}
}

// stopped lets processes stand still for d.
func (w *world) stopped(d time.Duration, ps ...*harness.Process) {
	w.t.Helper()
	for _, p := range ps {
		require.NoError(w.t, p.Signal(syscall.SIGSTOP))
	}
	w.pause(d)
	for _, p := range ps {
		require.NoError(w.t, p.Signal(syscall.SIGCONT))
	}
}

// depose hands leadership to some other node. That it fails is no fault: the
// leader may have lost it meanwhile.
func (w *world) depose(rng *rand.Rand) {
	st := w.stats(w.leader())
	target := st.GetPeers()[rng.IntN(len(st.GetPeers()))].GetId()
	conn, err := w.Dial("admin", w.leader())
	require.NoError(w.t, err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
	defer cancel()
	if _, err := nodev1.NewNodeClient(conn).TransferLeadership(ctx, &nodev1.TransferLeadershipRequest{TargetId: target}); err != nil {
		w.t.Logf("transfer to %s: %v", target, err)
	}
}

func (w *world) pause(d time.Duration) { rest(w.ctx, d) }

// rest waits for d or the end of ctx.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
