package autopilot

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	lib "github.com/hashicorp/raft-autopilot"

	"github.com/logd-io/logd/pkg/membership"
	"github.com/logd-io/logd/pkg/replica"
)

// Defaults of Config.
const (
	DefaultUpdate        = 500 * time.Millisecond
	DefaultReconcile     = time.Second
	DefaultStabilization = 5 * time.Second
	DefaultGrace         = 10 * time.Minute
	DefaultMinQuorum     = 3

	// maxContact is how long ago a healthy node has heard of its leader. It hears
	// of it several times a heartbeat timeout.
	maxContact = 2 * time.Second
	// maxTrailing is how many entries a healthy node may lack: as many as are on
	// their way to it when it keeps up under load.
	maxTrailing = 128
)

// Replica is what a Pilot needs of this node's replica.
type Replica interface {
	View() replica.View
	Changes() <-chan struct{}
	Stats() replica.Stats
	// Raft is nil while Raft does not run.
	Raft() *raft.Raft
	// RemovePeer takes a node out of the configuration, for good.
	RemovePeer(ctx context.Context, id string) error
}

// Stats is how a node says it stands.
type Stats struct {
	LastContact time.Duration // since it heard of a leader; negative: never
	LastIndex   uint64
	LastTerm    uint64
}

// Config is what New needs.
type Config struct {
	ID      string // this node's
	Replica Replica
	// Members is gossip's view.
	Members func() []membership.Member
	// Stats asks another node how it stands.
	Stats func(ctx context.Context, id string) (Stats, error)

	Update        time.Duration // between looks at all nodes; 0: DefaultUpdate
	Reconcile     time.Duration // between promotions; 0: DefaultReconcile
	Stabilization time.Duration // healthy so long before a promotion; 0: DefaultStabilization

	KeepDead  bool          // dead servers stay until an operator removes them
	Grace     time.Duration // dead so long before a removal; 0: DefaultGrace
	MinQuorum int           // healthy voters that stay at least; 0: DefaultMinQuorum

	Logger hclog.Logger // nil: quiet
}

// Pilot promotes non-voters and removes dead servers while this node leads.
type Pilot struct {
	cfg   Config
	state atomic.Pointer[State] // nil while this node does not lead
}

// New makes a Pilot; Run is what it does.
func New(cfg Config) *Pilot {
	or := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	or(&cfg.Update, DefaultUpdate)
	or(&cfg.Reconcile, DefaultReconcile)
	or(&cfg.Stabilization, DefaultStabilization)
	or(&cfg.Grace, DefaultGrace)
	if cfg.MinQuorum == 0 {
		cfg.MinQuorum = DefaultMinQuorum
	}
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	return &Pilot{cfg: cfg}
}

// Run works until ctx ends.
func (p *Pilot) Run(ctx context.Context) error {
	for {
		changed := p.cfg.Replica.Changes()
		v, r := p.cfg.Replica.View(), p.cfg.Replica.Raft()
		if v.IsLeader && r != nil {
			p.lead(ctx, r, v.Term)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// lead runs the library while this node leads in that term. It is made anew for
// every term, since what it remembers of the nodes' health is old by then.
func (p *Pilot) lead(ctx context.Context, r *raft.Raft, term uint64) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer p.state.Store(nil)
	d := &delegate{cfg: p.cfg, stable: newStability(p.cfg.Stabilization), states: make(chan *lib.State, 1)}
	ap := lib.New(r, d,
		lib.WithLogger(p.cfg.Logger),
		lib.WithUpdateInterval(p.cfg.Update),
		lib.WithReconcileInterval(p.cfg.Reconcile),
		lib.WithPromoter(d.stable),
	)
	ap.Start(ctx)
	dead := newCleanup(p.cfg.Grace, p.cfg.MinQuorum)
	quiet := newSilence(p.cfg.Stats)
	defer func() { cancel(); quiet.wait() }()
	for {
		changed := p.cfg.Replica.Changes()
		if v := p.cfg.Replica.View(); !v.IsLeader || v.Term != term {
			break
		}
		select {
		case <-changed:
			continue
		case st := <-d.states:
			p.clean(ctx, d, dead, quiet, st)
			continue
		case <-ctx.Done():
		}
		break
	}
	<-ap.Stop()
}

// clean notes what the library found, and removes who has been dead for too long.
func (p *Pilot) clean(ctx context.Context, d *delegate, dead *cleanup, quiet *silence, st *lib.State) {
	now, peers := time.Now(), p.cfg.Replica.View().Peers
	dead.wake(now)
	servers := serversOf(peers, healthOf(st), func(id string, missed bool) bool {
		if !missed {
			quiet.forget(id)
			return false
		}
		return quiet.of(ctx, id)
	})
	remove := dead.look(now, servers)
	p.state.Store(stateOf(now, peers, st, d.stable, dead))
	if p.cfg.KeepDead {
		return
	}
	for _, id := range remove {
		p.cfg.Logger.Warn("a dead server leaves the configuration: gossip does not see it alive and it has not answered for longer than dead_server_grace, and others do its part",
			"node", id, "dead_for", time.Since(dead.since[id]).Round(time.Second), "grace", p.cfg.Grace,
			"healthy_voters", healthyVoters(servers), "min_quorum", p.cfg.MinQuorum)
		if err := p.cfg.Replica.RemovePeer(ctx, id); err != nil {
			p.cfg.Logger.Error("a dead server could not be removed", "node", id, "err", err)
			return
		}
	}
}

func healthyVoters(servers []server) (n int) {
	for _, s := range servers {
		if s.voter && s.healthy {
			n++
		}
	}
	return n
}

func healthOf(st *lib.State) map[string]*lib.ServerState {
	health := make(map[string]*lib.ServerState, len(st.Servers))
	for id, s := range st.Servers {
		health[string(id)] = s
	}
	return health
}
