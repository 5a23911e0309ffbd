package k8s_test

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	certv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	monv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	sigsyaml "sigs.k8s.io/yaml"
)

const manifests = repo + "/deploy/k8s"

// chartDir is seen from here, or from where a stand-in for helm runs.
var chartDir = filepath.Join(cmp.Or(os.Getenv("REPO"), repo), "deploy/helm/logd")

// A rendering is everything that one way of deploying asks Kubernetes for.
type rendering struct {
	name      string
	namespace string // where objects without one go
	objects   []metav1.Object
}

// values are the sets of values that the chart is rendered with, beside its own.
var values = map[string]string{
	"default": ``,
	"hand-made certificates and a gateway": `
gateway: {enabled: true}
acl: {policy: "p, alice, *, produce\n"}
settings: {retain: {age: 168h, size: 7GiB}}
`,
	"cert-manager": `
nodes: {replicas: 5, spread: preferred, memoryMiB: 2048, storage: {size: 100Gi, class: fast}}
tls: {certManager: {enabled: true}}
gateway: {enabled: true, replicas: 3, memoryMiB: 160}
monitoring: {enabled: true, labels: {release: prometheus}}
`,
	"another's issuer": `
clusterName: eu-1
nodes:
  replicas: 1
  spread: none
  nodeSelector: {disk: nvme}
  tolerations: [{key: logd, operator: Exists, effect: NoSchedule}]
  priorityClassName: high
image: {repository: "registry.example.net:5000/logd", tag: v1, pullPolicy: Always, pullSecrets: [{name: registry}]}
settings: {drainTimeoutSeconds: 120, logLevel: debug, extra: "retain {\n  age = \"1h\"\n}\n"}
tls: {certManager: {enabled: true, issuer: {name: company, kind: ClusterIssuer}}}
networkPolicy: {enabled: false}
`,
}

// renderings are all ways of deploying to Kubernetes that we ship: each folder
// that kubectl apply -k takes, and the chart.
func renderings(t *testing.T) []rendering {
	t.Helper()
	if cached == nil {
		cached = render(t)
	}
	return cached
}

var cached []rendering // what render made; the tests change nothing of it

func render(t *testing.T) []rendering {
	t.Helper()
	var all []rendering
	for _, dir := range []string{"base", "overlays/*", "sidecar", "job"} {
		paths, err := filepath.Glob(filepath.Join(manifests, dir))
		require.NoError(t, err)
		require.NotEmpty(t, paths, dir)
		for _, path := range paths {
			text, err := kustomize(path)
			require.NoError(t, err)
			namespace := "default"
			if dir == "base" {
				namespace = "logd"
			}
			name, err := filepath.Rel(manifests, path)
			require.NoError(t, err)
			all = append(all, rendering{name, namespace, decode(t, text)})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		text, err := helm(t, values[name], "")
		require.NoError(t, err)
		all = append(all, rendering{"helm, " + name, "storage", decode(t, text)})
	}
	// The names follow the release's.
	text, err := helm(t, values["cert-manager"], "orders")
	require.NoError(t, err)
	return append(all, rendering{"helm, another release", "storage", decode(t, text)})
}

// rendered is one of renderings.
func rendered(t *testing.T, name string) rendering {
	t.Helper()
	all := renderings(t)
	i := slices.IndexFunc(all, func(r rendering) bool { return r.name == name })
	require.GreaterOrEqual(t, i, 0, name)
	return all[i]
}

// kustomize does what `kubectl kustomize` does.
func kustomize(dir string) ([]byte, error) {
	m, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, err
	}
	return m.AsYaml()
}

// helm does what `helm template` does. The error may be the schema's.
func helm(t *testing.T, values, release string) ([]byte, error) {
	t.Helper()
	given, err := chartutil.ReadValues([]byte(values))
	require.NoError(t, err, values)
	if release == "" {
		release = "logd"
	}
	files, err := template(given, release, "storage")
	if err != nil {
		return nil, err
	}
	var all bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(name, ".yaml") {
			all.WriteString("---\n" + files[name] + "\n")
		}
	}
	return all.Bytes(), nil
}

// template renders the chart's files.
func template(values map[string]any, release, namespace string) (map[string]string, error) {
	chart, err := loader.LoadDir(chartDir)
	if err != nil {
		return nil, err
	}
	options := chartutil.ReleaseOptions{Name: release, Namespace: namespace, Revision: 1, IsInstall: true}
	render, err := chartutil.ToRenderValues(chart, values, options, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	return engine.Engine{Strict: true}.Render(chart, render)
}

// helmNotes is what is shown to who installs.
func helmNotes(t *testing.T, values string) string {
	t.Helper()
	given, err := chartutil.ReadValues([]byte(values))
	require.NoError(t, err, values)
	files, err := template(given, "logd", "storage")
	require.NoError(t, err)
	return files["logd/templates/NOTES.txt"]
}

// kinds are the types that the API servers decode our objects into.
var kinds = map[string]func() metav1.Object{
	"v1/ConfigMap":                            func() metav1.Object { return &corev1.ConfigMap{} },
	"v1/Namespace":                            func() metav1.Object { return &corev1.Namespace{} },
	"v1/Service":                              func() metav1.Object { return &corev1.Service{} },
	"v1/ServiceAccount":                       func() metav1.Object { return &corev1.ServiceAccount{} },
	"apps/v1/Deployment":                      func() metav1.Object { return &appsv1.Deployment{} },
	"apps/v1/StatefulSet":                     func() metav1.Object { return &appsv1.StatefulSet{} },
	"batch/v1/Job":                            func() metav1.Object { return &batchv1.Job{} },
	"networking.k8s.io/v1/NetworkPolicy":      func() metav1.Object { return &networkingv1.NetworkPolicy{} },
	"policy/v1/PodDisruptionBudget":           func() metav1.Object { return &policyv1.PodDisruptionBudget{} },
	"cert-manager.io/v1/Certificate":          func() metav1.Object { return &certv1.Certificate{} },
	"cert-manager.io/v1/Issuer":               func() metav1.Object { return &certv1.Issuer{} },
	"monitoring.coreos.com/v1/PodMonitor":     func() metav1.Object { return &monv1.PodMonitor{} },
	"monitoring.coreos.com/v1/PrometheusRule": func() metav1.Object { return &monv1.PrometheusRule{} },
	"monitoring.coreos.com/v1/ServiceMonitor": func() metav1.Object { return &monv1.ServiceMonitor{} },
}

// decode reads objects as an API server with strict field validation does: what
// a type does not have, and what is there twice, is an error.
func decode(t *testing.T, text []byte) []metav1.Object {
	t.Helper()
	var objects []metav1.Object
	seen := map[string]bool{}
	reader := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects
		}
		require.NoError(t, err)
		var meta metav1.TypeMeta
		require.NoError(t, sigsyaml.Unmarshal(doc, &meta), "%s", doc)
		if meta == (metav1.TypeMeta{}) {
			var nothing any
			require.NoError(t, sigsyaml.Unmarshal(doc, &nothing))
			require.Nil(t, nothing, "%s", doc)
			continue
		}
		kind := meta.APIVersion + "/" + meta.Kind
		require.Contains(t, kinds, kind)
		object := kinds[kind]()
		require.NoError(t, sigsyaml.UnmarshalStrict(doc, object), "%s", doc)
		require.Empty(t, validation.IsDNS1123Subdomain(object.GetName()), "%s %q", kind, object.GetName())
		for key, value := range object.GetLabels() {
			require.Empty(t, validation.IsQualifiedName(key), key)
			require.Empty(t, validation.IsValidLabelValue(value), value)
		}
		id := kind + " " + object.GetNamespace() + "/" + object.GetName()
		require.False(t, seen[id], "%s is there twice", id)
		seen[id] = true
		objects = append(objects, object)
	}
}

// of are the objects of one type.
func of[T metav1.Object](r rendering) []T {
	var all []T
	for _, o := range r.objects {
		if typed, ok := o.(T); ok {
			all = append(all, typed)
		}
	}
	return all
}

// named is the one of a type with a name.
func named[T metav1.Object](t *testing.T, r rendering, name string) T {
	t.Helper()
	for _, o := range of[T](r) {
		if o.GetName() == name {
			return o
		}
	}
	require.Fail(t, "there is none", "%T %q in %s", *new(T), name, r.name)
	panic("not reached")
}
