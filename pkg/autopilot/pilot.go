package autopilot

import (
	"context"
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

	Logger hclog.Logger // nil: quiet
}

// Pilot promotes non-voters while this node leads.
type Pilot struct{ cfg Config }

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
	ap := lib.New(r, &delegate{p.cfg},
		lib.WithLogger(p.cfg.Logger),
		lib.WithUpdateInterval(p.cfg.Update),
		lib.WithReconcileInterval(p.cfg.Reconcile),
	)
	ap.Start(ctx)
	for {
		changed := p.cfg.Replica.Changes()
		if v := p.cfg.Replica.View(); !v.IsLeader || v.Term != term {
			break
		}
		select {
		case <-changed:
			continue
		case <-ctx.Done():
		}
		break
	}
	<-ap.Stop()
}
