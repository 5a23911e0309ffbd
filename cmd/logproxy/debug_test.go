package main

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

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
