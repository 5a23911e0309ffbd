package agent_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/agent"
)

// Two processes in one data directory would be two nodes with one id.
func TestDataDirHasOneOwner(t *testing.T) {
	w := newWorld(t)
	c := w.config("n1", 1)
	a, err := agent.Open(c, agent.Deps{})
	require.NoError(t, err)
	_, err = agent.Open(c, agent.Deps{})
	require.ErrorContains(t, err, "in use by another logd process")
	require.NoError(t, a.Close())
	a, err = agent.Open(c, agent.Deps{})
	require.NoError(t, err)
	require.NoError(t, a.Close())
}

// A data directory is made for its owner alone, and one that others can get at is told
// of: it is not refused, since some volumes are mounted like that.
func TestDataDirOpenToOthersIsTold(t *testing.T) {
	w := newWorld(t)
	c := w.config("n1", 1)
	opened := func() string {
		var log bytes.Buffer
		a, err := agent.Open(c, agent.Deps{Logger: hclog.New(&hclog.LoggerOptions{Output: &log})})
		require.NoError(t, err)
		require.NoError(t, a.Close())
		return log.String()
	}
	const told = "data_dir is open to others"
	require.NotContains(t, opened(), told)
	info, err := os.Stat(c.DataDir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	for _, mode := range []os.FileMode{0o710, 0o740, 0o770, 0o701, 0o755} {
		require.NoError(t, os.Chmod(c.DataDir, mode))
		require.Contains(t, opened(), told, "%v", mode)
	}
}
