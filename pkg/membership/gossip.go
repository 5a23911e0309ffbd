package membership

import (
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"
	"github.com/prometheus/client_golang/prometheus"
)

// Config says who we are in gossip and how to find the others.
type Config struct {
	ID            string // the node id, unique in the cluster
	Role          Role
	BindAddr      string   // host:port; port 0 takes a free one
	AdvertiseAddr string   // host:port others use; empty: the bound one
	Label         string   // the cluster's name: members with another are not heard
	Key           []byte   // 16, 24 or 32 bytes; empty: not encrypted, for development only
	OtherKeys     [][]byte // understood as well, while keys are being changed
	KeyringPath   string   // file that keeps keys changed over gossip, and wins over Key; empty: none
	RetryJoin     []string // host:port of members; Run tries until each has answered
	SnapshotPath  string   // file that remembers members over a restart; empty: none
	Tags          Tags     // as they are at the start

	Logger     hclog.Logger          // nil: quiet
	Registerer prometheus.Registerer // nil: not exported
}

// ErrClosed is what calls after Close return.
var ErrClosed = errors.New("gossip: closed")

// ConflictError reports that gossip ended because another process uses our id,
// and the majority of members knows that one.
type ConflictError struct{ ID string }

func (e *ConflictError) Error() string {
	return fmt.Sprintf("gossip ended: name conflict, another process is member %q; "+
		"two processes share a data directory's identity, or this one came back under another address before the others saw it go", e.ID)
}

// view is what Members and Changes show. Immutable but for changed, which is
// closed once, when the next view is in place.
type view struct {
	members []Member
	changed chan struct{}
}

// Gossip is our membership. Safe for concurrent use.
type Gossip struct {
	id        string
	role      Role
	retryJoin []string
	bound     string
	log       hclog.Logger
	reg       prometheus.Registerer
	metrics   *metrics
	serf      *serf.Serf
	transport *transport
	ring      *memberlist.Keyring // nil: not encrypted

	events   chan serf.Event // from Serf; see pump
	dirty    chan struct{}   // one token: members may differ from the view
	retag    chan struct{}   // one token: wanted may differ from what gossip says
	closing  chan struct{}   // closed by Close
	stopPump chan struct{}   // closed when Serf has ended
	pumped   chan struct{}   // closed when pump has
	view     atomic.Pointer[view]
	wanted   atomic.Pointer[Tags] // never changed behind the pointer
	said     Tags                 // what gossip says; keepTagged only

	mu     sync.Mutex
	closed bool           // guarded by mu; once true, workers grows no more
	result error          // of the first Close; set before closedOnce ends
	once   sync.Once      // Close
	keysMu sync.Mutex     // held during a change of the keys
	tagsMu sync.Mutex     // held while wanted is read, changed and stored
	worker sync.WaitGroup // goroutines of Run that may block on the network; Add under mu while not closed
}

// Open binds the address and begins to answer gossip. It joins nobody (but the
// members of the snapshot): Join and Run do.
func Open(cfg Config) (*Gossip, error) {
	g, err := open(cfg)
	if err != nil {
		return nil, fmt.Errorf("open gossip: %w", err)
	}
	return g, nil
}

func open(cfg Config) (_ *Gossip, err error) {
	if cfg.ID == "" {
		return nil, errors.New("no id")
	}
	if len(cfg.Label) > memberlist.LabelMaxSize {
		return nil, fmt.Errorf("label of %d bytes, at most %d", len(cfg.Label), memberlist.LabelMaxSize)
	}
	tags, err := encodeTags(cfg.Role, cfg.Tags)
	if err != nil {
		return nil, err
	}
	bind, err := resolve("bind address", cfg.BindAddr)
	if err != nil {
		return nil, err
	}
	logger := cfg.Logger
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	ring, err := openKeyring(cfg, logger)
	if err != nil {
		return nil, err
	}
	std := log.New(newPaced(logger.StandardWriter(&hclog.StandardLoggerOptions{InferLevels: true})), "", 0)

	// The snapshot is tried and the address bound before Serf starts anything,
	// because Serf leaves goroutines behind when it fails to start.
	if err := trySnapshot(cfg.SnapshotPath); err != nil {
		return nil, err
	}
	tr, err := listen(bind.IP, bind.Port, std)
	if err != nil {
		return nil, fmt.Errorf("bind %s: %w", cfg.BindAddr, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, tr.Shutdown())
		}
	}()
	port := tr.GetAutoBindPort()
	advertise, err := advertised(cfg.AdvertiseAddr, port)
	if err != nil {
		return nil, err
	}
	if _, _, err := tr.FinalAdvertiseAddr(advertise.host, advertise.port); err != nil {
		return nil, fmt.Errorf("advertise address: %w", err)
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	g := &Gossip{
		id: cfg.ID, role: cfg.Role, retryJoin: slices.Clone(cfg.RetryJoin),
		bound: net.JoinHostPort(bind.IP.String(), strconv.Itoa(port)),
		log:   logger, reg: cfg.Registerer, metrics: m, transport: tr, ring: ring,
		events:  make(chan serf.Event, 512), // a burst while pump is not scheduled
		dirty:   make(chan struct{}, 1),
		retag:   make(chan struct{}, 1),
		closing: make(chan struct{}), stopPump: make(chan struct{}), pumped: make(chan struct{}),
	}
	g.wanted.Store(&cfg.Tags)
	g.said = cfg.Tags
	g.view.Store(&view{changed: make(chan struct{})})
	go g.pump() // joined by Close
	if g.serf, err = serf.Create(g.serfConfig(cfg, tags, std, advertise, port)); err != nil {
		close(g.stopPump)
		<-g.pumped
		m.unregister(cfg.Registerer)
		return nil, err
	}
	g.refresh()
	return g, nil
}

// trySnapshot makes the file if it is not there.
func trySnapshot(path string) error {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("gossip snapshot: %w", err)
	}
	return f.Close()
}

// serfConfig is Serf's LAN profile with faster gossip and probes: a change is
// known everywhere in tens of milliseconds, a failure in about a second.
func (g *Gossip) serfConfig(cfg Config, tags map[string]string, std *log.Logger, adv hostPort, port int) *serf.Config {
	c := serf.DefaultConfig()
	c.NodeName = cfg.ID
	c.Tags = tags
	c.EventCh = g.events
	c.Logger, c.LogOutput = std, nil
	c.SnapshotPath = cfg.SnapshotPath
	c.RejoinAfterLeave = true
	c.DisableCoordinates = true // nobody asks for distances
	c.EnableNameConflictResolution = true
	c.MinQueueDepth = 4096 // grow with the cluster rather than drop
	c.ReconnectInterval = 5 * time.Second
	c.ReconnectTimeout = 72 * time.Hour
	c.ReconnectTimeoutOverride = reconnectTimeout{}
	c.Merge = guard{g}

	ml := memberlist.DefaultLANConfig()
	ml.Transport = g.transport
	ml.Logger, ml.LogOutput = std, nil
	ml.BindPort = port // also the port of join addresses without one
	ml.AdvertiseAddr, ml.AdvertisePort = adv.host, adv.port
	ml.GossipInterval = 50 * time.Millisecond
	ml.ProbeInterval = 200 * time.Millisecond
	ml.ProbeTimeout = 100 * time.Millisecond
	ml.DeadNodeReclaimTime = 30 * time.Second
	ml.Label = cfg.Label
	ml.Keyring = g.ring
	c.KeyringFile = cfg.KeyringPath
	c.QueryTimeoutMult = 40 // 2 s among up to nine members
	c.MemberlistConfig = ml
	return c
}

// Addr returns the host:port really bound.
func (g *Gossip) Addr() string { return g.bound }

// Members returns all known members, ourselves among them, sorted by id. The
// slice is shared and must not be changed. It follows changes while Run runs.
func (g *Gossip) Members() []Member { return g.view.Load().members }

// Changes returns a channel that is closed when Members differs from what it is
// now. Get the channel first, then look.
func (g *Gossip) Changes() <-chan struct{} { return g.view.Load().changed }

// SetTags has change edit what we say about ourselves. It returns at once; Run
// passes the result on, newest only. A result that is too long to be said is
// logged and dropped.
func (g *Gossip) SetTags(change func(*Tags)) {
	g.tagsMu.Lock()
	defer g.tagsMu.Unlock()
	next := *g.wanted.Load()
	change(&next)
	if _, err := encodeTags(g.role, next); err != nil {
		g.log.Error("gossip tags kept as they are", "err", err)
		return
	}
	g.wanted.Store(&next)
	signal(g.retag)
}

// Join contacts members and returns how many answered. The error is nil when
// any did. It may block for ten seconds an address.
func (g *Gossip) Join(addrs []string) (int, error) {
	if !g.begin() {
		return 0, ErrClosed
	}
	defer g.worker.Done()
	n, err := g.serf.Join(addrs, true)
	if err != nil {
		return n, fmt.Errorf("join gossip: %w", err)
	}
	return n, nil
}

// Leave tells the others that we go for good and waits for the news to spread,
// for a few seconds. Stopping is not leaving: a node that restarts must not call
// it. Close comes after.
func (g *Gossip) Leave() error {
	if !g.begin() {
		return ErrClosed
	}
	defer g.worker.Done()
	if err := g.serf.Leave(); err != nil {
		return fmt.Errorf("leave gossip: %w", err)
	}
	return nil
}

// Close ends gossip without leaving: the others will find us failed. It waits
// for our goroutines; Serf's own end within its probe interval. A Leave in
// progress is waited for.
func (g *Gossip) Close() error {
	g.once.Do(func() {
		g.mu.Lock()
		g.closed = true
		g.mu.Unlock()
		close(g.closing)
		g.transport.end() // ends a Join in progress
		g.worker.Wait()
		if err := g.serf.Shutdown(); err != nil {
			g.result = fmt.Errorf("close gossip: %w", err)
		}
		close(g.stopPump)
		<-g.pumped
		g.metrics.unregister(g.reg)
	})
	return g.result
}

// begin counts a call that blocks on the network; Close waits for it. Its end is
// worker.Done.
func (g *Gossip) begin() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.worker.Add(1)
	return true
}

// pump takes Serf's events, whatever else we do: Serf sends them while it holds
// its member lock, so whoever reads them must not wait for Members. An event
// tells only that something changed, so none can be missed by being dropped on
// the way (Serf's snapshotter drops): the ones before it are still to come.
func (g *Gossip) pump() {
	defer close(g.pumped)
	for {
		select {
		case <-g.events:
			signal(g.dirty)
		case <-g.stopPump:
			for {
				select {
				case <-g.events:
				default:
					return
				}
			}
		}
	}
}

// signal leaves a token in a channel of capacity one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// refresh publishes the members as Serf has them, if they changed.
func (g *Gossip) refresh() {
	var members []Member
	for _, m := range g.serf.Members() {
		if x, err := member(m); err == nil { // guard has reported the others
			members = append(members, x)
		}
	}
	sortMembers(members)
	old := g.view.Load()
	if slices.Equal(old.members, members) {
		return
	}
	g.view.Store(&view{members: members, changed: make(chan struct{})})
	g.metrics.show(members)
	close(old.changed)
}

// othersAlive tells whether gossip reaches anybody.
func (g *Gossip) othersAlive() bool {
	return slices.ContainsFunc(g.serf.Members(), func(m serf.Member) bool {
		return m.Name != g.id && m.Status == serf.StatusAlive
	})
}
