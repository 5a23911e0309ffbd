package k8s_test

import (
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"

	monv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

func selects(t *testing.T, s *metav1.LabelSelector, set map[string]string) bool {
	t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(s)
	require.NoError(t, err)
	return selector.Matches(labels.Set(set))
}

// namespaceOf is where an object goes.
func namespaceOf(r rendering, o metav1.Object) string {
	if n := o.GetNamespace(); n != "" {
		return n
	}
	return r.namespace
}

// port finds a port of a pod by its name.
func (p pod) port(name string) (port corev1.ContainerPort, ok bool) {
	for _, c := range p.containers() {
		for _, port := range c.Ports {
			if port.Name == name {
				if port.Protocol == "" {
					port.Protocol = corev1.ProtocolTCP
				}
				return port, true
			}
		}
	}
	return port, false
}

func TestServicesReachTheirPods(t *testing.T) {
	for _, r := range renderings(t) {
		for _, s := range of[*corev1.Service](r) {
			t.Run(r.name+"/"+s.Name, func(t *testing.T) {
				reached := 0
				for _, p := range pods(r) {
					if p.namespace != namespaceOf(r, s) || !labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(p.meta.Labels)) {
						continue
					}
					reached++
					for _, port := range s.Spec.Ports {
						target, ok := p.port(port.TargetPort.StrVal)
						require.True(t, ok, "%s has no port %s", p.name, port.TargetPort.StrVal)
						require.Equal(t, port.Port, target.ContainerPort, "one number for everybody")
						protocol := port.Protocol
						if protocol == "" {
							protocol = corev1.ProtocolTCP
						}
						require.Equal(t, target.Protocol, protocol)
					}
				}
				require.Positive(t, reached)
			})
		}
	}
}

// names are the names that DNS has for a StatefulSet's pods in one namespace, and
// what they are called from others, with the pod of each.
func names(t *testing.T, r rendering) (inside, everywhere map[string]string) {
	t.Helper()
	inside, everywhere = map[string]string{}, map[string]string{}
	for _, p := range pods(r) {
		if p.set == nil {
			continue
		}
		s := named[*corev1.Service](t, r, p.set.Spec.ServiceName)
		require.Equal(t, corev1.ClusterIPNone, s.Spec.ClusterIP, "only a headless Service names pods")
		require.True(t, s.Spec.PublishNotReadyAddresses, "nodes must find each other to become ready")
		require.True(t, labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(p.meta.Labels)))
		inside[p.name+"."+s.Name] = p.name
		everywhere[p.name+"."+s.Name+"."+p.namespace+".svc"] = p.name
	}
	return inside, everywhere
}

// A node's name, the name it advertises and the names that others join by are
// those of its pod, which stay when the pod is made anew.
func TestNodesGoByTheNamesOfTheirPods(t *testing.T) {
	n := 0
	for _, r := range renderings(t) {
		_, everywhere := names(t, r)
		for _, p := range pods(r) {
			if p.set == nil {
				continue
			}
			n++
			node := p.load(t, p.agent(t)).node
			require.Equal(t, p.name, node.Name)
			require.Equal(t, p.name, everywhere[node.AdvertiseAddr], "%s: %s", r.name, node.AdvertiseAddr)
		}
	}
	require.Greater(t, n, 10)
}

func TestWhoIsJoinedIsThere(t *testing.T) {
	_, cluster := names(t, rendered(t, "overlays/production")) // what the sidecars use
	for _, r := range renderings(t) {
		inside, everywhere := names(t, r)
		if len(inside) == 0 {
			everywhere = cluster
		}
		for _, p := range pods(r) {
			gossip, rpc := p.load(t, p.agent(t)).joins()
			require.NotEmpty(t, slices.Concat(gossip, rpc))
			for addr, port := range both(gossip, rpc) {
				host, got, err := net.SplitHostPort(addr)
				require.NoError(t, err)
				require.True(t, inside[host] != "" || everywhere[host] != "", "%s: %s joins %s", r.name, p.name, host)
				require.Equal(t, port, got, addr)
			}
		}
	}
}

func both(gossip, rpc []string) map[string]string {
	all := map[string]string{}
	for _, a := range gossip {
		all[a] = "8401"
	}
	for _, a := range rpc {
		all[a] = "8400"
	}
	return all
}

func TestDisruptionTakesOneNodeAtATime(t *testing.T) {
	for _, r := range renderings(t) {
		budgets := of[*policyv1.PodDisruptionBudget](r)
		for _, p := range pods(r) {
			if len(p.spec.InitContainers) > 0 {
				continue // a program's own affair
			}
			over := 0
			for _, b := range budgets {
				if namespaceOf(r, b) == p.namespace && selects(t, b.Spec.Selector, p.meta.Labels) {
					over++
					require.Equal(t, 1, b.Spec.MaxUnavailable.IntValue())
					require.Nil(t, b.Spec.MinAvailable)
				}
			}
			require.Equal(t, 1, over, "%s: %s", r.name, p.name) // with two, nothing can be evicted
		}
	}
}

// A side is one end of a connection, as policies see it.
type side struct {
	namespace string
	labels    map[string]string
}

func (p pod) side() side { return side{p.namespace, p.meta.Labels} }

// allowed tells whether the policies of a rendering let one pod reach a port of
// another: each side's, where it has any for that direction.
func allowed(t *testing.T, r rendering, from, to side, port int, protocol corev1.Protocol) bool {
	t.Helper()
	match := func(home string, peers []networkingv1.NetworkPolicyPeer, who side) bool {
		return len(peers) == 0 || slices.ContainsFunc(peers, func(p networkingv1.NetworkPolicyPeer) bool {
			require.Nil(t, p.IPBlock)
			if p.NamespaceSelector == nil {
				if who.namespace != home {
					return false
				}
			} else if !selects(t, p.NamespaceSelector, map[string]string{corev1.LabelMetadataName: who.namespace}) {
				return false
			}
			return p.PodSelector == nil || selects(t, p.PodSelector, who.labels)
		})
	}
	through := func(ports []networkingv1.NetworkPolicyPort) bool {
		return len(ports) == 0 || slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
			has := corev1.ProtocolTCP
			if p.Protocol != nil {
				has = *p.Protocol
			}
			return has == protocol && p.Port.IntValue() == port
		})
	}
	governed := func(who side, direction networkingv1.PolicyType, ok func(networkingv1.NetworkPolicy) bool) bool {
		any, passes := false, false
		for _, p := range of[*networkingv1.NetworkPolicy](r) {
			if namespaceOf(r, p) == who.namespace && slices.Contains(p.Spec.PolicyTypes, direction) && selects(t, &p.Spec.PodSelector, who.labels) {
				any, passes = true, passes || ok(*p)
			}
		}
		return !any || passes
	}
	return governed(to, networkingv1.PolicyTypeIngress, func(p networkingv1.NetworkPolicy) bool {
		return slices.ContainsFunc(p.Spec.Ingress, func(rule networkingv1.NetworkPolicyIngressRule) bool {
			return through(rule.Ports) && match(to.namespace, rule.From, from)
		})
	}) && governed(from, networkingv1.PolicyTypeEgress, func(p networkingv1.NetworkPolicy) bool {
		return slices.ContainsFunc(p.Spec.Egress, func(rule networkingv1.NetworkPolicyEgressRule) bool {
			return through(rule.Ports) && match(from.namespace, rule.To, to)
		})
	})
}

// What has to talk can, through the policies of both sides; what need not cannot.
func TestNetworkPolicies(t *testing.T) {
	const tcp, udp = corev1.ProtocolTCP, corev1.ProtocolUDP
	sidecar := pods(rendered(t, "sidecar"))[0].side()
	job := pods(rendered(t, "job"))[0].side()
	n := 0
	for _, r := range renderings(t) {
		if len(of[*networkingv1.NetworkPolicy](r)) == 0 {
			continue
		}
		n++
		t.Run(r.name, func(t *testing.T) {
			node := pods(r)[0].side()
			stranger := side{"elsewhere", map[string]string{"app": "x"}}
			neighbour := side{node.namespace, map[string]string{"app": "x"}}
			prometheus := side{"monitoring", map[string]string{"app": "prometheus"}}
			dns := side{"kube-system", map[string]string{"k8s-app": "kube-dns"}}
			proxies := map[string]side{"sidecar": sidecar, "job": job}
			for _, p := range pods(r) {
				if p.set == nil {
					proxies["gateway"] = p.side()
				}
			}
			can := func(want bool, from, to side, port int, protocol corev1.Protocol, what string) {
				require.Equal(t, want, allowed(t, r, from, to, port, protocol), "%s %d/%s", what, port, protocol)
			}
			can(true, node, node, 8400, tcp, "node to node")
			can(true, node, node, 8401, tcp, "node to node")
			can(true, node, node, 8401, udp, "node to node")
			can(true, node, dns, 53, udp, "node to DNS")
			can(false, node, stranger, 443, tcp, "node to anything else")
			for _, name := range slices.Sorted(maps.Keys(proxies)) {
				proxy := proxies[name]
				can(true, proxy, node, 8400, tcp, name+" to node")
				can(true, proxy, node, 8401, tcp, name+" to node")
				can(true, proxy, node, 8401, udp, name+" to node")
				can(false, proxy, node, 8402, tcp, name+" to node")
				can(true, node, proxy, 8411, tcp, "node to "+name)
				can(true, node, proxy, 8411, udp, "node to "+name)
			}
			can(true, prometheus, node, 8402, tcp, "Prometheus to node")
			can(false, prometheus, node, 8400, tcp, "Prometheus to node")
			for name, who := range map[string]side{"a stranger": stranger, "a neighbour": neighbour} {
				for _, port := range []int{8400, 8401, 8402} {
					can(false, who, node, port, tcp, name+" to node")
				}
			}
			if gateway, ok := proxies["gateway"]; ok {
				can(true, stranger, gateway, 8410, tcp, "client to gateway")
				can(false, stranger, gateway, 8411, tcp, "client to gateway")
				can(false, stranger, gateway, 8412, tcp, "client to gateway")
				can(true, prometheus, gateway, 8412, tcp, "Prometheus to gateway")
				can(true, sidecar, gateway, 8411, udp, "proxies to each other")
				can(true, gateway, gateway, 8411, udp, "proxies to each other")
			}
		})
	}
	require.Greater(t, n, 5)
}

// What the page has beside the policies opens the way to a collector, which they close.
func TestThePagesPolicyLetsTracesOut(t *testing.T) {
	m := regexp.MustCompile("(?s)\n```yaml kubernetes\n(.*?)\n```").FindStringSubmatch(page(t))
	require.NotNil(t, m)
	var policy networkingv1.NetworkPolicy
	require.NoError(t, yaml.UnmarshalStrict([]byte(m[1]), &policy))
	for _, name := range []string{"overlays/production", "helm, cert-manager"} {
		r := rendered(t, name)
		node, collector := pods(r)[0].side(), side{"observability", map[string]string{"app": "collector"}}
		policy.Namespace = node.namespace
		require.False(t, allowed(t, r, node, collector, 4317, corev1.ProtocolTCP), name)
		opened := rendering{r.name, r.namespace, append(slices.Clone(r.objects), &policy)}
		require.True(t, allowed(t, opened, node, collector, 4317, corev1.ProtocolTCP), name)
		require.False(t, allowed(t, opened, node, collector, 443, corev1.ProtocolTCP), name)
		require.True(t, allowed(t, opened, node, node, 8400, corev1.ProtocolTCP), name)
	}
}

// relabels are the labels that a monitor sets, whatever else there is.
func relabels(configs []monv1.RelabelConfig) map[string]string {
	set := map[string]string{}
	for _, c := range configs {
		if c.Action == "" && len(c.SourceLabels) == 0 && c.Replacement != nil {
			set[c.TargetLabel] = *c.Replacement
		}
	}
	return set
}

// Prometheus finds every agent, by a port that is the admin server's.
func TestMonitorsFindEveryAgent(t *testing.T) {
	n := 0
	for _, r := range renderings(t) {
		services, podMonitors := of[*monv1.ServiceMonitor](r), of[*monv1.PodMonitor](r)
		if len(services) == 0 {
			require.Empty(t, podMonitors)
			continue
		}
		n++
		for _, p := range append(pods(r), pods(rendered(t, "sidecar"))...) {
			found := 0
			for _, m := range services {
				require.Len(t, m.Spec.Endpoints, 1)
				require.Equal(t, "/metrics", m.Spec.Endpoints[0].Path)
				for _, s := range of[*corev1.Service](r) {
					if selects(t, &m.Spec.Selector, s.Labels) && p.namespace == namespaceOf(r, s) && labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(p.meta.Labels)) {
						require.True(t, slices.ContainsFunc(s.Spec.Ports, func(port corev1.ServicePort) bool { return port.Name == m.Spec.Endpoints[0].Port }))
						found++
						require.Equal(t, map[string]string{"job": "logd", "cluster": p.load(t, p.agent(t)).cluster()}, relabels(m.Spec.Endpoints[0].RelabelConfigs))
					}
				}
			}
			for _, m := range podMonitors {
				require.True(t, m.Spec.NamespaceSelector.Any)
				require.Len(t, m.Spec.PodMetricsEndpoints, 1)
				require.Equal(t, "/metrics", m.Spec.PodMetricsEndpoints[0].Path)
				if selects(t, &m.Spec.Selector, p.meta.Labels) {
					port, ok := p.port(*m.Spec.PodMetricsEndpoints[0].Port)
					require.True(t, ok, p.name)
					require.True(t, strings.HasSuffix(p.load(t, p.agent(t)).admin(), fmt.Sprintf(":%d", port.ContainerPort)))
					require.Equal(t, map[string]string{"job": "logproxy", "cluster": p.load(t, p.agent(t)).cluster()}, relabels(m.Spec.PodMetricsEndpoints[0].RelabelConfigs))
					found++
				}
			}
			require.Equal(t, 1, found, "%s: %s", r.name, p.name)
		}
	}
	require.Positive(t, n)
}

// Of two clusters in one Kubernetes, each lets in and scrapes its own proxies alone.
func TestClustersShareAKubernetes(t *testing.T) {
	const label = "logd.io/cluster"
	clusters := map[string]rendering{}
	for _, name := range []string{"k8s", "orders"} {
		text, err := helm(t, values["cert-manager"]+"clusterName: "+name+"\n", "logd-"+name)
		require.NoError(t, err)
		clusters[name] = rendering{name, "storage", decode(t, text)}
	}
	proxies := map[string]pod{}
	for name, r := range clusters {
		i := slices.IndexFunc(pods(r), func(p pod) bool { return p.set == nil })
		require.GreaterOrEqual(t, i, 0)
		proxies[name] = pods(r)[i]
	}
	for mine, r := range clusters {
		for whose, p := range proxies {
			monitors := of[*monv1.PodMonitor](r)
			require.Len(t, monitors, 1)
			require.Equal(t, mine == whose, selects(t, &monitors[0].Spec.Selector, p.meta.Labels), "%s scrapes proxies of %s", mine, whose)
			require.Equal(t, mine == whose, allowed(t, r, p.side(), pods(r)[0].side(), 8400, corev1.ProtocolTCP), "%s lets in proxies of %s", mine, whose)
			require.Equal(t, mine == whose, allowed(t, r, p.side(), proxies[mine].side(), 8411, corev1.ProtocolTCP), "proxies of %s gossip with %s", mine, whose)
		}
	}
	for _, r := range renderings(t) {
		for _, p := range pods(r) {
			if p.set != nil {
				continue
			}
			require.Equal(t, p.load(t, p.agent(t)).cluster(), p.meta.Labels[label], "%s: %s", r.name, p.name)
			theirs := maps.Clone(p.meta.Labels)
			theirs[label] = "another"
			for _, m := range of[*monv1.PodMonitor](r) {
				require.False(t, selects(t, &m.Spec.Selector, theirs), "%s scrapes proxies of another cluster", r.name)
			}
			if len(of[*networkingv1.NetworkPolicy](r)) > 0 {
				node := pods(r)[0].side()
				require.False(t, allowed(t, r, side{"elsewhere", theirs}, node, 8400, corev1.ProtocolTCP), "%s lets in proxies of another cluster", r.name)
				require.False(t, allowed(t, r, node, side{"elsewhere", theirs}, 8411, corev1.ProtocolTCP), "%s gossips with proxies of another cluster", r.name)
			}
		}
	}
}
