package devcluster

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/pkg/telemetry"
	"github.com/logd-io/logd/pkg/vfs"
)

// Options say what a Cluster is made of. The zero value is three nodes on their
// default ports, in a folder that Close removes.
type Options struct {
	// Dir keeps certificates and data. Empty: a temporary folder, removed by
	// Close. A folder that held a cluster before brings it back.
	Dir   string
	Nodes int // 0: 3
	// PortBase 0 puts node i on 127.0.0.i, with the default ports, and the proxy
	// on 127.0.0.1. Another puts all of them on 127.0.0.1, ten ports a process
	// from PortBase on, for systems on which the rest of 127/8 is not there.
	PortBase int
	// AnyPort lets the system choose all ports, on 127.0.0.1. It is for tests.
	AnyPort bool
	// Heartbeat is Raft's; 0 leaves the default. Under the race detector a second
	// is right.
	Heartbeat time.Duration
	// Clocks are what nodes stamp records by, by their names; the system's for
	// those that have none.
	Clocks map[string]func() time.Time
	// Disks are what nodes keep their data on, by their names; the system's for
	// those that have none.
	Disks map[string]vfs.FS
	// Configure changes what a node is configured with otherwise; nil: nothing.
	Configure func(*config.Node)

	// Registry is the metrics registry of the node, or proxy, with that name; nil, or an
	// answer of nil: one of its own.
	Registry func(name string) *prometheus.Registry

	// Tracing is that of the node, or proxy, with that name, and is closed with it; nil, or
	// an answer of nil: nothing is traced.
	Tracing func(name string) *telemetry.Tracing

	Version string
	Logger  hclog.Logger // nil: quiet
}

const (
	defaultNodes = 3
	maxNodes     = 9
	portStep     = 10
)

func (o *Options) fill() error {
	if o.Nodes == 0 {
		o.Nodes = defaultNodes
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Nodes < 1 || o.Nodes > maxNodes {
		return fmt.Errorf("%d nodes: 1 to %d can be had", o.Nodes, maxNodes)
	}
	if last := o.PortBase + portStep*(o.Nodes+1); o.PortBase < 0 || last > 65535 {
		return fmt.Errorf("port base %d: the ports up to %d must exist", o.PortBase, last)
	}
	return nil
}

// registry is that of the process with that name. One that is revived has another.
func (o *Options) registry(name string) *prometheus.Registry {
	if o.Registry != nil {
		if reg := o.Registry(name); reg != nil {
			return reg
		}
	}
	return prometheus.NewRegistry()
}

// tracing is that of the process with that name.
func (o *Options) tracing(name string) *telemetry.Tracing {
	if o.Tracing == nil {
		return nil
	}
	return o.Tracing(name)
}

// place is where node i (from 1) listens.
func (o *Options) place(i int) (host string, ports config.Ports) {
	switch {
	case o.AnyPort:
		return "127.0.0.1", config.Ports{}
	case o.PortBase > 0:
		base := o.PortBase + portStep*i
		return "127.0.0.1", config.Ports{RPC: base, Gossip: base + 1, Admin: base + 2}
	}
	return net.IPv4(127, 0, 0, byte(i)).String(), config.DefaultNode().Ports
}

// proxyPlace is where the proxy listens.
func (o *Options) proxyPlace() (listener, gossip, admin string) {
	at := func(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
	switch {
	case o.AnyPort:
		return at(0), at(0), at(0)
	case o.PortBase > 0:
		return at(o.PortBase), at(o.PortBase + 1), at(o.PortBase + 2)
	}
	return at(8410), at(8411), at(8412)
}
