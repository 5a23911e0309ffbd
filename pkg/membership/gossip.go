package membership

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
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

	// Ask and Outvoted are about another address where others know our id, and go over
	// RPC, so they need no UDP. Ask tells who answers there; Outvoted whether more of the
	// other members know our id there than here. They end with ctx. Nil: nobody is asked.
	Ask      func(ctx context.Context, c Claim) Answer
	Outvoted func(ctx context.Context, c Claim) bool
	// Gone says that a storage node will not be back by that id, so that no change of keys
	// waits for it. It must not block. Nil: all may be.
	Gone func(id string) bool

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
	unheard []string // of retryJoin: has not answered since Open
	changed chan struct{}
}

// Gossip is our membership. Safe for concurrent use.
type Gossip struct {
	id        string
	role      Role
	retryJoin []string
	snapshot  string   // file that members are kept in; empty: none
	recalled  []string // host:port of those that were in it
	bound     string
	own       string // ip:port that others are told
	log       hclog.Logger
	lines     *paced // of Serf and memberlist, to log
	reg       prometheus.Registerer
	metrics   *metrics
	serf      *serf.Serf
	transport *transport
	ring      *memberlist.Keyring // nil: not encrypted

	events   chan serf.Event // from Serf; see pump
	held     chan struct{}   // pump begins when it is closed; nil: at once. For tests
	claimed  chan Claim      // one: others know our id there; see moved.go
	ask      func(context.Context, Claim) Answer
	outvoted func(context.Context, Claim) bool
	gone     func(string) bool // as in Config
	dirty    chan struct{}     // one token: members may differ from the view
	retag    chan struct{}     // one token: wanted may differ from what gossip says
	joining  chan struct{}     // one place: who joins or leaves; see tryJoin
	closing  chan struct{}     // closed by Close
	stopPump chan struct{}     // closed when Serf has ended
	pumped   chan struct{}     // closed when pump has
	view     atomic.Pointer[view]
	wanted   atomic.Pointer[Tags]         // never changed behind the pointer
	refused  atomic.Pointer[ForeignError] // the newest; nil: none
	rival    atomic.Pointer[string]       // where another process has our id; nil: none was met
	said     Tags                         // what gossip says; keepTagged only

	mu     sync.Mutex
	heard  map[string]bool // of retryJoin: has answered; guarded by mu
	closed bool            // guarded by mu; once true, workers grows no more
	result error           // of the first Close; set before closedOnce ends
	once   sync.Once       // Close
	keysMu sync.Mutex      // held during a change of the keys
	tagsMu sync.Mutex      // held while wanted is read, changed and stored
	worker sync.WaitGroup  // goroutines of Run that may block on the network; Add under mu while not closed
}

// Open binds the address and begins to answer gossip. It joins nobody: Join and Run
// do, the latter also who is in the snapshot.
func Open(cfg Config) (*Gossip, error) {
	g, err := open(cfg, func(*Gossip) {})
	if err != nil {
		return nil, fmt.Errorf("open gossip: %w", err)
	}
	return g, nil
}

// open has tune change what is about to run, for tests.
func open(cfg Config, tune func(*Gossip)) (_ *Gossip, err error) {
	if cfg.ID == "" {
		return nil, errors.New("no id")
	}
	if len(cfg.Label) > memberlist.LabelMaxSize {
		return nil, fmt.Errorf("label of %d bytes, at most %d", len(cfg.Label), memberlist.LabelMaxSize)
	}
	if err := roomForTags(cfg.Role, cfg.Tags); err != nil {
		return nil, err
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
	lines := newPaced(logger.StandardWriter(&hclog.StandardLoggerOptions{InferLevels: true}))
	std := log.New(lines, "", 0)

	// The address is bound and the snapshot tried before Serf starts anything,
	// because Serf leaves goroutines behind when it fails to start.
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
	ownIP, ownPort, err := tr.FinalAdvertiseAddr(advertise.host, advertise.port)
	if err != nil {
		return nil, fmt.Errorf("advertise address: %w", err)
	}
	recalled, err := openSnapshot(cfg.SnapshotPath, net.JoinHostPort(ownIP.String(), strconv.Itoa(ownPort)), logger)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	g := &Gossip{
		id: cfg.ID, role: cfg.Role, retryJoin: slices.Clone(cfg.RetryJoin), heard: make(map[string]bool), snapshot: cfg.SnapshotPath, recalled: recalled,
		bound: net.JoinHostPort(bind.IP.String(), strconv.Itoa(port)),
		own:   net.JoinHostPort(ownIP.String(), strconv.Itoa(ownPort)),
		ask:   cfg.Ask, outvoted: cfg.Outvoted, gone: cfg.Gone,
		log: logger, lines: lines, reg: cfg.Registerer, metrics: m, transport: tr, ring: ring,
		events:  make(chan serf.Event, 512), // a burst while pump is not scheduled
		dirty:   make(chan struct{}, 1),
		claimed: make(chan Claim, 1),
		retag:   make(chan struct{}, 1),
		joining: make(chan struct{}, 1),
		closing: make(chan struct{}), stopPump: make(chan struct{}), pumped: make(chan struct{}),
	}
	g.wanted.Store(&cfg.Tags)
	g.said = cfg.Tags
	g.view.Store(&view{unheard: g.retryJoin, changed: make(chan struct{})})
	tune(g)
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

// serfConfig is Serf's LAN profile with faster gossip and probes: a change is
// known everywhere in tens of milliseconds, a failure in about a second.
func (g *Gossip) serfConfig(cfg Config, tags map[string]string, std *log.Logger, adv hostPort, port int) *serf.Config {
	c := serf.DefaultConfig()
	c.NodeName = cfg.ID
	c.Tags = tags
	c.EventCh = g.events
	c.Logger, c.LogOutput = std, nil
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
	ml.PushPullInterval = 10 * time.Second // all that spreads where UDP is blocked; see watchUDP
	// Who is dead at one address may come back at another, at once. Should there be two
	// processes with one id, the address is not what keeps them apart; see moved.go.
	ml.DeadNodeReclaimTime = time.Millisecond
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

// Unheard returns those of the configured addresses at which nobody has answered yet
// since Open; of all others what they knew then is in Members. It must not be changed.
func (g *Gossip) Unheard() []string { return g.view.Load().unheard }

// Changes returns a channel that is closed when Members or Unheard differ from what they
// are now. Get the channel first, then look.
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
	n, err := g.tryJoin(addrs)
	if err != nil {
		return n, fmt.Errorf("join gossip: %w", err)
	}
	return n, nil
}

// tryJoin contacts members. The others take the news of a join that ends after a
// Leave for a change of mind, and ourselves, as we then go, for failed.
func (g *Gossip) tryJoin(addrs []string) (int, error) {
	select {
	case g.joining <- struct{}{}:
		defer func() { <-g.joining }()
	case <-g.closing:
		return 0, ErrClosed
	}
	return g.serf.Join(addrs, true)
}

// joinEnds is how long Leave waits for a join: that reaches somebody, and so matters,
// sooner.
const joinEnds = 2 * time.Second

// Leave tells the others that we go for good and waits for the news to spread,
// for a few seconds. Stopping is not leaving: a node that restarts must not call
// it. Close comes after.
func (g *Gossip) Leave() error {
	if !g.begin() {
		return ErrClosed
	}
	defer g.worker.Done()
	timer := time.NewTimer(joinEnds)
	defer timer.Stop()
	select {
	case g.joining <- struct{}{}:
		defer func() { <-g.joining }()
	case <-timer.C:
	case <-g.closing:
	}
	if err := g.serf.Leave(); err != nil {
		return fmt.Errorf("leave gossip: %w", err)
	}
	return nil
}

// Forget has everybody take a member that has failed for one that left: it will not be
// back, so nobody is to try to reach it, or to count it as missing. Of one that is alive
// after all the others hear again. It blocks until the news has spread, for seconds.
func (g *Gossip) Forget(id string) error {
	if !g.begin() {
		return ErrClosed
	}
	defer g.worker.Done()
	if err := g.serf.RemoveFailedNode(id); err != nil {
		return fmt.Errorf("forget %s in gossip: %w", id, err)
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
		g.lines.end()     // what goes on until Serf has ended complains of closed sockets
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
// its member lock, and waits when there is no room, so whoever reads them must not
// wait for Members. An event tells only that something changed.
func (g *Gossip) pump() {
	defer close(g.pumped)
	if g.held != nil {
		<-g.held
	}
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
	// First: what those knew who have answered is among the members then.
	g.mu.Lock()
	unheard := slices.DeleteFunc(slices.Clone(g.retryJoin), func(addr string) bool { return g.heard[addr] })
	g.mu.Unlock()
	var members []Member
	for _, m := range g.serf.Members() {
		if x, err := member(m); err == nil { // guard has reported the others
			members = append(members, x)
		}
	}
	sortMembers(members)
	old := g.view.Load()
	if slices.Equal(old.members, members) && slices.Equal(old.unheard, unheard) {
		return
	}
	g.view.Store(&view{members: members, unheard: unheard, changed: make(chan struct{})})
	g.metrics.show(members)
	close(old.changed)
}

// aliveAt tells whether a member that is alive has that gossip address.
func (g *Gossip) aliveAt(addr string) bool {
	return slices.ContainsFunc(g.serf.Members(), func(m serf.Member) bool {
		return m.Status == serf.StatusAlive && net.JoinHostPort(m.Addr.String(), strconv.Itoa(int(m.Port))) == addr
	})
}

// othersAlive tells whether gossip reaches anybody.
func (g *Gossip) othersAlive() bool {
	return slices.ContainsFunc(g.serf.Members(), func(m serf.Member) bool {
		return m.Name != g.id && m.Status == serf.StatusAlive
	})
}
