//go:build system

package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// toolsMark hands the tools to the process with a network of its own, in which
// they could not be fetched.
const toolsMark = "LOGD_TEST_TOOLS"

// clientTool is the path of a client that tools/test pins: where make test-system
// has built it, or else built here.
func clientTool(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv(toolsMark)
	if dir == "" {
		dir = t.TempDir()
		cmd := exec.Command("go", "build", "-buildvcs=false", "-o", dir+string(filepath.Separator), "tool")
		cmd.Dir = filepath.Join(repo, "tools", "test")
		cmd.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		t.Setenv(toolsMark, dir)
	}
	return filepath.Join(dir, name)
}
