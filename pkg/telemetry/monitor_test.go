package telemetry_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/telemetry"
)

// monitored is an admin server over a logger at level warn.
func monitored(t *testing.T, format string) (admin, *telemetry.Logger, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	l, err := telemetry.NewLogger(telemetry.LogOptions{Name: "logd", Level: "warn", Format: format, Output: &out})
	require.NoError(t, err)
	return startAdmin(t, telemetry.AdminOptions{Logger: l.Named("admin")}), l, &out
}

// watchLog opens /api/monitor.
func watchLog(t *testing.T, a admin, query string) (*bufio.Scanner, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.Addr().String()+"/api/monitor?"+query, nil)
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { _ = res.Body.Close() })
	require.Equal(t, http.StatusOK, res.StatusCode)
	return bufio.NewScanner(res.Body), cancel
}

func next(t *testing.T, s *bufio.Scanner) string {
	t.Helper()
	require.True(t, s.Scan(), "the stream has ended: %v", s.Err())
	return s.Text()
}

func TestMonitorShowsWhatTheLogItselfDoesNot(t *testing.T) {
	a, l, out := monitored(t, "text")
	sub := l.Named("replica").With("node", "n1")
	require.False(t, sub.IsDebug())
	all, stop := watchLog(t, a, "log_level=debug")
	require.Eventually(t, sub.IsDebug, 20*time.Second, time.Millisecond, "who asks first whether a line is seen says it")
	raft, _ := watchLog(t, a, "log_level=trace&name=replica.raft&format=json")
	require.Eventually(t, sub.IsTrace, 20*time.Second, time.Millisecond)

	sub.Debug("checkpoint", "index", 7)
	require.Regexp(t, `\[DEBUG\] logd\.replica: checkpoint: node=n1 index=7$`, next(t, all))
	sub.Trace("not for the first")
	sub.Named("raft").Trace("vote", "term", 3)
	require.Regexp(t, `"@module":"logd.replica.raft".*"term":3`, next(t, raft), "of one name, and below")
	sub.Warn("seen by both")
	require.Contains(t, next(t, all), "seen by both")
	require.Equal(t, 1, strings.Count(out.String(), "\n"), "the log itself is as it was: %s", out.String())

	stop()
	require.Eventually(t, func() bool { return sub.IsTrace() && l.Watchers() == 1 }, 20*time.Second, time.Millisecond)
	a.cancel()
	require.NoError(t, <-a.done)
	require.Equal(t, "# the process has stopped", next(t, raft))
	require.False(t, raft.Scan())
	require.NoError(t, raft.Err(), "a clean end")
	require.Eventually(t, func() bool { return l.Watchers() == 0 }, 20*time.Second, time.Millisecond)
	require.False(t, sub.IsDebug())
}

// Whoever logs never waits for whoever watches, and what it missed is said.
func TestMonitorDropsWhatIsNotRead(t *testing.T) {
	a, l, _ := monitored(t, "text")
	lines, _ := watchLog(t, a, "log_level=debug")
	require.Eventually(t, l.IsDebug, 20*time.Second, time.Millisecond)
	const n = 8000
	pad := strings.Repeat(".", 4<<10) // more in all than sockets take
	done := make(chan struct{})
	go func() {
		defer close(done)
		var writers sync.WaitGroup
		for range 4 {
			writers.Go(func() {
				for range n / 4 {
					l.Debug("a line that is long", "pad", pad)
				}
			})
		}
		writers.Wait()
	}()
	select {
	case <-done:
	case <-time.After(60 * time.Second):
		t.Fatal("the log waits for somebody who does not read")
	}
	l.Debug("the last")
	got, dropped := 0, 0
	for lines.Scan() {
		var k int
		line := lines.Text()
		switch {
		case strings.Contains(line, "a line that"):
			got++
		case strings.HasPrefix(line, "# "):
			_, err := fmt.Sscanf(line, "# %d lines were dropped", &k)
			require.NoError(t, err, line)
			dropped += k
		}
		if got+dropped >= n {
			break
		}
	}
	require.NoError(t, lines.Err())
	require.Positive(t, dropped)
	t.Logf("%d lines came, %d were dropped", got, dropped)
	require.GreaterOrEqual(t, got+dropped, n, "every line came, or is counted")
}

func TestMonitorIsForThisMachineAndBounded(t *testing.T) {
	a, l, _ := monitored(t, "text")
	base := "http://" + a.Addr().String() + "/api/monitor"
	code, _ := get(t, base, "evil.example:80")
	require.Equal(t, http.StatusForbidden, code)
	for _, query := range []string{"?log_level=loud", "?log_level=off", "?format=xml", "?name=" + strings.Repeat("x", 300)} {
		code, body := get(t, base+query, "")
		require.Equal(t, http.StatusBadRequest, code, body)
	}
	for range 8 {
		watchLog(t, a, "")
	}
	code, body := get(t, base, "")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Contains(t, body, "8 watch the log already")
	require.Equal(t, 8, l.Watchers())
}

func TestNobodyWatchesALogOfAnotherKind(t *testing.T) {
	a := startAdmin(t, telemetry.AdminOptions{Logger: hclog.New(&hclog.LoggerOptions{Output: io.Discard})})
	code, _ := get(t, "http://"+a.Addr().String()+"/api/monitor", "")
	require.Equal(t, http.StatusNotFound, code)
}
