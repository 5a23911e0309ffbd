package server

import (
	"context"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/authz"
	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/internal/netlimit"
	"github.com/logd-io/logd/pkg/internal/throttle"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/telemetry"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// Defaults and limits.
const (
	// MaxRecordBytes is the largest record, key and headers included.
	MaxRecordBytes = 1<<20 - 4<<10

	defaultStreams   = 1000
	defaultHandshake = 5 * time.Second
	defaultAge       = time.Hour
	defaultSend      = 30 * time.Second
	defaultOffsets   = 250 * time.Millisecond

	// ageGrace is how long calls on a connection past its age may still run.
	ageGrace = time.Minute
	// maxHeaderBytes bounds the header list of a request.
	maxHeaderBytes = 16 << 10
	// maxMessageBytes is more than the largest batch, so that a batch somewhat
	// over its limit gets an answer that says so.
	maxMessageBytes = 4 << 20
)

// Replica is what the services need of the replicated log.
type Replica interface {
	// Submit takes a batch in call order and does not wait for Raft.
	Submit(b replica.Batch) (Pending, error)
	WaitPosition(ctx context.Context, position uint64, bound time.Duration) error
	// CompareHash answers a peer with the certificate's name, whose state at an
	// announced entry has that fingerprint.
	CompareHash(name string, index, digest uint64) (known bool, own uint64, err error)
	// ReadIndex gives, on the leader, the position a linearizable read has to see.
	ReadIndex(ctx context.Context) (position uint64, err error)
	View() replica.View
	// Changes is closed at the next change of View.
	Changes() <-chan struct{}
	Stats() replica.Stats
	// Peers is the configuration, newer than that of View.
	Peers() []replica.Peer
	AddNonvoter(ctx context.Context, id string) error
	RemovePeer(ctx context.Context, id string) error
	Transfer(ctx context.Context, target string) error
	// Entries and NewestCheckpoint are what this node has on disk, for a peer to repair
	// its own with. They need no Raft.
	Entries(first, last uint64, maxBytes int) (replica.Extract, error)
	// NewestCheckpoint gives the newest at or below max; Index 0: there is none.
	NewestCheckpoint(max uint64) (replica.Checkpoint, error)
}

// Pending is a submitted batch. Result is valid once Done is closed.
type Pending interface {
	Done() <-chan struct{}
	Result() (replica.Result, error)
}

// Log is the readable side, the half-open range [Lowest, Visible).
type Log interface {
	Visible() uint64
	Lowest() uint64
	// Wait blocks until off is readable.
	Wait(ctx context.Context, off uint64) error
	// ReadInto gives whole batches, the first of which holds off. What it reads from
	// the disk lies in memory that room gives.
	ReadInto(off uint64, maxBytes int, room func(n int) []byte) ([]commitlog.RecordBatch, error)
	OffsetAt(unixNano int64) uint64
}

// Promises is the node's one promise about its cluster (package bootstrap).
type Promises interface {
	// Grant returns when the promise is on disk. An identical one is granted
	// again; another is refused.
	Grant(ctx context.Context, clusterID, initiator string, servers []string) error
}

// Keyring changes the gossip keys of all members, and asks for them. It may block
// for some seconds.
type Keyring interface {
	ListKeys() (*nodev1.Keyring, error)
	InstallKey(key []byte) (*nodev1.Keyring, error)
	UseKey(id string, force bool) (*nodev1.Keyring, error)
	RemoveKey(id string, force bool) (*nodev1.Keyring, error)
}

// Config is what New needs. Zero limits mean the defaults.
type Config struct {
	NodeID  string
	Version string
	Process string // random, another one each time the node is started

	Replica  Replica
	Log      Log
	Promises Promises
	Keyring  Keyring // nil: there is no gossip
	TLS      *tlsconf.Source
	Authz    *authz.Authorizer // nil: roles alone decide
	// Addresses is host:port of a node's RPC listener, "" when unknown.
	Addresses func(id string) string
	// ReadIndex asks the node with that id for its ReadIndex. Nil: followers
	// refuse linearizable reads.
	ReadIndex func(ctx context.Context, leader string) (position uint64, err error)
	// Autopilot is what this node thinks of the servers while it leads; it answers nil
	// when it does not. Nil: nothing is told.
	Autopilot func() *nodev1.Autopilot
	// Answers asks another node whether it is there. nil: nobody is asked before a
	// removal.
	Answers func(ctx context.Context, id string) error
	// RaftConn takes over an authenticated logd-raft/1 connection from the
	// holder of a storage certificate with that name. It must not block.
	RaftConn func(conn net.Conn, name string)

	MaxRecordBytes       int
	MaxConcurrentStreams uint32         // a connection
	HandshakeTimeout     time.Duration  // TLS and HTTP/2 preface, each
	ConnectionAge        time.Duration  // ± 10 % jitter
	SendTimeout          time.Duration  // how long one message may wait for its receiver
	Rates                throttle.Rates // of each principal; nodes and admins have none
	OffsetsInterval      time.Duration  // between views on WatchCluster when only offsets move
	// Connections bounds the connections of clients and proxies, half of Kept for
	// each. Zero: by the file descriptors this process may have.
	Connections netlimit.Budget

	// Clock stamps records, and nothing else goes by it; nil: the system's. It may
	// jump, and it may differ between nodes.
	Clock func() time.Time

	// Tracing has calls and batches traced; nil: none are.
	Tracing    *telemetry.Tracing
	Logger     hclog.Logger          // nil: quiet
	Registerer prometheus.Registerer // nil: no metrics
}

func (c *Config) fill() {
	orInt(&c.MaxRecordBytes, MaxRecordBytes)
	orInt(&c.MaxConcurrentStreams, defaultStreams)
	orInt(&c.HandshakeTimeout, defaultHandshake)
	orInt(&c.ConnectionAge, defaultAge)
	orInt(&c.SendTimeout, defaultSend)
	orInt(&c.OffsetsInterval, defaultOffsets)
	if c.Connections == (netlimit.Budget{}) {
		c.Connections = netlimit.Clients(netlimit.Files())
	}
	if c.Authz == nil {
		c.Authz = authz.ByRole()
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Addresses == nil {
		c.Addresses = func(string) string { return "" }
	}
}

func orInt[T int | uint32 | time.Duration](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}
