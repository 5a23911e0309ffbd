package k8s_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	monv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	sigsyaml "sigs.k8s.io/yaml"
)

func TestTheChartIsLinted(t *testing.T) {
	for name, text := range values {
		given, err := chartutil.ReadValues([]byte(text))
		require.NoError(t, err)
		for _, m := range lint.All(chartDir, given, "storage", true).Messages {
			require.LessOrEqual(t, m.Severity, support.InfoSev, "%s: %s", name, m.Error())
		}
	}
}

func TestWrongValuesAreRefused(t *testing.T) {
	for wrong, says := range map[string]string{
		"nodes: {replicas: 2}":                            "replicas",
		"nodes: {replicas: \"3\"}":                        "replicas",
		"nodes: {replicas: null}":                         "replicas",
		"nodes: {replica: 3}":                             "replica",
		"nodes: {memoryMiB: 64}":                          "memoryMiB",
		"nodes: {memoryMiB: 1Gi}":                         "memoryMiB",
		"nodes: {cpu: lots}":                              "cpu",
		"nodes: {storage: {size: 10GB}}":                  "size",
		"nodes: {storage: {size: 0Gi}}":                   "size",
		"nodes: {storage: {classs: fast}}":                "classs",
		"nodes: {spread: maybe}":                          "spread",
		"nodes: {tolerations: [{keys: logd}]}":            "keys",
		"nodes: {nodeSelector: {disk: 1}}":                "nodeSelector",
		"settings: {drainTimeoutSeconds: 0}":              "drainTimeoutSeconds",
		"settings: {drainTimeoutSeconds: 30s}":            "drainTimeoutSeconds",
		"settings: {heartbeatTimeout: 300}":               "heartbeatTimeout",
		"settings: {heartbeatTimeout: soon}":              "heartbeatTimeout",
		"settings: {logLevel: loud}":                      "logLevel",
		"settings: {retain: {age: 7d}}":                   "age",
		"settings: {retain: {size: 7Gi}}":                 "size",
		"clusterName: \"\"":                               "clusterName",
		"clusterName: a/b":                                "clusterName",
		"clusterName: a-":                                 "clusterName",
		"gossip: {secretName: Logd}":                      "secretName",
		"gossip: {key: pUqJrVyVRgsXsZHXPd3c1Y8i6cS2ZSRD}": "key",
		"tls: {certManagers: {enabled: true}}":            "certManagers",
		"tls: {certManager: {enabled: \"yes\"}}":          "enabled",
		"tls: {certManager: {duration: 90d}}":             "duration",
		"tls: {certManager: {issuer: {kind: Certifier}}}": "kind",
		"gateway: {enabled: true, memoryMiB: 100}":        "memoryMiB",
		"gateway: {replicas: 0}":                          "replicas",
		"image: {pullPolicy: Sometimes}":                  "pullPolicy",
		"image: {repository: \"Logd image\"}":             "repository",
		"image: {pullSecrets: [registry]}":                "pullSecrets",
		"networkPolicy: {enabled: 1}":                     "enabled",
		"monitoring: {interval: 15}":                      "interval",
		"replicas: 3":                                     "replicas",
	} {
		_, err := helm(t, wrong, "")
		require.ErrorContains(t, err, says, wrong)
		require.ErrorContains(t, err, "values don't meet the specifications of the schema", wrong)
	}
}

// Every value of the schema is in values.yaml, with what it is for a reader.
func TestTheSchemaAndTheValuesNameTheSame(t *testing.T) {
	var schema map[string]any
	read(t, filepath.Join(chartDir, "values.schema.json"), &schema)
	var defaults map[string]any
	read(t, filepath.Join(chartDir, "values.yaml"), &defaults)
	var compare func(path string, schema, value map[string]any)
	compare = func(path string, schema, value map[string]any) {
		require.Equal(t, false, schema["additionalProperties"], path)
		for name, s := range schema["properties"].(map[string]any) {
			if path+name == "global" { // Helm's own
				continue
			}
			require.Contains(t, value, name, path)
			if inner := s.(map[string]any); inner["properties"] != nil {
				compare(path+name+".", inner, value[name].(map[string]any))
			}
		}
	}
	compare("", schema, defaults)
}

func read(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, sigsyaml.Unmarshal(text, into))
}

// The notes are shown to who installs: they must render with all values.
func TestTheChartTellsWhatComesNext(t *testing.T) {
	for name, text := range values {
		notes := helmNotes(t, text)
		require.Contains(t, notes, "rollout status statefulset/logd", name)
		require.Equal(t, !strings.Contains(text, "certManager: {enabled: true"), strings.Contains(notes, "logd-tls"), name)
	}
}

// The PrometheusRules of the component and of the chart are deploy/prometheus's
// rules; -update copies them.
func TestPrometheusRulesAreThoseOfPrometheus(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(repo, "deploy/prometheus/*rules*.y*ml"))
	require.NoError(t, err)
	more, err := filepath.Glob(filepath.Join(repo, "deploy/prometheus/rules/*.y*ml"))
	require.NoError(t, err)
	want := monv1.PrometheusRuleSpec{Groups: []monv1.RuleGroup{}}
	for _, path := range append(paths, more...) {
		if strings.Contains(filepath.Base(path), "test") { // promtool's tests of them
			continue
		}
		var rules monv1.PrometheusRuleSpec
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, sigsyaml.UnmarshalStrict(text, &rules), path)
		want.Groups = append(want.Groups, rules.Groups...)
	}
	component := filepath.Join(manifests, "components/monitoring/prometheusrule.yaml")
	file := filepath.Join(chartDir, "files/rules.yaml")
	if *update {
		spec, err := sigsyaml.Marshal(want)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file, spec, 0o644))
		text, err := os.ReadFile(component)
		require.NoError(t, err)
		head, _, ok := strings.Cut(string(text), "\nspec:\n")
		require.True(t, ok)
		body := "  " + strings.ReplaceAll(strings.TrimSuffix(string(spec), "\n"), "\n", "\n  ")
		require.NoError(t, os.WriteFile(component, []byte(head+"\nspec:\n"+body+"\n"), 0o644))
	}
	rule := named[*monv1.PrometheusRule](t, rendered(t, "overlays/monitoring"), "logd")
	require.Equal(t, want.Groups, rule.Spec.Groups, "run: go test ./k8s -run PrometheusRule -update")
	rule = named[*monv1.PrometheusRule](t, rendered(t, "helm, cert-manager"), "logd")
	require.Equal(t, want.Groups, rule.Spec.Groups, "run: go test ./k8s -run PrometheusRule -update")
}
