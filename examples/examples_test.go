// Package examples_test loads every configuration that ships, the way the
// program it is for would.
package examples_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/logd-io/logd/config"
)

const deploy = "../deploy"

// TestEveryConfigurationLoads finds the files rather than listing them, so that
// a new one is loaded too. What a deployment puts into the environment is read
// from the deployment.
func TestEveryConfigurationLoads(t *testing.T) {
	environs := map[string][][]string{
		"../deploy/docker/config/node.hcl":   composeEnvirons(t, "node1", "node2", "node3"),
		"../deploy/docker/config/proxy.hcl":  composeEnvirons(t, "gateway"),
		"../deploy/k8s/base/logd.hcl":        {podEnviron(t, "k8s/base/statefulset.yaml", "logd-0"), podEnviron(t, "k8s/base/statefulset.yaml", "logd-2")},
		"../deploy/k8s/sidecar/logproxy.hcl": {podEnviron(t, "k8s/sidecar/deployment.yaml", "tail")},
		"../deploy/nomad/logd.hcl":           {{"LOGD_ADVERTISE_ADDR=10.0.0.1", "LOGD_RETRY_JOIN=10.0.0.1:8401,10.0.0.2:8401"}},
		"../deploy/nomad/logproxy.hcl":       {{"LOGPROXY_GOSSIP_RETRY_JOIN=10.0.0.1:8401,10.0.0.2:8401"}},
	}
	files := configurations(t)
	for file := range environs {
		require.Contains(t, files, file, "the deployment's configuration moved")
	}
	for _, file := range files {
		t.Run(strings.TrimPrefix(file, "../"), func(t *testing.T) {
			if filepath.Base(file) == "broken.hcl" {
				t.Skip("has a test of its own")
			}
			forms := environs[file]
			if forms == nil {
				forms = [][]string{nil}
			}
			for _, environ := range forms {
				require.NoError(t, load(file, environ), "with environment %q", environ)
			}
		})
	}
}

func TestTheBrokenExampleReportsItsThreeMistakes(t *testing.T) {
	err := load("hcl/broken.hcl", nil)
	var invalid *config.Error
	require.ErrorAs(t, err, &invalid)
	require.Len(t, invalid.Problems, 3, "%v", err)
	for _, part := range []string{"node1.example.net:84010", "heartbeat_timeout", "segment_sise", "hcl/broken.hcl"} {
		require.ErrorContains(t, err, part)
	}
}

// load reads a file as the program that its name says: a proxy's is called so.
func load(file string, environ []string) error {
	from := config.From{Paths: []string{file}, Environ: environ}
	if strings.Contains(filepath.Base(file), "proxy") {
		_, err := config.LoadProxy(from)
		return err
	}
	if base, _, overlay := strings.Cut(filepath.ToSlash(file), "/overlays/"); overlay { // read after base's
		from = config.From{Paths: []string{base + "/base/logd.hcl", file}, Environ: []string{"LOGD_TLS_CERT_FILE=a", "LOGD_TLS_KEY_FILE=b"}}
	}
	_, err := config.LoadNode(from)
	return err
}

// configurations lists the *.hcl of this folder and of deploy. A *.nomad.hcl is
// Nomad's, not ours.
func configurations(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, root := range []string{"hcl", deploy} {
		require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && filepath.Ext(path) == ".hcl" && !strings.HasSuffix(path, ".nomad.hcl") {
				files = append(files, filepath.ToSlash(path))
			}
			return err
		}))
	}
	require.NotEmpty(t, files)
	return files
}

func parse(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(deploy, file))
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, into))
}

// composeEnvirons are the environments of services of compose.yaml.
func composeEnvirons(t *testing.T, services ...string) [][]string {
	t.Helper()
	var compose struct {
		Services map[string]struct {
			Environment map[string]string
		}
	}
	parse(t, "docker/compose.yaml", &compose)
	var environs [][]string
	for _, name := range services {
		require.Contains(t, compose.Services, name)
		var environ []string
		for key, value := range compose.Services[name].Environment {
			environ = append(environ, key+"="+value)
		}
		require.NotEmpty(t, environ)
		environs = append(environs, environ)
	}
	return environs
}

// podEnviron is the environment of the container that runs our agent in the pod
// called name.
func podEnviron(t *testing.T, file, name string) []string {
	t.Helper()
	type container struct {
		Command []string
		Env     []struct {
			Name, Value string
			ValueFrom   struct {
				FieldRef struct {
					FieldPath string `yaml:"fieldPath"`
				} `yaml:"fieldRef"`
			} `yaml:"valueFrom"`
		}
	}
	type pod struct {
		InitContainers []container `yaml:"initContainers"`
		Containers     []container
	}
	var object struct {
		Spec struct {
			Pod      pod `yaml:",inline"`
			Template struct{ Spec pod }
		}
	}
	parse(t, file, &object)

	fields := map[string]string{"metadata.name": name, "metadata.namespace": "logd", "status.podIP": "10.0.0.7"}
	for _, p := range []pod{object.Spec.Pod, object.Spec.Template.Spec} {
		for _, c := range append(p.InitContainers, p.Containers...) {
			if len(c.Command) < 2 || c.Command[1] != "agent" {
				continue
			}
			var environ []string
			for _, e := range c.Env {
				value := strings.NewReplacer("$(POD_NAME)", name, "$(POD_NAMESPACE)", "logd").Replace(e.Value)
				if path := e.ValueFrom.FieldRef.FieldPath; path != "" {
					require.Contains(t, fields, path)
					value = fields[path]
				}
				environ = append(environ, e.Name+"="+value)
			}
			return environ
		}
	}
	require.Fail(t, "no container runs an agent", file)
	return nil
}
