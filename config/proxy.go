package config

import (
	"net"
	"strings"
	"time"
)

// Proxy is the configuration of a logproxy.
type Proxy struct {
	// The proxy's name, which must be that of its upstream certificate
	// (spiffe://<cluster>/proxy/<name>). Empty: taken from it.
	Name string `hcl:"name,optional"`
	// The cluster's name; likewise.
	Cluster string `hcl:"cluster,optional"`

	// A directory for addrs.json, the addresses really bound, gossip.snapshot, the
	// members it knew, and cluster, the cluster it served: if that is another after a
	// restart, the log says so. Empty: none; what a proxy remembers are hints.
	DataDir string `hcl:"data_dir,optional"`

	Listener Listener `hcl:"listener,block"`
	Gossip   Gossip   `hcl:"gossip,block"`
	Admin    Admin    `hcl:"admin,block"`
	Upstream Upstream `hcl:"upstream,block"`

	Discovery []Discovery `hcl:"discovery,block"`

	Produce Produce `hcl:"produce,block"`
	Consume Consume `hcl:"consume,block"`
	Session Session `hcl:"session,block"`

	Limits ProxyLimits `hcl:"limits,block"`

	// Whom GetServers names: "proxy" (itself) or "cluster" (the nodes).
	GetServers string `hcl:"get_servers,optional"`

	// Who the clients of a plaintext listener are, to the nodes. Empty: the proxy's own
	// name.
	Principal string `hcl:"principal,optional"`

	// How long a proxy that was told to stop goes on taking calls, while it says that it is
	// not ready: as long as the balancer before it takes to notice.
	DrainDelay time.Duration `hcl:"drain_delay,optional"`
	// How long open streams may go on after that.
	DrainTimeout time.Duration `hcl:"drain_timeout,optional"`

	Telemetry Telemetry `hcl:"telemetry,block"`

	// "trace", "debug", "info", "warn", "error" or "off".
	LogLevel string `hcl:"log_level,optional" reload:"yes"`
	// "text" or "json", on standard error.
	LogFormat string `hcl:"log_format,optional"`

	origins origins // where loading took each value from, by HCL path; nil in a literal
	sources sources // the files it was loaded from
}

// Listener is where clients come in. With a tls block they need a certificate; without
// one it is plaintext, allowed on loopback and on a unix socket only.
type Listener struct {
	// host:port, or a unix socket: unix:///path, or an absolute path.
	Address string `hcl:"address,optional"`
	TLS     TLS    `hcl:"tls,block"`
}

// Network splits Address for net.Listen: ("unix", path) or ("tcp", host:port).
func (l Listener) Network() (network, address string) {
	if path, ok := strings.CutPrefix(l.Address, "unix://"); ok {
		return "unix", path
	}
	if strings.HasPrefix(l.Address, "/") {
		return "unix", l.Address
	}
	return "tcp", l.Address
}

// Gossip is the proxy's own membership, as an observer; used by discovery "serf".
type Gossip struct {
	// host:port to bind, on TCP and UDP.
	Address string `hcl:"address,optional"`
	// The host, or host:port, under which others reach it. Empty: as bound.
	AdvertiseAddress string `hcl:"advertise_address,optional"`
	// The gossip addresses of nodes to find the cluster by. Required with discovery
	// "serf".
	RetryJoin []string `hcl:"retry_join,optional"`
	// The gossip key of the cluster. Required with discovery "serf", here or in a file.
	Key string `hcl:"key,optional"`
	// A file with the key, or several, one a line.
	KeyFile string `hcl:"key_file,optional"`
}

// Admin is the admin HTTP server.
type Admin struct {
	// host:port to bind.
	Address string `hcl:"address,optional"`
	// Whether the port speaks TLS, with the certificate of upstream.tls. What answers this
	// machine only then answers certificates of role admin from elsewhere too.
	TLS bool `hcl:"tls,optional"`
	// Whether /debug/pprof is served, to those who may see more than probes and metrics.
	PProf bool `hcl:"pprof,optional"`
	// Whether the page shows the newest records, to whoever may see it: everybody on
	// this machine, and with tls holders of role admin. Unset: without tls, and only beside
	// a plaintext TCP listener, which serves the same people the same records.
	Tail *bool `hcl:"tail,optional"`
}

// Upstream is how the proxy presents itself to the nodes.
type Upstream struct {
	TLS TLS `hcl:"tls,block"`
}

// Discovery is one source of nodes; several merge. Without any it is "serf".
type Discovery struct {
	// "serf", "static", "dns" or "zookeeper".
	Kind string `hcl:"kind,label"`
	// Of "static": the host:port RPC addresses of nodes.
	Nodes []string `hcl:"nodes,optional"`

	// Of "dns": the name of the nodes, as of a headless service: logd.default.svc. One that
	// ends in a dot is looked up as it is, any other in the search domains too.
	Name string `hcl:"name,optional"`
	// Of "dns": the port of RPC at each address of the name.
	Port int `hcl:"port,optional"`
	// Of "dns": whether SRV records of the name say hosts and ports, in place of port.
	SRV bool `hcl:"srv,optional"`
	// Of "dns": how often the name is looked up; the time to live of its records is not known
	// here. 0: "10s".
	Interval time.Duration `hcl:"interval,optional"`

	// Of "zookeeper": the host:port addresses of its servers.
	Servers []string `hcl:"servers,optional"`
	// Of "zookeeper": the path whose children are the nodes, as Finagle's serversets have
	// them; /discovery/prod/logd.
	Path string `hcl:"path,optional"`
	// Of "zookeeper": who the proxy is, in ZooKeeper's digest scheme. Empty: nobody.
	User string `hcl:"user,optional"`
	// Of "zookeeper": the password of user. Without tls it can be read on the way.
	Password string `hcl:"password,optional"`
	// Of "zookeeper": a file whose first line is the password; read at each connection.
	PasswordFile string `hcl:"password_file,optional"`
	// Of "zookeeper": how long its servers keep a session that is silent. 0: "10s".
	SessionTimeout time.Duration `hcl:"session_timeout,optional"`
	// Of "zookeeper": mutual TLS to its servers. Without it the connection is plaintext;
	// what is read are addresses, and who answers there has to show a node's certificate.
	TLS TLS `hcl:"tls,block"`
}

// Produce bounds the produces that wait.
type Produce struct {
	// How long a produce is held while there is no leader, unless its client's deadline
	// is sooner.
	HoldTimeout time.Duration `hcl:"hold_timeout,optional"`
	// How many records may be without an outcome. One client (a connection's unary calls,
	// or one ProduceStream) may hold as much as is still free: alone half, two that flood it
	// a third each; all streams together half. Beyond it they get OVERLOADED.
	MaxHeld int `hcl:"max_held,optional"`
	// How many bytes of them; likewise.
	MaxHeldBytes Size `hcl:"max_held_bytes,optional"`
}

// Consume is how reads are spread.
type Consume struct {
	// Which of the followers is read: "round_robin", "least_request", "consistent_hash"
	// (by metadata logd-routing-key), or "leader": none of them.
	Balance string `hcl:"balance,optional"`
	// How many records a follower may be behind and still be read. 0: any.
	MaxLag int `hcl:"max_lag,optional"`
}

// Policies are what Consume.Balance may be: the names that package balance knows.
func Policies() []string {
	return []string{"consistent_hash", "leader", "least_request", "round_robin"}
}

// Session bounds what the proxy remembers for clients that name a session.
type Session struct {
	// How many; the one that was not used for longest is forgotten first.
	MaxSessions int `hcl:"max_sessions,optional"`
}

// ProxyLimits are a proxy's defences against its clients.
type ProxyLimits struct {
	// Connections of clients. 0: half of the process's file descriptors.
	MaxConnections int `hcl:"max_connections,optional"`
	// Calls at a time on one connection.
	MaxConcurrentStreams int `hcl:"max_concurrent_streams,optional"`
	// Calls at a time on all of them.
	MaxCalls int `hcl:"max_calls,optional"`
	// Streams at a time whose client does not read; beyond it those that have not read for
	// longest get OVERLOADED.
	MaxUnread int `hcl:"max_unread,optional"`
	// How long a connection may take until it has shown a certificate or, in plaintext,
	// that it speaks HTTP/2.
	HandshakeTimeout time.Duration `hcl:"handshake_timeout,optional"`
	// What objects on the heap may take; above it new calls get OVERLOADED. 0: no limit.
	// Set GOMEMLIMIT too where the system has a limit.
	Memory Size `hcl:"memory,optional"`

	// Bytes of records that one principal may produce a second, here. 0: any.
	ProduceRate Size `hcl:"produce_rate,optional" reload:"yes"`
	// Bytes of records that one principal may read a second, here. 0: any.
	ConsumeRate Size `hcl:"consume_rate,optional" reload:"yes"`
	// Calls, streams opened, and messages on a stream, of one principal a second, here.
	// 0: any.
	RequestRate int `hcl:"request_rate,optional" reload:"yes"`
}

// DefaultProxy is a proxy's configuration before anything is said. It lacks
// what has no sensible default: the upstream certificates, and for discovery
// "serf" the gossip key and someone to join.
func DefaultProxy() Proxy {
	return Proxy{
		Listener: Listener{Address: "127.0.0.1:8410"},
		Gossip:   Gossip{Address: "0.0.0.0:8411"},
		Admin:    Admin{Address: "127.0.0.1:8412"},
		Produce: Produce{
			HoldTimeout:  10 * time.Second,
			MaxHeld:      10_000,
			MaxHeldBytes: 64 * MiB,
		},
		Consume: Consume{Balance: "round_robin", MaxLag: 100_000},
		Session: Session{MaxSessions: 10_000},
		Limits: ProxyLimits{
			MaxConcurrentStreams: 1000,
			MaxCalls:             10_000,
			MaxUnread:            256,
			HandshakeTimeout:     5 * time.Second,
			Memory:               GiB,
		},
		GetServers:   "proxy",
		Telemetry:    defaultTelemetry(),
		DrainTimeout: 30 * time.Second,
		LogLevel:     "info",
		LogFormat:    "text",
	}
}

// Sources are the discovery blocks, or serf where there is none.
func (c *Proxy) Sources() []Discovery {
	if len(c.Discovery) == 0 {
		return []Discovery{{Kind: "serf"}}
	}
	return c.Discovery
}

// ShowsTail reports whether the admin page shows the newest records, which the proxy
// reads as a client without a certificate would, or else under its own name. Unset, it
// does beside a plaintext TCP listener: that is on loopback, as the page is that has no
// TLS, and serves everybody who could open the page. A unix socket has an owner and a mode, and a TLS
// listener asks who somebody is; the page would go around them.
func (c *Proxy) ShowsTail() bool {
	if c.Admin.Tail != nil {
		return *c.Admin.Tail
	}
	network, _ := c.Listener.Network()
	return network == "tcp" && c.Listener.TLS.IsZero() && !c.Admin.TLS
}

// UsesGossip reports whether the proxy joins gossip at all.
func (c *Proxy) UsesGossip() bool {
	for _, d := range c.Sources() {
		if d.Kind == "serf" {
			return true
		}
	}
	return false
}

// AdvertiseHost is the host gossip reaches this proxy under:
// gossip.advertise_address, else a specific host of gossip.address, else this
// machine's private address.
func (c *Proxy) AdvertiseHost() (string, error) {
	if a := c.Gossip.AdvertiseAddress; a != "" {
		if host, _, err := net.SplitHostPort(a); err == nil {
			return host, nil
		}
		return a, nil
	}
	host, _, err := net.SplitHostPort(c.Gossip.Address)
	if err != nil {
		return "", err
	}
	return advertised(host, "gossip.advertise_address")
}

// GossipKeys are the gossip keys, at least one, read from their file where one is
// named. The first is the one to encrypt with.
func (c *Proxy) GossipKeys() ([][]byte, error) {
	return gossipKeys(c.Gossip.Key, c.Gossip.KeyFile)
}
