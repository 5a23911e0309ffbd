package k8s_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// page is docs/ops/kubernetes.md, whose commands are in blocks marked
// "sh kubernetes".
func page(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repo, "docs/ops/kubernetes.md"))
	require.NoError(t, err)
	return string(text)
}

// TestThePagesCommands runs them all, in their order, as an operator would:
// logd's own as they are, kubectl and helm as stand-ins that know the same files.
func TestThePagesCommands(t *testing.T) {
	o := operator(t)
	n := 0
	for _, line := range commands(t) {
		n++
		// What talks to a cluster that runs: TestThePodsRun has one.
		if strings.Contains(line, " -address 127.0.0.1:8400 ") {
			_, _, err := programs.Check(strings.Fields(line))
			require.NoError(t, err)
			continue
		}
		o.run(t, line)
	}
	require.Greater(t, n, 20)
	for _, name := range []string{"logd/logd-tls/logd-2-key.pem", "logd/.applied/statefulset/logd", "storage/.applied/certificate/logd-2", "default/.applied/job/export"} {
		require.FileExists(t, filepath.Join(o.cluster, name))
	}
}

// The stand-ins do refuse.
func TestTheStandInsRefuse(t *testing.T) {
	o := operator(t)
	for _, line := range commands(t) { // what is there to be asked for
		if strings.HasPrefix(line, "kubectl apply -k deploy/k8s/overlays/") {
			o.run(t, line)
			break
		}
		o.run(t, line)
	}
	for _, line := range []string{
		"kubectl -n nowhere create secret generic x --from-file=gossip.key",
		"kubectl create secret generic x --from-literal=a=b",
		"kubectl create secret generic x --from-file=no-such-file",
		"kubectl apply -k deploy/k8s/sidecar", // its Secret is missing
		"kubectl apply -k deploy/k8s",
		"kubectl rollout status statefulset/logd",
		"kubectl taint nodes --all",
		"kubectl -n logd port-forward deployment/logd-gateway 8412:8402",
		"kubectl -n logd exec deployment/logd-gateway -- logproxy states",
		"helm upgrade --install logd deploy/helm/logd -n storage --create-namespace --set nodes.replicas=2",
		"helm upgrade --install logd deploy/k8s -n storage --create-namespace",
	} {
		cmd := o.command(line)
		require.Error(t, cmd.Run(), line)
	}
}

// commands are the page's, one a line.
func commands(t *testing.T) (lines []string) {
	t.Helper()
	parts := strings.Split("\n"+page(t), "\n```")
	require.Equal(t, 1, len(parts)%2, "a fence is open")
	for i := 1; i < len(parts); i += 2 {
		info, body, _ := strings.Cut(parts[i], "\n")
		if info == "yaml kubernetes" { // TestThePagesPolicyLetsTracesOut has it
			continue
		}
		require.Equal(t, "sh kubernetes", info, "a block that nobody runs")
		lines = append(lines, strings.Split(body, "\n")...)
	}
	return lines
}

// A desk is where an operator works: a folder that has deploy in it, and a PATH
// with the programs and the stand-ins.
type desk struct{ dir, cluster, path, root string }

func operator(t *testing.T) *desk {
	t.Helper()
	root, err := filepath.Abs(repo)
	require.NoError(t, err)
	dir := t.TempDir()
	o := &desk{dir: filepath.Join(dir, "desk"), cluster: filepath.Join(dir, "cluster"), root: root}
	tools := filepath.Join(dir, "tools")
	for _, d := range []string{o.dir, tools, filepath.Join(o.cluster, "default")} {
		require.NoError(t, os.MkdirAll(d, 0o700))
	}
	require.NoError(t, os.Symlink(filepath.Join(root, "deploy"), filepath.Join(o.dir, "deploy")))
	self, err := os.Executable()
	require.NoError(t, err)
	for _, tool := range []string{"kubectl", "helm"} {
		require.NoError(t, os.Symlink(self, filepath.Join(tools, tool)))
	}
	o.path = programs.Dir() + ":" + tools + ":/usr/bin:/bin"
	return o
}

func (o *desk) command(line string) *exec.Cmd {
	cmd := exec.Command("/bin/sh", "-ec", line)
	cmd.Dir = o.dir
	cmd.Env = []string{"PATH=" + o.path, "CLUSTER=" + o.cluster, "PROGRAMS=" + programs.Dir(), "REPO=" + o.root, "HOME=" + o.dir}
	return cmd
}

func (o *desk) run(t *testing.T, line string) {
	t.Helper()
	out, err := o.command(line).CombinedOutput()
	require.NoError(t, err, "%s\n%s", line, out)
}

// secrets are those that the page's commands made in a namespace.
func (o *desk) secrets(t *testing.T, namespace string) secrets {
	t.Helper()
	all := secrets{}
	names, err := os.ReadDir(filepath.Join(o.cluster, namespace))
	require.NoError(t, err)
	for _, name := range names {
		if strings.HasPrefix(name.Name(), ".") {
			continue
		}
		all[name.Name()] = map[string][]byte{}
		keys, err := os.ReadDir(filepath.Join(o.cluster, namespace, name.Name()))
		require.NoError(t, err)
		for _, key := range keys {
			data, err := os.ReadFile(filepath.Join(o.cluster, namespace, name.Name(), key.Name()))
			require.NoError(t, err)
			all[name.Name()][key.Name()] = data
		}
	}
	return all
}

// What the page links to is there.
func TestThePagesLinks(t *testing.T) {
	links := regexp.MustCompile(`\]\(([^)#]+)`).FindAllStringSubmatch(page(t), -1)
	require.NotEmpty(t, links)
	for _, m := range links {
		_, err := os.Stat(filepath.Join(repo, "docs/ops", m[1]))
		require.NoError(t, err)
	}
	for _, dir := range []string{"base", "sidecar", "job", "overlays/dev", "overlays/production", "overlays/cert-manager", "overlays/monitoring"} {
		require.Contains(t, page(t), "`"+dir)
	}
}
