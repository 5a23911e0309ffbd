package nomad_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

func TestPrometheusScrapesWhatNomadKnows(t *testing.T) {
	g := group(t, jobs(t)["prometheus"])
	task := g.Tasks[0]
	require.Len(t, task.Templates, 1)
	tmpl := task.Templates[0]
	require.Equal(t, "SIGHUP", *tmpl.ChangeSignal)
	require.Contains(t, task.Config["args"], "--config.file=/"+*tmpl.DestPath)
	type scrape struct {
		ScrapeConfigs []struct {
			JobName       string `yaml:"job_name"`
			StaticConfigs []struct {
				Targets []string
				Labels  map[string]string
			} `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	var got, other scrape
	require.NoError(t, yaml.Unmarshal([]byte(render(t, *tmpl.EmbeddedTmpl, nil)), &got))
	require.Equal(t, []string{"10.0.0.1:8402", "10.0.0.2:8402"}, got.ScrapeConfigs[0].StaticConfigs[0].Targets)
	require.Equal(t, []string{"10.0.0.1:23001", "10.0.0.2:23002"}, got.ScrapeConfigs[1].StaticConfigs[0].Targets)
	text, err := os.ReadFile(repo + "/deploy/prometheus/prometheus.yml")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, &other))
	for i, s := range got.ScrapeConfigs { // rules and dashboards go by it
		require.Equal(t, other.ScrapeConfigs[i].JobName, s.JobName)
		require.Equal(t, map[string]string{"cluster": "nomad"}, s.StaticConfigs[0].Labels)
	}
}
