package k8s_test

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/logd-io/logd/config"
)

// A pod is one pod as its controller makes it.
type pod struct {
	in        rendering
	name      string
	namespace string
	meta      metav1.ObjectMeta
	spec      corev1.PodSpec
	set       *appsv1.StatefulSet // whose pod it is; nil for other controllers
}

// pods are all pods of a StatefulSet, and one of each other controller.
func pods(r rendering) []pod {
	var all []pod
	add := func(o metav1.Object, name string, template corev1.PodTemplateSpec, set *appsv1.StatefulSet) {
		namespace := o.GetNamespace()
		if namespace == "" {
			namespace = r.namespace
		}
		all = append(all, pod{r, name, namespace, template.ObjectMeta, *template.Spec.DeepCopy(), set})
	}
	for _, s := range of[*appsv1.StatefulSet](r) {
		for i := range *s.Spec.Replicas {
			add(s, fmt.Sprintf("%s-%d", s.Name, i), s.Spec.Template, s)
		}
	}
	for _, d := range of[*appsv1.Deployment](r) {
		add(d, d.Name+"-5d4f8c7b9-x2x4z", d.Spec.Template, nil)
	}
	for _, j := range of[*batchv1.Job](r) {
		add(j, j.Name+"-k7x5p", j.Spec.Template, nil)
	}
	return all
}

// containers are all of a pod's, those that run first in front.
func (p pod) containers() []corev1.Container {
	return slices.Concat(p.spec.InitContainers, p.spec.Containers)
}

// agents are the containers that run one of our programs as an agent.
func (p pod) agents() (agents []corev1.Container) {
	for _, c := range p.containers() {
		if len(c.Command) > 1 && c.Command[1] == "agent" {
			agents = append(agents, c)
		}
	}
	return agents
}

// agent is the one that there is.
func (p pod) agent(t *testing.T) corev1.Container {
	t.Helper()
	require.Len(t, p.agents(), 1, p.name)
	return p.agents()[0]
}

var reference = regexp.MustCompile(`\$\(([A-Za-z_][A-Za-z0-9_]*)\)`)

// environ is a container's environment, as the kubelet expands it: a reference
// sees what stands before it, and one to nothing stays as it is written.
func (p pod) environ(t *testing.T, c corev1.Container, ip string) map[string]string {
	t.Helper()
	fields := map[string]string{"metadata.name": p.name, "metadata.namespace": p.namespace, "status.podIP": ip}
	env := map[string]string{}
	for _, e := range c.Env {
		value := reference.ReplaceAllStringFunc(e.Value, func(r string) string {
			if v, ok := env[r[2:len(r)-1]]; ok {
				return v
			}
			return r
		})
		if from := e.ValueFrom; from != nil {
			require.NotNil(t, from.FieldRef, e.Name)
			require.Contains(t, fields, from.FieldRef.FieldPath)
			value = fields[from.FieldRef.FieldPath]
		}
		require.NotContains(t, value, "$(", "%s of %s", e.Name, p.name)
		env[e.Name] = value
	}
	return env
}

func flat(env map[string]string) (list []string) {
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

// A file is what a volume shows, at a path inside a container.
type file struct {
	data []byte
	mode os.FileMode
}

// files are what a container finds in its mounts of ConfigMaps and Secrets.
// Secrets are not in a rendering: they are given by name, and nil leaves them out.
func (p pod) files(t *testing.T, c corev1.Container, secrets map[string]map[string][]byte) map[string]file {
	t.Helper()
	found := map[string]file{}
	for _, mount := range c.VolumeMounts {
		require.Empty(t, mount.SubPath+mount.SubPathExpr, "what is mounted so never changes")
		i := slices.IndexFunc(p.spec.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name })
		if i < 0 {
			require.NotNil(t, p.set, "%s: no volume %s", p.name, mount.Name)
			require.True(t, slices.ContainsFunc(p.set.Spec.VolumeClaimTemplates, func(c corev1.PersistentVolumeClaim) bool { return c.Name == mount.Name }), mount.Name)
			continue
		}
		put := func(data map[string][]byte, items []corev1.KeyToPath, mode *int32) {
			m := os.FileMode(0o644)
			if mode != nil {
				m = os.FileMode(*mode)
			}
			if items == nil {
				for key := range data {
					items = append(items, corev1.KeyToPath{Key: key, Path: key})
				}
			}
			for _, item := range items {
				require.Contains(t, data, item.Key)
				path := filepath.Join(mount.MountPath, item.Path)
				require.NotContains(t, found, path)
				found[path] = file{data[item.Key], m}
			}
		}
		secret := func(name string, items []corev1.KeyToPath, mode *int32) {
			require.NotNil(t, mode, "the volume of secret %s has no mode", name)
			if secrets == nil {
				return
			}
			require.Contains(t, secrets, name)
			put(secrets[name], items, mode)
		}
		configMap := func(name string, items []corev1.KeyToPath, mode *int32) {
			data := map[string][]byte{}
			for key, text := range named[*corev1.ConfigMap](t, p.in, name).Data {
				data[key] = []byte(text)
			}
			put(data, items, mode)
		}
		switch v := p.spec.Volumes[i]; {
		case v.ConfigMap != nil:
			configMap(v.ConfigMap.Name, v.ConfigMap.Items, v.ConfigMap.DefaultMode)
		case v.Secret != nil:
			secret(v.Secret.SecretName, v.Secret.Items, v.Secret.DefaultMode)
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				require.NotNil(t, s.Secret, mount.Name)
				secret(s.Secret.Name, s.Secret.Items, v.Projected.DefaultMode)
			}
		default:
			require.Fail(t, "a volume of a kind that is not expected", "%s of %s", mount.Name, p.name)
		}
	}
	return found
}

// A setup is an agent's configuration as the agent itself would load it.
type setup struct {
	node  *config.Node  // of logd
	proxy *config.Proxy // of logproxy
}

func (s setup) drain() (d float64) {
	if s.node != nil {
		return s.node.DrainTimeout.Seconds()
	}
	return (s.proxy.DrainDelay + s.proxy.DrainTimeout).Seconds()
}

// admin is the address of the admin server.
func (s setup) admin() string {
	if s.node != nil {
		return s.node.AdminAddr()
	}
	return s.proxy.Admin.Address
}

// cluster is the name in its identity.
func (s setup) cluster() string {
	if s.node != nil {
		return s.node.Cluster
	}
	return s.proxy.Cluster
}

// joins are the addresses of gossip it is told, statics those of RPC.
func (s setup) joins() (gossip, rpc []string) {
	if s.node != nil {
		return s.node.RetryJoin, nil
	}
	for _, source := range s.proxy.Sources() {
		rpc = append(rpc, source.Nodes...)
	}
	if s.proxy.UsesGossip() {
		gossip = s.proxy.Gossip.RetryJoin
	}
	return gossip, rpc
}

// paths are the files that it names.
func (s setup) paths() []string {
	var all []string
	add := func(path ...string) {
		for _, p := range path {
			if p != "" {
				all = append(all, p)
			}
		}
	}
	if n := s.node; n != nil {
		add(n.TLS.CAFile, n.TLS.CertFile, n.TLS.KeyFile, n.GossipKeyFile, n.ACL.Policy, n.ACL.Model)
		return all
	}
	for _, tls := range []config.TLS{s.proxy.Upstream.TLS, s.proxy.Listener.TLS} {
		add(tls.CAFile, tls.CertFile, tls.KeyFile)
	}
	add(s.proxy.Gossip.KeyFile)
	return all
}

// ports are what other machines reach it by, as "number/protocol".
func (s setup) ports(t *testing.T) []string {
	t.Helper()
	var all []string
	add := func(addr string, protocols ...corev1.Protocol) {
		host, port, err := net.SplitHostPort(addr)
		require.NoError(t, err)
		if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
			for _, p := range protocols {
				all = append(all, port+"/"+string(p))
			}
		}
	}
	if n := s.node; n != nil {
		add(n.RPCAddr(), corev1.ProtocolTCP)
		add(n.GossipAddr(), corev1.ProtocolTCP, corev1.ProtocolUDP)
		add(n.AdminAddr(), corev1.ProtocolTCP)
	} else {
		add(s.proxy.Listener.Address, corev1.ProtocolTCP)
		add(s.proxy.Admin.Address, corev1.ProtocolTCP)
		if s.proxy.UsesGossip() {
			add(s.proxy.Gossip.Address, corev1.ProtocolTCP, corev1.ProtocolUDP)
		}
	}
	slices.Sort(all)
	return all
}

// load has the real package config read what an agent's container would: the
// files that its flags name, out of its mounts, and its environment.
func (p pod) load(t *testing.T, c corev1.Container) setup {
	t.Helper()
	flags, rest, err := programs.Check(slices.Concat(c.Command, c.Args))
	require.NoError(t, err)
	require.Empty(t, rest)
	root := t.TempDir()
	write(t, root, p.files(t, c, nil), func(b []byte) []byte { return b })
	from := config.From{Environ: flat(p.environ(t, c, "10.0.0.7"))}
	for _, path := range flags["config"] {
		from.Paths = append(from.Paths, filepath.Join(root, path))
	}
	require.NotEmpty(t, from.Paths)
	switch c.Command[0] {
	case "logd":
		n, err := config.LoadNode(from)
		require.NoError(t, err, p.name)
		return setup{node: &n}
	default:
		x, err := config.LoadProxy(from)
		require.NoError(t, err, p.name)
		return setup{proxy: &x}
	}
}

// write puts files below root, each as change makes it.
func write(t *testing.T, root string, files map[string]file, change func([]byte) []byte) {
	t.Helper()
	for path, f := range files {
		at := filepath.Join(root, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(at), 0o755))
		require.NoError(t, os.WriteFile(at, change(f.data), 0o600))
		require.NoError(t, os.Chmod(at, f.mode))
	}
}

// mounted tells whether path is below a mount of the container, and its volume.
func mounted(c corev1.Container, path string) (volume string, ok bool) {
	for _, m := range c.VolumeMounts {
		if rel, err := filepath.Rel(m.MountPath, path); err == nil && !strings.HasPrefix(rel, "..") {
			return m.Name, true
		}
	}
	return "", false
}
