package config

import (
	"net"
	"strconv"
	"time"
)

// Node is the configuration of a storage node.
type Node struct {
	// The node's name, which must be that of its certificate
	// (spiffe://<cluster>/storage/<name>). Empty: taken from it.
	Name string `hcl:"name,optional"`
	// The cluster's name; likewise.
	Cluster string `hcl:"cluster,optional"`

	// The directory of everything the node must not forget. Required.
	DataDir string `hcl:"data_dir,optional"`

	// The host that all listeners bind.
	BindAddr string `hcl:"bind_addr,optional"`
	// The host, an IP or better a DNS name, under which others reach this node. Empty:
	// a specific bind_addr, else this machine's private address.
	AdvertiseAddr string `hcl:"advertise_addr,optional"`
	Ports         Ports  `hcl:"ports,block"`

	// How many nodes form a new cluster together. 0: this node only ever joins one. 1: it
	// begins one alone, after everybody in retry_join has answered. A node with state
	// ignores it.
	BootstrapExpect int `hcl:"bootstrap_expect,optional"`
	// The gossip addresses of nodes to find the cluster by, tried again until one
	// answers. Required unless the node bootstraps alone.
	RetryJoin []string `hcl:"retry_join,optional"`

	// The gossip key, 32 bytes in base64 (logd keygen). Required, here or in a file.
	GossipKey string `hcl:"gossip_key,optional"`
	// A file with the gossip key, or several, one a line: the first is spoken, all are
	// understood.
	GossipKeyFile string `hcl:"gossip_key_file,optional"`

	TLS    TLS       `hcl:"tls,block"`
	ACL    ACL       `hcl:"acl,block"`
	Raft   Raft      `hcl:"raft,block"`
	Log    Log       `hcl:"log,block"`
	Retain Retain    `hcl:"retain,block"`
	Limits Limits    `hcl:"limits,block"`
	Admin  NodeAdmin `hcl:"admin,block"`

	Autopilot Autopilot `hcl:"autopilot,block"`

	Register []Register `hcl:"register,block"`

	// How long the orderly part of a shutdown may take.
	DrainTimeout time.Duration `hcl:"drain_timeout,optional"`

	Telemetry Telemetry `hcl:"telemetry,block"`

	// "trace", "debug", "info", "warn", "error" or "off".
	LogLevel string `hcl:"log_level,optional" reload:"yes"`
	// "text" or "json", on standard error.
	LogFormat string `hcl:"log_format,optional"`

	origins origins // where loading took each value from, by HCL path; nil in a literal
	sources sources // the files it was loaded from
}

// Ports are what a node listens on. 0 lets the system choose; the node writes what it got
// to addrs.json in its data directory.
type Ports struct {
	// gRPC and Raft, with mutual TLS.
	RPC int `hcl:"rpc,optional"`
	// Gossip, on TCP and UDP.
	Gossip int `hcl:"gossip,optional"`
	// The admin HTTP server.
	Admin int `hcl:"admin,optional"`
}

// TLS names three PEM files. All or none of them are set. They are read again when they
// change.
type TLS struct {
	// The certificates of the CAs that are believed; several while one is replaced.
	CAFile string `hcl:"ca_file,optional"`
	// The process's own certificate, then intermediate ones, if any.
	CertFile string `hcl:"cert_file,optional"`
	// The key of it, which nobody else may be able to read.
	KeyFile string `hcl:"key_file,optional"`
}

// IsZero reports that nothing is set.
func (t TLS) IsZero() bool { return t == TLS{} }

// ACL names the casbin files that say who may do what. Without a policy the roles in
// certificates decide alone; with one, what it does not allow is refused.
type ACL struct {
	// The casbin model. Empty: the one that is built in.
	Model string `hcl:"model,optional"`
	// The casbin policy. Empty: there is none.
	Policy string `hcl:"policy,optional"`
}

// Raft is what may be tuned of the replication.
type Raft struct {
	// How long without word from a leader until the others elect one; also how long a
	// leader may lead without word from a majority. All nodes should say the same; "1s" suits
	// slow disks.
	HeartbeatTimeout time.Duration `hcl:"heartbeat_timeout,optional"`
	// How often the leader tells the others the hash of its state, so that they compare
	// theirs. 0: never.
	AnnounceInterval time.Duration `hcl:"announce_interval,optional"`
}

// Log bounds the log's files and memory.
type Log struct {
	// The size of the files the log is cut into.
	SegmentSize Size `hcl:"segment_size,optional"`
	// How much of the log's end is kept in memory for readers.
	CacheSize Size `hcl:"cache_size,optional"`
	// The largest record, key and headers included.
	MaxRecordSize Size `hcl:"max_record_size,optional"`
	// How much may be produced and not yet committed; beyond it produces get OVERLOADED.
	MaxInFlight Size `hcl:"max_in_flight,optional"`

	// How much of the disk below data_dir stays free: with less on a majority of nodes, or
	// on the leader, produces get OVERLOADED; with half of it a node takes none. 0: four
	// segments and at least 256 MiB, but at most a quarter of what the log has and could
	// get.
	Reserve Size `hcl:"reserve,optional"`
	// How many bytes a second are read in the background to find damage, which is then
	// repaired from the other nodes. 0: none.
	ScrubRate Size `hcl:"scrub_rate,optional"`
}

// Retain is what the cluster keeps of the log; all nodes should say the same, since the one
// that leads decides. A limit of 0 is none. A consumer below the lowest offset gets
// OFFSET_OUT_OF_RANGE with it. A reload that keeps less deletes at once, and warns how
// much.
type Retain struct {
	// How long ago the leader may have taken a record that is kept: by the clock of that
	// leader, not by the record's own timestamp. It pauses, with a warning, while no
	// majority's clocks are within a minute of the leader's.
	Age time.Duration `hcl:"age,optional" reload:"yes"`
	// What the leader's segment files take. A node's disk holds more: up to three segments,
	// the way between two checkpoints (a sixteenth of size, and at least what comes between
	// two: 4,096 entries or 64 MiB), and what was written in the last few seconds.
	Size Size `hcl:"size,optional" reload:"yes"`
}

// Autopilot is what the leader does about nodes that are dead for long.
type Autopilot struct {
	// Whether the leader removes them at all.
	CleanupDeadServers bool `hcl:"cleanup_dead_servers,optional"`
	// How long a node is dead before it may be removed.
	DeadServerGrace time.Duration `hcl:"dead_server_grace,optional"`
	// How many healthy voters stay at least.
	MinQuorum int `hcl:"min_quorum,optional"`
}

// Register is where the node makes itself known besides gossip, while it is ready: for
// proxies with discovery "zookeeper", and for whatever else reads Finagle's serversets.
// That it fails does the node no harm.
type Register struct {
	// "zookeeper".
	Kind string `hcl:"kind,label"`
	// The host:port addresses of ZooKeeper's servers.
	Servers []string `hcl:"servers,optional"`
	// The path below which the node makes its member; made where it is missing.
	Path string `hcl:"path,optional"`
	// Who the node is, in ZooKeeper's digest scheme: only the same user can change or remove
	// what it makes, and everybody can read it. Empty: anybody can.
	User string `hcl:"user,optional"`
	// The password of user. Without tls it can be read on the way.
	Password string `hcl:"password,optional"`
	// A file whose first line is the password; read at each connection.
	PasswordFile string `hcl:"password_file,optional"`
	// How long the member stays when the node has died, or cannot reach ZooKeeper. 0: "10s".
	SessionTimeout time.Duration `hcl:"session_timeout,optional"`
	// Mutual TLS to ZooKeeper's servers. Without it the connection is plaintext.
	TLS TLS `hcl:"tls,block"`
}

// Limits are a node's defences against its clients.
type Limits struct {
	// Calls at a time on one connection.
	MaxConcurrentStreams int `hcl:"max_concurrent_streams,optional"`
	// How long a connection may take until it has shown a certificate.
	HandshakeTimeout time.Duration `hcl:"handshake_timeout,optional"`
	// How long a connection lives, give or take a tenth. 0: for ever.
	ConnectionAge time.Duration `hcl:"connection_age,optional"`
	// How long a consumer may leave what it is sent unread.
	SendTimeout time.Duration `hcl:"send_timeout,optional"`

	// Bytes of records that one principal may produce a second, here. 0: any.
	ProduceRate Size `hcl:"produce_rate,optional" reload:"yes"`
	// Bytes of records that one principal may read a second, here. 0: any.
	ConsumeRate Size `hcl:"consume_rate,optional" reload:"yes"`
	// Calls, streams opened, and messages on a stream, of one principal a second, here.
	// 0: any.
	RequestRate int `hcl:"request_rate,optional" reload:"yes"`
}

// NodeAdmin is the admin HTTP server, at ports.admin.
type NodeAdmin struct {
	// Whether the port speaks TLS, with the certificate of tls. What answers this machine
	// only then answers certificates of role admin from elsewhere too.
	TLS bool `hcl:"tls,optional"`
	// Whether /debug/pprof is served, to those who may see more than probes and metrics.
	PProf bool `hcl:"pprof,optional"`
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
		Telemetry:    defaultTelemetry(),
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
