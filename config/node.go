package config

import (
	"net"
	"strconv"
	"time"
)

// Node is the configuration of a storage node.
type Node struct {
	// Name and Cluster must be those of the node's certificate
	// (spiffe://<cluster>/storage/<name>). Empty: taken from it.
	Name    string `hcl:"name,optional"`
	Cluster string `hcl:"cluster,optional"`

	// DataDir holds everything the node must not forget.
	DataDir string `hcl:"data_dir,optional"`

	// BindAddr is the host that all listeners bind. AdvertiseAddr is the host, an
	// IP or a DNS name, under which others reach this node; see AdvertiseHost.
	BindAddr      string `hcl:"bind_addr,optional"`
	AdvertiseAddr string `hcl:"advertise_addr,optional"`
	Ports         Ports  `hcl:"ports,block"`

	// BootstrapExpect is the number of nodes that form a new cluster together.
	// 0: this node only ever joins one. A node with state ignores it.
	BootstrapExpect int      `hcl:"bootstrap_expect,optional"`
	RetryJoin       []string `hcl:"retry_join,optional"`

	// The gossip key, 32 bytes in base64, here or in a file, which may have several,
	// one a line: the first is spoken, all are understood. GossipKeys reads them.
	GossipKey     string `hcl:"gossip_key,optional"`
	GossipKeyFile string `hcl:"gossip_key_file,optional"`

	TLS    TLS    `hcl:"tls,block"`
	ACL    ACL    `hcl:"acl,block"`
	Raft   Raft   `hcl:"raft,block"`
	Log    Log    `hcl:"log,block"`
	Retain Retain `hcl:"retain,block"`
	Limits Limits `hcl:"limits,block"`

	Autopilot Autopilot `hcl:"autopilot,block"`

	// DrainTimeout bounds the orderly part of a shutdown.
	DrainTimeout time.Duration `hcl:"drain_timeout,optional"`

	LogLevel  string `hcl:"log_level,optional"`
	LogFormat string `hcl:"log_format,optional"`

	origins origins // where loading took each value from, by HCL path; nil in a literal
}

// Ports of a node. 0 lets the system choose; the node writes what it got to
// addrs.json in its data directory.
type Ports struct {
	RPC    int `hcl:"rpc,optional"`
	Gossip int `hcl:"gossip,optional"`
	Admin  int `hcl:"admin,optional"`
}

// TLS names three PEM files. All or none of them are set.
type TLS struct {
	CAFile   string `hcl:"ca_file,optional"`
	CertFile string `hcl:"cert_file,optional"`
	KeyFile  string `hcl:"key_file,optional"`
}

// IsZero reports that nothing is set.
func (t TLS) IsZero() bool { return t == TLS{} }

// ACL names the casbin files that say who may do what. Without a policy the roles in
// certificates decide alone; with one, what it does not allow is refused.
type ACL struct {
	Model  string `hcl:"model,optional"` // empty: the model that is built in
	Policy string `hcl:"policy,optional"`
}

// Raft is what may be tuned of the replication.
type Raft struct {
	// HeartbeatTimeout is also the election timeout and the leader's lease.
	HeartbeatTimeout time.Duration `hcl:"heartbeat_timeout,optional"`
	// AnnounceInterval is how often the leader tells the others the hash of its
	// state, so that they compare theirs. 0: never.
	AnnounceInterval time.Duration `hcl:"announce_interval,optional"`
}

// Log bounds the log's files and memory.
type Log struct {
	SegmentSize   Size `hcl:"segment_size,optional"`
	CacheSize     Size `hcl:"cache_size,optional"`      // the tail kept in memory
	MaxRecordSize Size `hcl:"max_record_size,optional"` // key and headers included
	MaxInFlight   Size `hcl:"max_in_flight,optional"`   // produced, not yet committed

	// Reserve is how much of the disk below data_dir stays free: nothing is
	// produced unless a majority of nodes has as much. 0: four segments and at
	// least 256 MiB, but at most a quarter of what the log has and could get.
	Reserve Size `hcl:"reserve,optional"`
	// ScrubRate is how many bytes a second are read in the background to find
	// damage while other nodes still have what is damaged. 0: none.
	ScrubRate Size `hcl:"scrub_rate,optional"`
}

// Retain is what the cluster keeps of the log; all nodes should say the same,
// since the one that leads decides. A limit of 0 is none.
type Retain struct {
	Age time.Duration `hcl:"age,optional"` // since the leader took a record
	// Size is what the leader's segment files take; other files, and the parts of
	// segments and checkpoints that cannot go yet, come on top.
	Size Size `hcl:"size,optional"`
}

// Autopilot is what the leader does about nodes that are dead for long.
type Autopilot struct {
	CleanupDeadServers bool          `hcl:"cleanup_dead_servers,optional"`
	DeadServerGrace    time.Duration `hcl:"dead_server_grace,optional"` // dead so long before it may leave
	MinQuorum          int           `hcl:"min_quorum,optional"`        // healthy voters that stay at least
}

// Limits are a node's defences against its clients.
type Limits struct {
	MaxConcurrentStreams int           `hcl:"max_concurrent_streams,optional"` // on one connection
	HandshakeTimeout     time.Duration `hcl:"handshake_timeout,optional"`
	ConnectionAge        time.Duration `hcl:"connection_age,optional"` // before jitter; 0: for ever
	SendTimeout          time.Duration `hcl:"send_timeout,optional"`   // a consumer that does not read is closed
}

// DefaultNode is a node's configuration before anything is said. It lacks what
// has no sensible default: data_dir, the gossip key, the certificates.
func DefaultNode() Node {
	return Node{
		BindAddr: "0.0.0.0",
		Ports:    Ports{RPC: 8400, Gossip: 8401, Admin: 8402},
		Raft:     Raft{HeartbeatTimeout: 300 * time.Millisecond, AnnounceInterval: 5 * time.Second},
		Log: Log{
			SegmentSize:   64 * MiB,
			CacheSize:     64 * MiB,
			MaxRecordSize: MaxRecordSize,
			MaxInFlight:   32 * MiB,
			ScrubRate:     4 * MiB,
		},
		Limits: Limits{
			MaxConcurrentStreams: 1000,
			HandshakeTimeout:     5 * time.Second,
			ConnectionAge:        time.Hour,
			SendTimeout:          30 * time.Second,
		},
		Autopilot: Autopilot{
			CleanupDeadServers: true,
			DeadServerGrace:    10 * time.Minute,
			MinQuorum:          3,
		},
		DrainTimeout: 30 * time.Second,
		LogLevel:     "info",
		LogFormat:    "text",
	}
}

// RPCAddr is the host:port to bind for gRPC and Raft.
func (c *Node) RPCAddr() string { return c.bind(c.Ports.RPC) }

// GossipAddr is the host:port to bind for gossip, on TCP and UDP.
func (c *Node) GossipAddr() string { return c.bind(c.Ports.Gossip) }

// AdminAddr is the host:port to bind for the admin HTTP server.
func (c *Node) AdminAddr() string { return c.bind(c.Ports.Admin) }

func (c *Node) bind(port int) string { return net.JoinHostPort(c.BindAddr, strconv.Itoa(port)) }

// AdvertiseHost is the host others reach this node under: advertise_addr, else a
// specific bind_addr, else this machine's private address.
func (c *Node) AdvertiseHost() (string, error) {
	if c.AdvertiseAddr != "" {
		return c.AdvertiseAddr, nil
	}
	return advertised(c.BindAddr, "advertise_addr")
}

// GossipKeys are the gossip keys, at least one, read from their file where one is
// named. The first is the one to encrypt with.
func (c *Node) GossipKeys() ([][]byte, error) {
	return gossipKeys(c.GossipKey, c.GossipKeyFile)
}
