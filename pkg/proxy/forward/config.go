package forward

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/logd-io/logd/pkg/internal/events"
	"github.com/logd-io/logd/pkg/internal/throttle"
	"github.com/logd-io/logd/pkg/proxy/route"
)

// Tables is where the newest routing table is; *route.Holder is one.
type Tables interface {
	Load() *route.Table
}

// Hints takes what the data path learns about the cluster. Its methods never
// block.
type Hints interface {
	// NotLeader says that node from named leader, at addr, as the leader of term.
	// Leader and addr may be empty.
	NotLeader(from, leader, addr string, term uint64)
	// Failed says that node id did not answer as a healthy one does.
	Failed(id string, err error)
}

// SessionScope says what a call without logd-session metadata belongs to.
type SessionScope int

const (
	// SessionProxy makes all such calls one session: a sidecar has one client.
	SessionProxy SessionScope = iota
	// SessionConnection makes each downstream connection a session.
	SessionConnection
)

// What GetServers answers.
const (
	ServersProxy   = "proxy"   // the proxy itself, as leader
	ServersCluster = "cluster" // the nodes of the routing table
)

// Config is what a Forwarder is made of. Zero limits mean the defaults named
// beside them.
type Config struct {
	Holder Tables // required
	Hints  Hints  // nil: nobody listens
	// Principal names the caller; an error refuses the call. Nil: everybody is
	// "local".
	Principal func(context.Context) (string, error)
	// Sessions is the scope of calls that name none.
	Sessions SessionScope

	GetServers string        // ServersProxy or ServersCluster; "": ServersProxy
	Self       string        // the proxy's id in GetServers
	Addr       func() string // the proxy's address in GetServers

	HoldTimeout    time.Duration // the longest a produce waits without a leader's progress; 10 s
	HoldRecords    int           // produces without an outcome, over all clients; 10,000
	HoldBytes      int64         // their bytes; 64 MiB
	AckTimeout     time.Duration // a leader with batches outstanding is silent for this long: reopen; 3 s
	IdleTimeout    time.Duration // an append stream without work closes after it; 60 s
	AttemptTimeout time.Duration // one try of a unary read; 1 s
	StallTimeout   time.Duration // a consume stream's upstream is silent for this long: elsewhere; 1 s
	BatchBytes     int           // bound of a batch, unless one record is larger; 256 KiB
	FetchBytes     int           // soft bound of one fetched message; 256 KiB
	ShareBytes     int64         // fetched records kept for consume streams that read along; 64 MiB (64 KiB a fetch more)
	MaxRecordBytes int           // 1 MiB less 4 KiB
	MaxAppenders   int           // principals with an append stream at a time; 1,024
	MaxSessions    int           // sessions remembered; 10,000
	StreamRecords  int           // records of one ProduceStream without an answer; 4,096
	StreamBytes    int           // their bytes; 1 MiB (one record more is let in)

	Rates *throttle.Throttle // of each principal; calls are counted before they come here; nil: none

	Tracer     trace.Tracer          // nil: nothing is traced
	Logger     hclog.Logger          // nil: quiet
	Registerer prometheus.Registerer // nil: unregistered
	Events     *events.Log           // what has happened, for people; may be nil
}

// window is how many batches of one producer may be unacknowledged: the log
// remembers that many of each for deduplication.
const window = 5

// ahead is how many batches are sent whatever is in them, but for the second where
// there were crowded records of late (gathers); worthwhile is how many bytes must be
// waiting for another.
const (
	ahead      = 2
	crowded    = 8
	worthwhile = 64 << 10
)

// A client is light when the most it held of late, so within two times peakFor, is at
// most a lightPart of what the heaviest did, and that is heavyBytes at least. For
// unevenFor after a record of one came a batch has at most unevenBytes, unless one
// record is larger.
const (
	lightPart   = 8
	heavyBytes  = 32 << 10
	unevenBytes = 64 << 10
	unevenFor   = time.Second
	peakFor     = 100 * time.Millisecond
)

// maxBatchRecords bounds the records of a batch: a node adds a timestamp to each, and
// the batch must stay below its limit with them, however small they are.
const maxBatchRecords = 16384

// lastChance is how long produces under way are waited for once streams were ended;
// what they are told then is what is known of them.
const lastChance = time.Second

// heartbeat is how often a quiet upstream is asked to say so.
const heartbeat = 250 * time.Millisecond

func (c Config) withDefaults() (Config, error) {
	var errs []error
	if c.Holder == nil {
		errs = append(errs, errors.New("forward: Holder: required"))
	}
	switch c.GetServers {
	case "":
		c.GetServers = ServersProxy
	case ServersProxy, ServersCluster:
	default:
		errs = append(errs, fmt.Errorf("forward: GetServers: %q is neither %q nor %q", c.GetServers, ServersProxy, ServersCluster))
	}
	if c.Hints == nil {
		c.Hints = noHints{}
	}
	if c.Principal == nil {
		c.Principal = func(context.Context) (string, error) { return "local", nil }
	}
	if c.Addr == nil {
		c.Addr = func() string { return "" }
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	orDefault(&c.HoldTimeout, 10*time.Second)
	orDefault(&c.HoldRecords, 10_000)
	orDefault(&c.HoldBytes, 64<<20)
	orDefault(&c.AckTimeout, 3*time.Second)
	orDefault(&c.IdleTimeout, 60*time.Second)
	orDefault(&c.AttemptTimeout, time.Second)
	orDefault(&c.StallTimeout, time.Second)
	orDefault(&c.BatchBytes, 256<<10)
	orDefault(&c.FetchBytes, 256<<10)
	orDefault(&c.ShareBytes, 64<<20)
	orDefault(&c.MaxRecordBytes, 1<<20-4<<10)
	orDefault(&c.MaxAppenders, 1024)
	orDefault(&c.MaxSessions, 10_000)
	orDefault(&c.StreamRecords, 4096)
	orDefault(&c.StreamBytes, 1<<20)
	return c, errors.Join(errs...)
}

func orDefault[T int | int64 | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

type noHints struct{}

func (noHints) NotLeader(string, string, string, uint64) {}
func (noHints) Failed(string, error)                     {}
