package k8s_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/logd-io/logd/config"
)

// What README.md shows of a pod is one of Kubernetes', with our flags, variables and
// routes.
func TestTheReadmesSidecar(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(repo, "README.md"))
	require.NoError(t, err)
	m := regexp.MustCompile("(?s)\n```yaml kubernetes\n(.*?)\n```").FindSubmatch(readme)
	require.NotNil(t, m)
	var pod corev1.PodSpec
	require.NoError(t, yaml.UnmarshalStrict(m[1], &pod))
	require.Len(t, pod.InitContainers, 1)
	c := pod.InitContainers[0]
	require.Equal(t, corev1.ContainerRestartPolicyAlways, *c.RestartPolicy)
	_, _, err = programs.Check(c.Command)
	require.NoError(t, err)
	require.Equal(t, "/readyz", c.StartupProbe.HTTPGet.Path)

	var environ []string
	for _, e := range c.Env {
		environ = append(environ, e.Name+"="+e.Value)
	}
	proxy, err := config.LoadProxy(config.From{Paths: []string{filepath.Join(repo, "examples/hcl/proxy.hcl")}, Environ: environ})
	require.NoError(t, err)
	require.Equal(t, "0.0.0.0:8412", proxy.Admin.Address, "a kubelet asks from outside")
	require.Equal(t, 8412, c.StartupProbe.HTTPGet.Port.IntValue())
}
