package nomad_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/config"
)

func drain(n *config.Node, p *config.Proxy) time.Duration {
	if n != nil {
		return n.DrainTimeout
	}
	return p.DrainDelay + p.DrainTimeout
}

func TestCommandsAndFlagsAreThePrograms(t *testing.T) {
	for _, p := range ours(t) {
		_, rest, err := programs.Check(p.argv(t))
		require.NoError(t, err, "%s/%s", p.job, p.Name)
		require.Empty(t, rest)
		require.Equal(t, "65532:65532", p.User)
		require.Equal(t, true, p.Config["readonly_rootfs"])
		require.Equal(t, []any{"all"}, p.Config["cap_drop"])
		require.Equal(t, []any{"no-new-privileges"}, p.Config["security_opt"])
		require.NotEmpty(t, p.Config["image"])
	}
}

func TestStopsGiveTheTimeThatADrainTakes(t *testing.T) {
	most := clientConfig(t).maxKill
	for _, p := range ours(t) {
		if p.Lifecycle != nil && !p.Lifecycle.Sidecar {
			continue // it ends by itself
		}
		require.Equal(t, "SIGTERM", p.KillSignal, p.Name)
		require.LessOrEqual(t, *p.KillTimeout, most, "a client cuts it short")
	}
	for _, p := range agents(t) {
		require.Greater(t, *p.KillTimeout, drain(p.load(t)), p.job)
	}
}

// The sidecar runs before the program and is stopped after it; the program starts
// when the log can be used, and its end is the group's.
func TestSidecarsOutliveThePrograms(t *testing.T) {
	for _, name := range []string{"app", "batch"} {
		g := group(t, jobs(t)[name])
		require.Len(t, g.Tasks, 3)
		sidecar, wait, program := g.Tasks[0], g.Tasks[1], g.Tasks[2]
		require.Equal(t, &api.TaskLifecycle{Hook: api.TaskLifecycleHookPrestart, Sidecar: true}, sidecar.Lifecycle)
		require.Equal(t, &api.TaskLifecycle{Hook: api.TaskLifecycleHookPrestart}, wait.Lifecycle)
		require.Nil(t, program.Lifecycle)
		require.True(t, program.Leader)
		require.Equal(t, "bridge", g.Networks[0].Mode, "tasks share a loopback")

		_, proxy := place{name, *jobs(t)[name].ID, g, sidecar}.load(t)
		require.Equal(t, config.DefaultProxy().Listener, proxy.Listener, "where a program looks by default")
		require.Equal(t, []string{"logproxy", "wait", "-timeout", "5m"}, place{Task: wait}.argv(t))
		require.Equal(t, portOf(t, config.DefaultProxy().Admin.Address), portOf(t, proxy.Admin.Address), "where wait looks by default")
		require.Empty(t, program.Env)
		require.Empty(t, program.Templates)
	}
	require.Equal(t, api.JobTypeBatch, *jobs(t)["batch"].Type)
	require.Equal(t, api.JobTypeSystem, *jobs(t)["system"].Type)
}

func TestMemoryLimitsAreInOrder(t *testing.T) {
	for _, p := range agents(t) {
		text, ok := strings.CutSuffix(p.Env["GOMEMLIMIT"], "MiB")
		require.True(t, ok)
		soft, err := strconv.Atoi(text)
		require.NoError(t, err)
		require.Less(t, soft, *p.Resources.MemoryMB)
		require.Greater(t, soft, *p.Resources.MemoryMB*8/10)
		if node, proxy := p.load(t); node == nil {
			require.Less(t, int(proxy.Limits.Memory>>20), soft)
			require.Less(t, proxy.Produce.MaxHeldBytes, proxy.Limits.Memory)
		} else {
			require.Less(t, int((node.Log.CacheSize+node.Log.MaxInFlight)>>20), soft)
		}
	}
}
