package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/internal/cli/clitest"
	"github.com/logd-io/logd/pkg/telemetry"
)

func TestDebug(t *testing.T) {
	logger, err := telemetry.NewLogger(telemetry.LogOptions{Level: "info", Format: "text"})
	require.NoError(t, err)
	addr := startAdmin(t, telemetry.AdminOptions{
		Ready:    func() []string { return []string{"no leader known"} },
		Status:   func() any { return map[string]string{"leader_id": "n1"} },
		Gatherer: telemetry.NewRegistry("logproxy", telemetry.Build{}), Profiling: true, Logger: logger,
	})
	file := filepath.Join(t.TempDir(), "d.tar.gz")
	got := logproxy(t, "debug", "-admin", addr, "-for", "1100ms", "-every", "1s", "-o", file, "-format", "json")
	require.Equal(t, 0, got.code, got.stderr)
	var told struct {
		File    string
		Missing []struct{ File, Why string }
	}
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &told))
	require.Equal(t, file, told.File)
	require.Len(t, told.Missing, 1, "there are no events here")
	require.Equal(t, "events.jsonl", told.Missing[0].File)

	files := clitest.Archive(t, file)
	require.ElementsMatch(t, []string{
		"about.json", "readyz.txt", "metrics-0s.prom", "metrics-1s.prom", "log.txt", "cpu.pprof", "heap.pprof", "goroutines.txt",
	}, slices.Collect(maps.Keys(files)))
	require.Equal(t, "no leader known\n", files["readyz.txt"])
	require.Contains(t, files["goroutines.txt"], "telemetry.(*Admin).Run")
	require.NotEmpty(t, files["cpu.pprof"])

	info, err := os.Stat(file)
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode())
	beside, err := os.ReadDir(filepath.Dir(file))
	require.NoError(t, err)
	require.Len(t, beside, 1, "what it was gathered in is gone")

	got = logproxy(t, "debug", "-admin", addr, "-for", "1s", "-o", file)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "exists")
	require.Equal(t, files, clitest.Archive(t, file), "it is left alone")
}

func TestDebugOfNobody(t *testing.T) {
	file := filepath.Join(t.TempDir(), "d.tar.gz")
	got := logproxy(t, "debug", "-admin", "127.0.0.1:1", "-o", file)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "is it running")
	require.NoFileExists(t, file)
	require.Equal(t, 2, logproxy(t, "debug", "-for", "0s").code)
}

// A process that says little, too much, or goes away, and somebody who does not wait: there
// is an archive, and it says what is missing.
func TestDebugOfAProcessInTrouble(t *testing.T) {
	asked := make(chan struct{}, 2) // 1 each of log and events
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/status":
			_, _ = io.WriteString(w, "{}")
		case "/metrics":
			for range 17 {
				_, _ = w.Write(make([]byte, 1<<20)) // who has enough goes
			}
		case "/api/monitor", "/api/events":
			w.(http.Flusher).Flush()
			asked <- struct{}{}
			<-r.Context().Done()
		default:
			panic(http.ErrAbortHandler)
		}
	}))
	defer srv.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { // done once both are read
		<-asked
		<-asked
		cancel()
	}()
	var out, errs bytes.Buffer
	code := cli.Main(ctx, "logproxy", "1.2.3", commands(telemetry.ReadBuild("1.2.3")), cli.Env{Stdout: &out, Stderr: &errs},
		[]string{"debug", "-admin", srv.Listener.Addr().String(), "-for", "1h", "-o", "-"})
	require.Equal(t, 0, code, errs.String())
	file := filepath.Join(t.TempDir(), "d.tar.gz")
	require.NoError(t, os.WriteFile(file, out.Bytes(), 0o600))
	files := clitest.Archive(t, file)
	require.Contains(t, files, "about.json")
	require.Len(t, files["metrics-0s.prom"], 16<<20)
	require.Contains(t, errs.String(), "missing: metrics-0s.prom: cut after 16 MiB\n")
	for _, name := range []string{"readyz.txt", "goroutines.txt", "heap.pprof"} {
		require.Contains(t, errs.String(), "missing: "+name+": ")
		require.NotContains(t, files, name)
	}
}
