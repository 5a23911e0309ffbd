package config

import (
	"net"
	"strings"
	"time"
)

// Proxy is the configuration of a logproxy.
type Proxy struct {
	// Name and Cluster must be those of the upstream certificate
	// (spiffe://<cluster>/proxy/<name>). Empty: taken from it.
	Name    string `hcl:"name,optional"`
	Cluster string `hcl:"cluster,optional"`

	// DataDir is where addrs.json goes. Empty: nowhere; a proxy has no state.
	DataDir string `hcl:"data_dir,optional"`

	Listener Listener `hcl:"listener,block"`
	Gossip   Gossip   `hcl:"gossip,block"`
	Admin    Admin    `hcl:"admin,block"`
	Upstream Upstream `hcl:"upstream,block"`

	// Discovery is where the set of nodes comes from; several merge. None: serf.
	Discovery []Discovery `hcl:"discovery,block"`

	Produce Produce `hcl:"produce,block"`
	Consume Consume `hcl:"consume,block"`
	Session Session `hcl:"session,block"`

	Limits ProxyLimits `hcl:"limits,block"`

	// GetServers is who GetServers names: "proxy" (itself) or "cluster".
	GetServers string `hcl:"get_servers,optional"`

	// Principal is who the clients of a plaintext listener are. Empty: the
	// proxy's own name.
	Principal string `hcl:"principal,optional"`

	// DrainTimeout is the last chance of open streams in a drain.
	DrainTimeout time.Duration `hcl:"drain_timeout,optional"`

	LogLevel  string `hcl:"log_level,optional"`
	LogFormat string `hcl:"log_format,optional"`

	origins origins // where loading took each value from, by HCL path; nil in a literal
}

// Listener is where clients come in.
type Listener struct {
	// Address is host:port, or a unix socket: unix:///path, or an absolute path.
	Address string `hcl:"address,optional"`
	// TLS set: clients need a certificate. Unset: plaintext, allowed on loopback
	// and on a unix socket only.
	TLS TLS `hcl:"tls,block"`
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
	Address          string   `hcl:"address,optional"`           // host:port to bind
	AdvertiseAddress string   `hcl:"advertise_address,optional"` // host or host:port; empty: as bound
	RetryJoin        []string `hcl:"retry_join,optional"`
	Key              string   `hcl:"key,optional"`
	KeyFile          string   `hcl:"key_file,optional"`
}

// Admin is the admin HTTP server.
type Admin struct {
	Address string `hcl:"address,optional"`
}

// Upstream is how the proxy presents itself to the nodes.
type Upstream struct {
	TLS TLS `hcl:"tls,block"`
}

// Discovery is one source of nodes.
type Discovery struct {
	Kind string `hcl:"kind,label"` // "serf" or "static"
	// Nodes are the host:port RPC addresses of discovery "static".
	Nodes []string `hcl:"nodes,optional"`
}

// Produce bounds the produces that wait.
type Produce struct {
	HoldTimeout  time.Duration `hcl:"hold_timeout,optional"` // without a leader, or the client's deadline when shorter
	MaxHeld      int           `hcl:"max_held,optional"`
	MaxHeldBytes Size          `hcl:"max_held_bytes,optional"`
}

// Consume is how reads are spread.
type Consume struct {
	Balance string `hcl:"balance,optional"` // one of Policies
	// MaxLag is how many records a follower may be behind and still be picked. 0: any.
	MaxLag int `hcl:"max_lag,optional"`
}

// Policies are what Consume.Balance may be: the names that package balance knows.
func Policies() []string {
	return []string{"consistent_hash", "leader", "least_request", "round_robin"}
}

// Session bounds what the proxy remembers for clients that name a session.
type Session struct {
	MaxSessions int `hcl:"max_sessions,optional"`
}

// ProxyLimits are a proxy's defences against its clients.
type ProxyLimits struct {
	MaxConnections       int           `hcl:"max_connections,optional"`        // 0: half of the process's file descriptors
	MaxConcurrentStreams int           `hcl:"max_concurrent_streams,optional"` // calls at a time on one connection
	MaxCalls             int           `hcl:"max_calls,optional"`              // calls at a time on all of them
	MaxUnread            int           `hcl:"max_unread,optional"`             // streams at a time whose client does not read
	HandshakeTimeout     time.Duration `hcl:"handshake_timeout,optional"`
	// Memory is how much the process may use before new calls are refused. 0: all
	// there is.
	Memory Size `hcl:"memory,optional"`
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
