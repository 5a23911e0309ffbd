package nomad_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/nomad/api"
	"github.com/stretchr/testify/require"
)

func TestTheClusterIsRolledOneByOne(t *testing.T) {
	job := jobs(t)["logd"]
	g := group(t, job)
	for _, u := range []*api.UpdateStrategy{job.Update, g.Update} {
		require.Equal(t, 1, *u.MaxParallel)
		require.Zero(t, *u.Canary)
		require.Equal(t, "checks", *u.HealthCheck)
		require.False(t, *u.AutoRevert)
	}
	require.Equal(t, 1, *g.Migrate.MaxParallel)
	require.Equal(t, "checks", *g.Migrate.HealthCheck)
	require.Equal(t, []*api.Constraint{{Operand: "distinct_hosts", RTarget: "true"}}, g.Constraints)
	require.False(t, *g.Disconnect.Replace)

	node, _ := place{"logd", "logd", g, g.Tasks[0]}.load(t)
	mount := g.Tasks[0].VolumeMounts[0]
	require.True(t, strings.HasPrefix(node.DataDir, *mount.Destination+"/"))
	require.False(t, *mount.ReadOnly)
	volume := g.Volumes[*mount.Volume]
	require.Equal(t, "host", volume.Type)
	require.Contains(t, clientConfig(t).volumes, volume.Source)
}

// A client is what client.nomad.hcl says of hosts.
type client struct {
	maxKill time.Duration
	volumes []string
}

func clientConfig(t *testing.T) (c client) {
	t.Helper()
	path := folder + "/client.nomad.hcl"
	src, err := os.ReadFile(path)
	require.NoError(t, err)
	file, diags := hclsyntax.ParseConfig(src, path, hcl.InitialPos)
	require.False(t, diags.HasErrors(), diags)
	body := file.Body.(*hclsyntax.Body)
	require.Len(t, body.Blocks, 1)
	require.Equal(t, "client", body.Blocks[0].Type)
	body = body.Blocks[0].Body
	v, diags := body.Attributes["max_kill_timeout"].Expr.Value(nil)
	require.False(t, diags.HasErrors(), diags)
	c.maxKill, err = time.ParseDuration(v.AsString())
	require.NoError(t, err)
	for _, b := range body.Blocks {
		require.Equal(t, "host_volume", b.Type)
		c.volumes = append(c.volumes, b.Labels...)
	}
	return c
}
