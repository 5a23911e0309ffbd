package k8s_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

// patience is how long anything may take before a test gives up.
const patience = 2 * time.Minute

// A kubelet runs the containers of pods as processes of this machine: with the
// files of their volumes, their environment and their command line. A pod's
// address is one of its own on loopback, so the ports are those in the manifests.
// What is changed on the way is only what a container's own view would give:
// mounts are folders below root, names of pods are addresses, and "all addresses"
// and the loopback that a pod's containers share are the pod's address.
type kubelet struct {
	t        *testing.T
	net      [2]byte
	ips      map[string]string // by pod
	secrets  func(namespace string) secrets
	replaces []string // old, new
}

func newKubelet(t *testing.T, secrets func(string) secrets) *kubelet {
	k := &kubelet{t: t, ips: map[string]string{}, secrets: secrets}
	_, err := rand.Read(k.net[:])
	require.NoError(t, err)
	k.net[0] = k.net[0]%254 + 1
	return k
}

// place gives pods addresses, and the names of a StatefulSet's to all that come after.
func (k *kubelet) place(r rendering) []pod {
	all := pods(r)
	inside, everywhere := names(k.t, r)
	for _, p := range all {
		k.ips[p.name] = net.IPv4(127, k.net[0], k.net[1], byte(len(k.ips)+1)).String()
	}
	for _, known := range []map[string]string{everywhere, inside} { // the longer first
		for name, pod := range known {
			for _, port := range []string{":8400", ":8401"} {
				k.replaces = append(k.replaces, `"`+name+port, `"`+k.ips[pod]+port)
			}
		}
	}
	return all
}

// A container that runs.
type process struct {
	p      pod
	c      corev1.Container
	cmd    *exec.Cmd
	log    string
	done   chan struct{} // closed when it has ended
	status error         // of Wait; read it only after done
}

// start starts a container of a pod.
func (k *kubelet) start(p pod, c corev1.Container) *process {
	t, ip := k.t, k.ips[p.name]
	t.Helper()
	root := filepath.Join(t.TempDir(), p.name, c.Name)
	require.NoError(t, os.MkdirAll(root, 0o755))
	pairs := slices.Clone(k.replaces)
	pairs = append(pairs, `"0.0.0.0:`, `"`+ip+`:`, `"127.0.0.1:`, `"`+ip+`:`)
	for _, m := range c.VolumeMounts {
		pairs = append(pairs, m.MountPath, root+m.MountPath)
		require.NoError(t, os.MkdirAll(root+m.MountPath, 0o755))
	}
	change := strings.NewReplacer(pairs...)
	write(t, root, p.files(t, c, k.secrets(p.namespace)), func(b []byte) []byte { return []byte(change.Replace(string(b))) })
	env := p.environ(t, c, ip)
	argv := slices.Concat(c.Command, c.Args)
	for i := range argv {
		argv[i] = change.Replace(argv[i])
	}
	_, everywhere := names(t, p.in)
	for name, value := range env {
		if pod, ok := everywhere[value]; ok { // what a name in DNS stands for
			value = k.ips[pod]
		}
		env[name] = change.Replace(value)
	}
	switch {
	case p.set != nil:
		env["LOGD_BIND_ADDR"] = ip // all addresses of a pod
	case argv[1] == "agent":
		env["LOGPROXY_GOSSIP_ADDRESS"] = ip + ":8411" // likewise
	default:
		env["LOGD_ADDR"] = ip + ":8410" // the pod's loopback
	}
	r := &process{p: p, c: c, done: make(chan struct{}), log: filepath.Join(root, "out")}
	out, err := os.Create(r.log)
	require.NoError(t, err)
	defer out.Close()
	r.cmd = exec.Command(programs.Path(argv[0]), argv[1:]...)
	r.cmd.Env, r.cmd.Stdout, r.cmd.Stderr = flat(env), out, out
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, r.cmd.Start())
	go func() { // ended by the process's end, which the cleanup waits for
		r.status = r.cmd.Wait()
		close(r.done)
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill() // it has ended already when all went well
		<-r.done
		if t.Failed() {
			t.Logf("%s of %s wrote:\n%s", c.Name, p.name, r.wrote(t))
		}
	})
	return r
}

func (r *process) wrote(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(r.log)
	require.NoError(t, err)
	return string(text)
}

// probe does what the kubelet does with a probe, and tells whether it succeeds.
func (k *kubelet) probe(r *process, probe *corev1.Probe) (ok bool, says string) {
	url := fmt.Sprintf("http://%s:%d%s", k.ips[r.p.name], portOf(k.t, r.c, probe), probe.HTTPGet.Path)
	client := http.Client{Timeout: time.Second * time.Duration(max(1, probe.TimeoutSeconds)), Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return false, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(k.t, err)
	return resp.StatusCode >= 200 && resp.StatusCode < 400, string(body)
}

// until waits for a probe to succeed.
func (k *kubelet) until(r *process, probe *corev1.Probe) {
	k.t.Helper()
	require.NotNil(k.t, probe)
	eventually(k.t, func() bool {
		select {
		case <-r.done:
			require.Fail(k.t, "it ended", r.wrote(k.t))
		default:
		}
		ok, _ := k.probe(r, probe)
		return ok
	}, "%s of %s: %s", r.c.Name, r.p.name, probe.HTTPGet.Path)
}

// eventually waits for ok, which may fail the test: it runs in its goroutine.
func eventually(t *testing.T, ok func() bool, what string, args ...any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			require.Fail(t, "it has not come to be", slices.Concat([]any{what}, args)...)
		}
	}
}

// stop does what the kubelet does at a pod's end; the process must end by itself
// within the pod's grace period, in order.
func (r *process) stop(t *testing.T) {
	t.Helper()
	require.NoError(t, r.cmd.Process.Signal(syscall.SIGTERM))
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(*r.p.spec.TerminationGracePeriodSeconds)*time.Second)
	defer cancel()
	select {
	case <-r.done:
		require.NoError(t, r.status, r.wrote(t))
	case <-ctx.Done():
		require.Fail(t, "it has not ended within its grace period", r.p.name)
	}
}

// ends waits for a container that is done by itself.
func (r *process) ends(t *testing.T) {
	t.Helper()
	select {
	case <-r.done:
		require.NoError(t, r.status, r.wrote(t))
	case <-time.After(patience):
		require.Fail(t, "it does not end", r.wrote(t))
	}
}

// TestThePodsRun does what docs/ops/kubernetes.md does, with the programs in the
// places of the containers: Secrets by the page's commands, production's pods and
// its gateway, a pod with a sidecar and a Job. It asks the probes all along.
func TestThePodsRun(t *testing.T) {
	o := operator(t)
	for _, line := range commands(t) {
		if strings.HasPrefix(line, "logd tls") || strings.HasPrefix(line, "for ") || strings.HasPrefix(line, "logd keygen") ||
			strings.HasPrefix(line, "kubectl apply -f") || strings.Contains(line, "create secret") && !strings.Contains(line, "-n storage") {
			o.run(t, line)
		}
	}
	k := newKubelet(t, func(namespace string) secrets { return o.secrets(t, namespace) })

	var nodes []*process
	var gateway *process
	all := k.place(rendered(t, "overlays/production"))
	first := all[0]
	require.NotNil(t, first.set)
	// One node alone has no quorum: it is alive, and not ready.
	nodes = append(nodes, k.start(first, first.agent(t)))
	k.until(nodes[0], nodes[0].c.StartupProbe)
	k.until(nodes[0], nodes[0].c.LivenessProbe)
	ok, says := k.probe(nodes[0], nodes[0].c.ReadinessProbe)
	require.False(t, ok, says)
	require.Contains(t, says, "cluster", "its reason, and not that it does not answer")
	for _, p := range all[1:] {
		if p.set != nil {
			nodes = append(nodes, k.start(p, p.agent(t)))
		}
	}
	require.Len(t, nodes, 3)
	for _, n := range nodes {
		k.until(n, n.c.StartupProbe)
		k.until(n, n.c.ReadinessProbe)
	}
	for _, p := range all {
		if p.set == nil {
			gateway = k.start(p, p.agent(t))
			k.until(gateway, gateway.c.StartupProbe)
			k.until(gateway, gateway.c.ReadinessProbe)
		}
	}

	produce := func(lines string) {
		t.Helper()
		cmd := exec.Command(programs.Path("logd"), "produce", "-address", k.ips[gateway.p.name]+":8410",
			"-ca-cert", filepath.Join(o.dir, "ca.pem"), "-cert", filepath.Join(o.dir, "alice.pem"), "-key", filepath.Join(o.dir, "alice-key.pem"))
		cmd.Stdin = strings.NewReader(lines)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	produce("one\ntwo\n")

	// The sidecar first; its program when the startup probe says so.
	tail := k.place(rendered(t, "sidecar"))[0]
	sidecar := k.start(tail, tail.agent(t))
	k.until(sidecar, sidecar.c.StartupProbe)
	k.until(sidecar, sidecar.c.LivenessProbe)
	program := k.start(tail, tail.spec.Containers[0])
	n := 0
	eventually(t, func() bool { // it follows from the end, once it has begun
		produce(fmt.Sprintf("more %d\n", n))
		n++
		return strings.Contains(program.wrote(t), "more ")
	}, "the program has what is produced")
	program.stop(t)
	sidecar.stop(t)

	job := k.place(rendered(t, "job"))[0]
	sidecar = k.start(job, job.agent(t))
	k.until(sidecar, sidecar.c.StartupProbe)
	program = k.start(job, job.spec.Containers[0])
	program.ends(t)
	lines := strings.Split(strings.TrimSpace(program.wrote(t)), "\n")
	require.Len(t, lines, 2+n, "all of the log as it stood")
	require.Contains(t, lines[1], `"offset":1`)
	sidecar.stop(t)

	// A node that is left alone is alive still, and is not restarted for it.
	gateway.stop(t)
	nodes[2].stop(t)
	nodes[1].stop(t)
	eventually(t, func() bool {
		alive, says := k.probe(nodes[0], nodes[0].c.LivenessProbe)
		require.True(t, alive, says)
		return strings.Contains(nodes[0].wrote(t), "pre-vote campaign failed") // it knows by now
	}, "the node that is left looks for a quorum")
	nodes[0].stop(t)
}
