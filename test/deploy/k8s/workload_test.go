package k8s_test

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	psa "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/logd-io/logd/config"
)

// eachPod runs a test for every pod of every rendering.
func eachPod(t *testing.T, f func(t *testing.T, p pod)) {
	t.Helper()
	n := 0
	for _, r := range renderings(t) {
		for _, p := range pods(r) {
			n++
			t.Run(r.name+"/"+p.name, func(t *testing.T) { f(t, p) })
		}
	}
	require.Greater(t, n, 20)
}

// The namespaces that we make enforce it, so that a pod that breaks it is refused.
func TestPodsAreWithinTheRestrictedStandard(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	require.NoError(t, err)
	restricted := psa.LevelVersion{Level: psa.LevelRestricted, Version: psa.LatestVersion()}
	allowed := func(p pod) policy.AggregateCheckResult {
		return policy.AggregateCheckResults(evaluator.EvaluatePod(restricted, &p.meta, &p.spec))
	}
	eachPod(t, func(t *testing.T, p pod) {
		verdict := allowed(p)
		require.True(t, verdict.Allowed, verdict.ForbiddenDetail())
		for _, c := range p.containers() {
			require.True(t, *c.SecurityContext.ReadOnlyRootFilesystem, c.Name)
		}
		require.False(t, *p.spec.AutomountServiceAccountToken)
		require.False(t, *p.spec.EnableServiceLinks, "LOGD_PORT and its like would be taken for settings")

		// The evaluator does refuse.
		p.spec.Containers[0].SecurityContext.Capabilities = nil
		require.False(t, allowed(p).Allowed)
	})
	for _, r := range renderings(t) {
		for _, n := range of[*corev1.Namespace](r) {
			require.Equal(t, "restricted", n.Labels[psa.EnforceLevelLabel], n.Name)
		}
	}
}

func TestCommandsAndFlagsAreThePrograms(t *testing.T) {
	eachPod(t, func(t *testing.T, p pod) {
		for _, c := range p.containers() {
			_, rest, err := programs.Check(slices.Concat(c.Command, c.Args))
			require.NoError(t, err)
			require.Empty(t, rest)
		}
	})
}

func TestPortsAreThoseOfTheConfiguration(t *testing.T) {
	eachPod(t, func(t *testing.T, p pod) {
		c := p.agent(t)
		var declared []string
		for _, port := range c.Ports {
			protocol := port.Protocol
			if protocol == "" {
				protocol = corev1.ProtocolTCP
			}
			declared = append(declared, fmt.Sprintf("%d/%s", port.ContainerPort, protocol))
			require.LessOrEqual(t, len(port.Name), 15, port.Name)
		}
		slices.Sort(declared)
		require.Equal(t, p.load(t, c).ports(t), declared)
	})
}

// portOf is the number behind a probe's port.
func portOf(t *testing.T, c corev1.Container, probe *corev1.Probe) int {
	t.Helper()
	if n := probe.HTTPGet.Port.IntValue(); n != 0 {
		return n
	}
	i := slices.IndexFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == probe.HTTPGet.Port.StrVal })
	require.GreaterOrEqual(t, i, 0, "no port %s", probe.HTTPGet.Port.StrVal)
	return int(c.Ports[i].ContainerPort)
}

func probes(c corev1.Container) map[string]*corev1.Probe {
	all := map[string]*corev1.Probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe, "readiness": c.ReadinessProbe}
	for name, p := range all {
		if p == nil {
			delete(all, name)
		}
	}
	return all
}

// That the paths answer as probes need is in TestProbesOfARunningPod.
func TestProbesAskTheAdminServer(t *testing.T) {
	eachPod(t, func(t *testing.T, p pod) {
		c := p.agent(t)
		host, port, err := net.SplitHostPort(p.load(t, c).admin())
		require.NoError(t, err)
		require.False(t, net.ParseIP(host).IsLoopback(), "the kubelet comes from outside")
		require.Contains(t, probes(c), "startup")
		require.Contains(t, probes(c), "liveness")
		for name, probe := range probes(c) {
			require.NotNil(t, probe.HTTPGet, name)
			require.Equal(t, port, strconv.Itoa(portOf(t, c, probe)), name)
			require.Empty(t, probe.HTTPGet.Scheme, name)
		}
		require.Equal(t, "/healthz", c.LivenessProbe.HTTPGet.Path, "liveness never depends on a quorum")
		sidecar := len(p.spec.InitContainers) > 0
		if sidecar {
			require.Equal(t, "/readyz", c.StartupProbe.HTTPGet.Path, "the program starts when the log can be used")
			return
		}
		require.Equal(t, "/healthz", c.StartupProbe.HTTPGet.Path, "a node that waits for others is not restarted")
		require.Equal(t, "/readyz", c.ReadinessProbe.HTTPGet.Path)
	})
}

func TestPodsGetTheTimeThatADrainTakes(t *testing.T) {
	eachPod(t, func(t *testing.T, p pod) {
		drain := p.load(t, p.agent(t)).drain()
		grace := float64(*p.spec.TerminationGracePeriodSeconds)
		require.GreaterOrEqual(t, grace, drain+10)
		if p.meta.Labels["app.kubernetes.io/component"] == "gateway" {
			// A Service makes connections for a moment after the pod was told to stop.
			require.GreaterOrEqual(t, p.load(t, p.agent(t)).proxy.DrainDelay, 5*time.Second)
		}
		if len(p.spec.InitContainers) > 0 { // the program ends first, out of the same time
			require.GreaterOrEqual(t, grace, drain+30)
		}
		for _, c := range p.containers() {
			require.Nil(t, c.Lifecycle, "%s: SIGTERM is enough", c.Name)
		}
	})
}

func TestMemoryLimitsAreInOrder(t *testing.T) {
	eachPod(t, func(t *testing.T, p pod) {
		for _, c := range p.containers() {
			require.Contains(t, c.Resources.Requests, corev1.ResourceCPU, c.Name)
			require.Contains(t, c.Resources.Requests, corev1.ResourceMemory, c.Name)
			require.Contains(t, c.Resources.Limits, corev1.ResourceMemory, c.Name)
		}
		c := p.agent(t)
		limit := c.Resources.Limits.Memory().Value()
		text := strings.Replace(p.environ(t, c, "10.0.0.7")["GOMEMLIMIT"], "iB", "i", 1)
		soft, err := resource.ParseQuantity(text)
		require.NoError(t, err, text)
		require.Less(t, soft.Value(), limit, "Go begins to save before the kernel ends it")
		require.Greater(t, soft.Value(), limit*8/10)
		s := p.load(t, c)
		if s.proxy != nil {
			require.Less(t, int64(s.proxy.Limits.Memory), soft.Value(), "calls are refused before that")
			require.Less(t, int64(s.proxy.Produce.MaxHeldBytes), int64(s.proxy.Limits.Memory))
			return
		}
		require.Less(t, int64(s.node.Log.CacheSize+s.node.Log.MaxInFlight), soft.Value())
	})
}

// What an agent's configuration names is mounted, and what it writes outlives it.
func TestFilesAreMounted(t *testing.T) {
	eachPod(t, func(t *testing.T, p pod) {
		c := p.agent(t)
		s := p.load(t, c)
		require.NotEmpty(t, s.paths())
		for _, path := range s.paths() {
			_, ok := mounted(c, path)
			require.True(t, ok, path)
		}
		if s.node == nil {
			require.Empty(t, s.proxy.DataDir, "a proxy keeps nothing")
			return
		}
		volume, ok := mounted(c, s.node.DataDir)
		require.True(t, ok, s.node.DataDir)
		require.Len(t, p.set.Spec.VolumeClaimTemplates, 1)
		require.Equal(t, p.set.Spec.VolumeClaimTemplates[0].Name, volume)
	})
}

func TestRetentionFitsTheVolume(t *testing.T) {
	eachPod(t, func(t *testing.T, p pod) {
		if p.set == nil {
			t.Skip("no node")
		}
		size := p.load(t, p.agent(t)).node.Retain.Size
		volume := p.set.Spec.VolumeClaimTemplates[0].Spec.Resources.Requests.Storage().Value()
		require.Less(t, int64(size), volume*8/10, "segments and checkpoints that cannot go yet come on top")
	})
}

// A program talks to the address that it would on any machine, and finds a proxy.
func TestSidecarsStartBeforeAndStopAfterThePrograms(t *testing.T) {
	n := 0
	eachPod(t, func(t *testing.T, p pod) {
		if len(p.spec.InitContainers) == 0 {
			t.Skip("no sidecar")
		}
		n++
		require.Len(t, p.spec.InitContainers, 1)
		c := p.spec.InitContainers[0]
		require.Equal(t, p.agent(t).Name, c.Name)
		require.NotNil(t, c.RestartPolicy)
		require.Equal(t, corev1.ContainerRestartPolicyAlways, *c.RestartPolicy)
		require.Equal(t, config.DefaultProxy().Listener, p.load(t, c).proxy.Listener)
		for _, app := range p.spec.Containers {
			flags, _, err := programs.Check(app.Command)
			require.NoError(t, err)
			require.NotContains(t, flags, "address")
			require.Empty(t, app.Env)
			require.Empty(t, app.VolumeMounts, "it needs no certificate")
		}
	})
	require.Equal(t, 2, n)
}

// One node at a time, each ready before the next, and all at once at the start.
func TestHowNodesAreRolled(t *testing.T) {
	n := 0
	for _, r := range renderings(t) {
		for _, s := range of[*appsv1.StatefulSet](r) {
			n++
			require.Equal(t, appsv1.ParallelPodManagement, s.Spec.PodManagementPolicy, r.name)
			require.Equal(t, appsv1.RollingUpdateStatefulSetStrategyType, s.Spec.UpdateStrategy.Type, r.name)
			require.Nil(t, s.Spec.UpdateStrategy.RollingUpdate, r.name)
			keep := s.Spec.PersistentVolumeClaimRetentionPolicy
			require.Equal(t, appsv1.RetainPersistentVolumeClaimRetentionPolicyType, keep.WhenDeleted, r.name)
			require.Equal(t, appsv1.RetainPersistentVolumeClaimRetentionPolicyType, keep.WhenScaled, r.name)
			expect := pods(r)[0].load(t, pods(r)[0].agent(t)).node.BootstrapExpect
			require.EqualValues(t, expect, *s.Spec.Replicas, r.name)
		}
		for _, d := range of[*appsv1.Deployment](r) {
			if update := d.Spec.Strategy.RollingUpdate; update != nil {
				require.Zero(t, update.MaxUnavailable.IntValue(), r.name)
			}
		}
	}
	require.Greater(t, n, 5)
}

// An overlay's image is that of all its containers.
func TestOneImage(t *testing.T) {
	for _, r := range renderings(t) {
		images := map[string]bool{}
		for _, p := range pods(r) {
			for _, c := range p.containers() {
				images[c.Image] = true
			}
		}
		require.Len(t, images, 1, r.name)
	}
}
