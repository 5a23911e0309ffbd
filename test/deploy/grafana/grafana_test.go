// Package grafana_test holds the dashboards to the model that Grafana publishes.
package grafana_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/stretchr/testify/require"
)

const folder = "../../../deploy/grafana"

// strictly says whether every field of a dashboard is known and none is missing. What
// it decodes is of no use: it takes its own empty errors for errors.
func strictly(text []byte) error {
	var d dashboard.Dashboard
	err := d.UnmarshalJSONStrict(text)
	var all cog.BuildErrors
	if errors.As(err, &all) && len(all) == 0 {
		return nil
	}
	return err
}

func TestDashboardsAreOfGrafanasModel(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	paths, err := filepath.Glob(filepath.Join(folder, "*.json"))
	require.NoError(t, err)
	require.Len(t, paths, 2)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, strictly(text), path)
		var d dashboard.Dashboard
		require.NoError(t, json.Unmarshal(text, &d))
		queries := 0
		for _, p := range d.Panels {
			if p.Panel == nil {
				require.NotNil(t, p.RowPanel)
				continue
			}
			for _, target := range p.Panel.Targets {
				require.IsType(t, new(prometheus.Dataquery), target, path)
				queries++
			}
		}
		require.Greater(t, queries, 30, path)

		// What the model does not have is refused, in an option as well.
		for _, known := range []string{`"schemaVersion"`, `"justifyMode"`, `"legendFormat"`} {
			require.ErrorContains(t, strictly(bytes.Replace(text, []byte(known), []byte(`"acme"`), 1)), "acme", path)
		}
	}
}
