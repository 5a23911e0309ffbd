package monitoring_test

import (
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"

	"github.com/logd-io/logd/test/monitoring"
)

var update = flag.Bool("update", false, "write the rules and dashboards in deploy")

const repo = "../.."

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repo, path))
	require.NoError(t, err)
	return string(text)
}

func TestTheFilesAreWhatIsMade(t *testing.T) {
	files, err := monitoring.Files()
	require.NoError(t, err)
	for path, want := range files {
		if *update {
			require.NoError(t, os.WriteFile(filepath.Join(repo, path), want, 0o644))
		}
		require.Equal(t, string(want), read(t, path), "%s: go test ./test/monitoring -update writes it", path)
	}
}

// metric is a row of docs/ops/metrics.md, which another test holds against what
// running processes have.
type metric struct {
	in, kind string
	labels   []string
}

var metricRow = regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\| (logd|logproxy|both) \\| (\\w+) \\| ([a-z_, ]*) \\|")

func metrics(t *testing.T) map[string]metric {
	t.Helper()
	all := map[string]metric{}
	for _, m := range metricRow.FindAllStringSubmatch(read(t, "docs/ops/metrics.md"), -1) {
		var labels []string
		for l := range strings.SplitSeq(m[4], ",") {
			if l = strings.TrimSpace(l); l != "" {
				labels = append(labels, l)
			}
		}
		all[m[1]] = metric{m[2], m[3], labels}
	}
	require.Greater(t, len(all), 100)
	return all
}

// asked is one expression, and where it stands.
type asked struct{ place, expr string }

func expressions() (all []asked) {
	for _, g := range monitoring.Rules() {
		for _, r := range g.Rules {
			all = append(all, asked{g.Name + ": " + r.Alert + r.Record, r.Expr})
		}
	}
	for _, d := range []monitoring.Dashboard{monitoring.Node(), monitoring.Proxy()} {
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				all = append(all, asked{d.Title + ": " + p.Title, target.Expr})
			}
		}
	}
	return all
}

// What a scrape adds to every series.
var ofTheScrape = []string{"job", "instance", "cluster", "namespace"}

// What PromQL understands, as far as it is used.
var ofPromQL = strings.Fields(`sum clamp_min max min count rate increase histogram_quantile min_over_time max_over_time predict_linear
	absent time vector floor and or on group_right by`)

func TestEveryMetricAndLabelExists(t *testing.T) {
	known := metrics(t)
	recorded := map[string]bool{}
	for _, g := range monitoring.Rules() {
		for _, r := range g.Rules {
			recorded[r.Record] = true
		}
	}
	for _, a := range expressions() {
		selectors := monitoring.Selectors(a.expr)
		require.NotEmpty(t, selectors, "%s: no metric in %s", a.place, a.expr)
		grouped := append([]string{"le"}, ofTheScrape...)
		for _, s := range selectors {
			labels := slices.Clone(ofTheScrape)
			switch {
			case s.Metric == "up" || strings.HasPrefix(s.Metric, "go_") || strings.HasPrefix(s.Metric, "process_") || recorded[s.Metric]:
			default:
				name := s.Metric
				if _, ok := known[name]; !ok {
					for _, suffix := range []string{"_bucket", "_sum", "_count"} {
						if base, cut := strings.CutSuffix(s.Metric, suffix); cut {
							name = base
						}
						if suffix == "_bucket" && name != s.Metric {
							labels = append(labels, "le")
						}
					}
					require.Contains(t, []string{"histogram", "summary"}, known[name].kind, "%s: there is no %s", a.place, s.Metric)
				} else {
					require.Contains(t, []string{"gauge", "counter"}, known[name].kind, "%s: %s has no value of its own", a.place, name)
				}
				m := known[name]
				if strings.HasPrefix(a.place, "logproxy: ") {
					require.NotEqual(t, "logd", m.in, "%s: a proxy has no %s", a.place, name)
				}
				if strings.HasPrefix(a.place, "logd: ") {
					require.NotEqual(t, "logproxy", m.in, "%s: a node has no %s", a.place, name)
				}
				if m.kind == "counter" {
					require.Regexp(t, `(rate|increase)\(`+name, a.expr, "%s: a counter is shown by its growth", a.place)
				}
				labels = append(labels, m.labels...)
			}
			for _, l := range s.Labels() {
				require.Contains(t, labels, l, "%s: a label that %s has not", a.place, s.Metric)
			}
			grouped = append(grouped, labels...)
		}
		for _, l := range monitoring.Groupings(a.expr) {
			require.Contains(t, grouped, l, "%s: a label that no metric of %s has", a.place, a.expr)
		}
		for _, w := range monitoring.Words(a.expr) {
			require.Contains(t, ofPromQL, w, "%s: neither a metric nor a function in %s", a.place, a.expr)
		}
	}
}

// A name that is not there must be noticed, whatever it begins with.
func TestWhatIsUnknownIsNoticed(t *testing.T) {
	require.Equal(t, []string{"rate", "acme_total", "and"}, monitoring.Words(`rate(acme_total[5m]) and logd_x`))
	require.Equal(t, []monitoring.Selector{{"logd_x", ""}, {"up", `{job="logd"}`}},
		monitoring.Selectors(`sum by (job) (logd_x) > up{job="logd"} + logd_x`))
	require.Equal(t, []string{"job", "peer"}, monitoring.Groupings(`sum by (job, peer) (logd_x) or on () y`))
}

var (
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	link    = regexp.MustCompile(`\]\(([^):#]*\.md)?#([^)]+)\)`)
)

func headings(t *testing.T, page string) []string {
	t.Helper()
	var all []string
	for _, m := range heading.FindAllStringSubmatch(read(t, page), -1) {
		all = append(all, monitoring.Anchor(m[1]))
	}
	return all
}

func alerts() []monitoring.Rule {
	var all []monitoring.Rule
	for _, g := range monitoring.Rules() {
		for _, r := range g.Rules {
			if r.Alert != "" {
				all = append(all, r)
			}
		}
	}
	return all
}

// Whoever is called finds what it means and what to do.
func TestEveryAlertHasItsSection(t *testing.T) {
	page := read(t, monitoring.Runbook)
	there := headings(t, monitoring.Runbook)
	var names []string
	for _, r := range alerts() {
		names = append(names, r.Alert)
		require.Contains(t, []string{"critical", "warning", "info"}, r.Labels.Severity, r.Alert)
		require.NotEmpty(t, r.Annotations.Summary, r.Alert)
		require.NotEmpty(t, r.Annotations.Description, r.Alert)
		base, at, ok := strings.Cut(r.Annotations.RunbookURL, "#")
		require.True(t, ok && strings.HasSuffix(base, "/"+monitoring.Runbook), r.Annotations.RunbookURL)
		require.Contains(t, there, at, "%s has no section of its own", r.Alert)
		_, section, _ := strings.Cut(page, "\n### "+r.Alert+"\n")
		section, _, _ = strings.Cut(section, "\n#")
		require.Contains(t, section, "**Means:** ", r.Alert)
		require.Contains(t, section, "**Do:** ", r.Alert)
	}
	slices.Sort(names)
	require.Equal(t, names, slices.Compact(slices.Clone(names)), "a name is given twice")
	for _, m := range regexp.MustCompile(`(?m)^### (\w+)$`).FindAllStringSubmatch(page, -1) {
		require.Contains(t, names, m[1], "%s has a section of an alert that is gone", monitoring.Runbook)
	}
}

func TestLinksOfThePageLeadSomewhere(t *testing.T) {
	for _, m := range link.FindAllStringSubmatch(read(t, monitoring.Runbook), -1) {
		target := monitoring.Runbook
		if m[1] != "" {
			target = filepath.Join(filepath.Dir(monitoring.Runbook), m[1])
		}
		require.Contains(t, headings(t, target), m[2], "%s#%s", target, m[2])
	}
}

// promtool says whether the tests of the rules pass; this, that they are about all of
// them: each alert has one in which it is silent first, and then fires.
func TestEveryAlertIsTested(t *testing.T) {
	type sample struct {
		Labels string
		Value  float64
	}
	type unit struct {
		Tests []struct {
			Name  string
			Exprs []struct {
				Expr    string
				Samples []sample `yaml:"exp_samples"`
			} `yaml:"promql_expr_test"`
		}
	}
	paths, err := filepath.Glob(filepath.Join(repo, "deploy/prometheus/tests/*.yaml"))
	require.NoError(t, err)
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		var u unit
		require.NoError(t, yaml.Unmarshal(text, &u), path)
		for _, test := range u.Tests {
			for _, e := range test.Exprs {
				if e.Expr != firing {
					continue
				}
				name, _, _ := strings.Cut(test.Name, ",")
				hit := slices.ContainsFunc(e.Samples, func(s sample) bool { return s.Labels == `{alertname="`+name+`"}` })
				fires[name] = fires[name] || hit && silent[name]
				silent[name] = silent[name] || len(e.Samples) == 0
			}
		}
	}
	for _, r := range alerts() {
		require.True(t, silent[r.Alert], "%s: no test in which nothing fires", r.Alert)
		require.True(t, fires[r.Alert], "%s: no test in which it fires after a time in which it did not", r.Alert)
	}
}

// firing is how a test of the rules asks what fires.
const firing = `count by (alertname) (ALERTS{alertstate="firing"})`

func TestDashboardsAreWhole(t *testing.T) {
	for _, d := range []monitoring.Dashboard{monitoring.Node(), monitoring.Proxy()} {
		require.NotEmpty(t, d.UID)
		ids, titles := map[int]bool{}, map[string]bool{}
		taken := map[[2]int]string{}
		row := ""
		for _, p := range d.Panels {
			require.False(t, ids[p.ID], "%s: an id twice", p.Title)
			ids[p.ID] = true
			if p.Type == "row" {
				row = p.Title
				continue
			}
			require.False(t, titles[row+"/"+p.Title], "%s twice in %s", p.Title, row)
			titles[row+"/"+p.Title] = true
			require.Contains(t, []string{"stat", "timeseries"}, p.Type, "what Grafana has without a plugin")
			require.NotEmpty(t, p.Description, p.Title)
			require.NotEmpty(t, p.FieldConfig.Defaults.Unit, p.Title)
			require.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
			for x := range p.GridPos.W {
				for y := range p.GridPos.H {
					at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
					require.Empty(t, taken[at], "%s lies on it", p.Title)
					taken[at] = p.Title
				}
			}
			require.NotEmpty(t, p.Targets, p.Title)
			for _, target := range p.Targets {
				require.Equal(t, "${datasource}", target.Datasource.UID, p.Title)
				require.NotContains(t, target.Expr, "@", p.Title)
				for _, s := range monitoring.Selectors(target.Expr) {
					require.Contains(t, s.Matchers, `cluster=~"$cluster",job=~"$job",instance=~"$instance"}`, "%s: %s is not of the chosen", p.Title, s)
				}
				if !strings.Contains(target.Expr, " by ") && p.Type == "timeseries" {
					require.NotEmpty(t, target.LegendFormat, p.Title)
				}
			}
		}
	}
}

// Grafana is not here to be asked. That a file is JSON with the fields it reads is
// what can be seen without it.
func TestDashboardsAreJSON(t *testing.T) {
	uids := map[string]bool{}
	for _, path := range []string{"deploy/grafana/logd.json", "deploy/grafana/logproxy.json"} {
		var d map[string]any
		require.NoError(t, json.Unmarshal([]byte(read(t, path)), &d))
		require.Subset(t, slices.Collect(maps.Keys(d)), []string{"uid", "title", "schemaVersion", "panels", "templating", "time"})
		require.NotContains(t, d, "id", "that is the server's")
		require.NotContains(t, d, "__inputs", "it is imported by hand and provisioned alike")
		uids[d["uid"].(string)] = true
	}
	require.Len(t, uids, 2)
}
