package main

import (
	"bytes"
	"errors"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// build makes the program as make crash does: without the race detector, which
// would make it ten times slower and has nothing to find in one goroutine a log.
func build(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "crash")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-race=false", "-buildvcs=false", "-o", bin, ".").CombinedOutput()
	require.NoError(t, err, string(out))
	return bin
}

// crash runs the program, and returns what it said and whether all was well.
func crash(t *testing.T, bin string, args ...string) (stdout, stderr string, clean bool) {
	t.Helper()
	var out, progress bytes.Buffer
	cmd := exec.CommandContext(t.Context(), bin, args...)
	cmd.Stdout, cmd.Stderr = &out, &progress
	err := cmd.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		require.Equal(t, 1, exit.ExitCode(), progress.String())
	} else {
		require.NoError(t, err)
	}
	return out.String(), progress.String(), err == nil
}

// I2, I3, I5, I10, I11: a sample of what make crash does.
func TestCrashStates(t *testing.T) {
	const states = 50_000
	stdout, stderr, clean := crash(t, build(t), "-seed", "1", "-states", strconv.Itoa(states))
	require.True(t, clean, stderr)
	said := regexp.MustCompile(`(?m)^(\d+) crash states checked, 0 violations\n\z`).FindStringSubmatch(stdout)
	require.NotNil(t, said, stdout)
	n, err := strconv.Atoi(said[1])
	require.NoError(t, err)
	require.GreaterOrEqual(t, n, states)
	t.Log(stderr + stdout)
}

// Every planted bug is caught, by a check that is there for it; the table of
// them is bugs. The same workloads are clean without one.
func TestPlantedBugs(t *testing.T) {
	const seed = "7"
	bin := build(t)
	require.GreaterOrEqual(t, len(bugs()), 15)
	for _, b := range bugs() {
		t.Run(b.name, func(t *testing.T) {
			stdout, stderr, clean := crash(t, bin, "-procs", "1", "-brief", "-seed", seed, "-workloads", "10", "-plant", b.name)
			require.False(t, clean, "%s, and nothing noticed: %s", b.what, stdout)
			found := regexp.MustCompile(`VIOLATION \((\w+)\)`).FindStringSubmatch(stderr)
			require.NotNil(t, found, stderr)
			require.Contains(t, b.checks, found[1], stderr)
			require.Contains(t, stderr, "again: go run ./test/crash")
			t.Log(stderr)
		})
	}
	t.Run("none", func(t *testing.T) {
		stdout, stderr, clean := crash(t, bin, "-brief", "-seed", seed, "-workloads", "10")
		require.True(t, clean, stderr)
		require.Regexp(t, `^\d+ crash states checked, 0 violations\n$`, stdout)
	})
}
