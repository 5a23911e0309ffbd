package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/telemetry"
)

// serveEvents is an admin server that says messages, as /api/events does.
func serveEvents(t *testing.T, messages ...string) string {
	t.Helper()
	return startAdmin(t, telemetry.AdminOptions{Page: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		require.Equal(t, "/api/events", r.URL.Path)
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "retry: 2000\n\n")
		for _, m := range messages {
			kind, data, _ := strings.Cut(m, " ")
			_, _ = fmt.Fprintf(w, "id: 7\nevent: %s\ndata: %s\n\n", kind, data)
		}
	})})
}

func TestStatusWatch(t *testing.T) {
	const (
		status = `status {"id":"p1","term":7,"leader_id":"n1.00000001","write":{"ok":true,"why":"produces go to n1"}}`
		hold   = `event {"id":7,"time":"2026-01-02T03:04:05Z","kind":"hold","severity":"warning","text":"held 512 produces for 740 ms","count":512}`
		leader = `event {"id":8,"time":"2026-01-02T03:04:05Z","kind":"leader","severity":"info","node_id":"n2.00000002","text":"leads (term 8)","times":3}`
		end    = `end {}`
	)
	got := logproxy(t, "status", "-watch", "-admin", serveEvents(t, status, hold, status, leader, `gone {"count":3}`, end))
	require.Equal(t, 0, got.code, got.stderr)
	require.Contains(t, got.stderr, "The proxy has stopped.")
	require.Equal(t, 1, strings.Count(got.stdout, "produces go to n1"), "the status is shown once")
	require.Regexp(t, `(?m)^\d\d:\d\d:\d\d  warning  held 512 produces for 740 ms$`, got.stdout)
	require.Regexp(t, `(?m)^\d\d:\d\d:\d\d  info     n2\.00000002 leads \(term 8\) \(3 times\)$`, got.stdout)
	require.Contains(t, got.stdout, "left out")

	got = logproxy(t, "status", "-watch", "-format", "json", "-admin", serveEvents(t, status, hold, end))
	require.Equal(t, 0, got.code, got.stderr)
	lines := strings.Split(strings.TrimSpace(got.stdout), "\n")
	require.Len(t, lines, 2)
	var line struct {
		Event struct{ Count int }
	}
	require.NoError(t, json.Unmarshal([]byte(lines[1]), &line))
	require.Equal(t, 512, line.Event.Count)

	got = logproxy(t, "status", "-watch", "-admin", serveEvents(t, status))
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "the process has gone")

	got = logproxy(t, "status", "-watch", "-admin", startAdmin(t, telemetry.AdminOptions{}))
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "404")
	busy := startAdmin(t, telemetry.AdminOptions{Page: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "16 are looking already", http.StatusServiceUnavailable)
	})})
	got = logproxy(t, "status", "-watch", "-admin", busy)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "16 are looking already")
}
