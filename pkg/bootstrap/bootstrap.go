package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
)

// Peer is another storage node, as gossip tells of it. Nodes that left are not
// among them.
type Peer struct {
	ID       string
	Expect   int    // its bootstrap_expect; 0: it only joins
	HasState bool   // it is, or was, in a cluster
	Cluster  string // uuid, if known
	Alive    bool
}

// Peers is what gossip knows. Both functions return at once.
type Peers interface {
	Peers() []Peer
	Changes() <-chan struct{} // closed when Peers differs from now
}

// Asker asks another node for its promise, once. It returns nil only when that
// node has granted it, and a *RefusedError only when it has said no.
type Asker interface {
	Promise(ctx context.Context, id string, p Promise) error
}

// Replica is what bootstrap needs of this node's Raft.
type Replica interface {
	HasState() bool
	// Bind makes the node, durably, one of the cluster; again the same is nothing.
	Bind(uuid string) error
	Bootstrap(ctx context.Context, uuid string, servers []string) error
	Changes() <-chan struct{} // closed at the next change, HasState's among them
}

// Config is what New needs.
type Config struct {
	ID      string
	Expect  int // 0: this node never bootstraps and promises nothing
	Store   *Store
	Replica Replica
	Peers   Peers
	Asker   Asker
	// Unheard returns addresses where other nodes may be and nobody has answered yet. A
	// node that begins alone waits until there are none, since nobody else's promise
	// could keep it from beginning a second cluster. nil: there are none.
	Unheard func() []string
	// Bound returns the uuid this node is bound to, "" for none; nil: always "".
	Bound func() string

	Retry   time.Duration // between rounds of asking; 0: 500 ms. Ten times that after a refusal
	Settle  time.Duration // how long too many candidates may be seen before that is said; 0: 10 s
	NewUUID func() string // nil: random
	// Say is told what Run waits for, whenever that changes, for readiness. It must
	// not block. nil: nobody is told.
	Say    func(what string)
	Logger hclog.Logger // nil: quiet
}

// Bootstrap is one node's part in beginning a cluster.
type Bootstrap struct {
	cfg Config
	log hclog.Logger
	// Held while a promise is checked and made, so that what was checked holds.
	granting sync.Mutex
	told     string // the last that was said; Run's only
	pace     Pace   // of the log; Run's only
}

// New returns a Bootstrap. Grant may be called from then on.
func New(cfg Config) *Bootstrap {
	if cfg.Bound == nil {
		cfg.Bound = func() string { return "" }
	}
	if cfg.Unheard == nil {
		cfg.Unheard = func() []string { return nil }
	}
	if cfg.Retry <= 0 {
		cfg.Retry = 500 * time.Millisecond
	}
	if cfg.Settle <= 0 {
		// Longer than gossip takes to see that a node has died.
		cfg.Settle = 10 * time.Second
	}
	if cfg.NewUUID == nil {
		cfg.NewUUID = uuid.NewString
	}
	if cfg.Say == nil {
		cfg.Say = func(string) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	return &Bootstrap{cfg: cfg, log: cfg.Logger}
}

// Grant promises what another node asks for, and returns when the promise is on
// disk and the node is bound to the cluster. The caller has checked that the
// request comes from the initiator. What it refuses, it refuses for ever:
// *PromisedError, *HasStateError, *ExpectError, *InvalidError.
func (b *Bootstrap) Grant(_ context.Context, cluster, initiator string, servers []string) error {
	p := Promise{Cluster: cluster, Initiator: initiator, Servers: servers}
	if err := p.check(); err != nil {
		return err
	}
	if !slices.Contains(servers, b.cfg.ID) {
		return &InvalidError{fmt.Sprintf("%s is not one of %q", b.cfg.ID, servers)}
	}
	if len(servers) != b.cfg.Expect {
		return &ExpectError{ID: initiator, Expect: len(servers), Wanted: b.cfg.Expect}
	}
	if initiator == b.cfg.ID {
		return &InvalidError{"a node asks itself by making its promise"}
	}
	b.granting.Lock()
	defer b.granting.Unlock()
	// Also for a promise that was made: state comes from the initiator only after
	// it bootstrapped, so one that asks now has lost what it had.
	if b.cfg.Replica.HasState() {
		return &HasStateError{ID: b.cfg.ID, Cluster: b.cfg.Bound()}
	}
	_, had := b.cfg.Store.Promised()
	if bound := b.cfg.Bound(); !had && bound != "" && bound != cluster {
		return &HasStateError{ID: b.cfg.ID, Cluster: bound}
	}
	if err := b.cfg.Store.Make(p); err != nil {
		return err
	}
	if !had {
		b.log.Info("promised", "node", b.cfg.ID, "cluster", cluster, "initiator", initiator, "servers", servers)
	}
	return b.cfg.Replica.Bind(cluster)
}

// Run takes this node to where it has Raft state, and then returns nil: by
// bootstrapping it, or by waiting for the one that does. A node that was bound to
// a cluster otherwise, or expects nobody, needs no bootstrap; for it, too, Run
// returns nil. It returns *PeerStateError when there are nodes with state, which
// this one can only join, and context.Cause when ctx ends.
//
// Where an operator has to decide (too many candidates, different numbers, a
// refused promise) it says so and goes on looking: one node that was set up wrongly
// ends no other, and when it has been mended nobody has to be started again.
func (b *Bootstrap) Run(ctx context.Context) error {
	if b.cfg.Expect <= 0 {
		return nil
	}
	retry := time.NewTimer(b.cfg.Retry)
	defer retry.Stop()
	var crowded time.Time // since when there are too many; zero: there are not
	var granted []string  // who has promised us, in this life
	for {
		peers, raft := b.cfg.Peers.Changes(), b.cfg.Replica.Changes()
		if b.cfg.Replica.HasState() {
			return nil
		}
		pause := b.cfg.Retry
		p, promised := b.cfg.Store.Promised()
		switch {
		case promised && p.Initiator == b.cfg.ID:
			var refused error
			granted, refused = b.ask(ctx, p, granted)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if len(granted) == len(p.Servers)-1 {
				return b.carryOut(ctx, p)
			}
			if refused != nil {
				b.warn(fmt.Sprintf("%v; this node has promised itself to %s", refused, p))
				pause *= 10
				// Only time and operators change a refusal, gossip does not.
				peers = nil
				break
			}
			b.say(b.lacking(p, granted))
		case promised:
			// A crash may have come between the promise and this.
			if err := b.cfg.Replica.Bind(p.Cluster); err != nil {
				return err
			}
			b.say(fmt.Sprintf("promised to %s; waiting for it to begin. If %s will never come back, %s", p, p.Initiator, forgetting(p)))
		case b.cfg.Bound() != "":
			return nil
		default:
			unheard := b.cfg.Unheard() // before the peers: who has answered is among them
			servers, err := decide(b.cfg.ID, b.cfg.Expect, b.cfg.Peers.Peers())
			var exists *PeerStateError
			var many *TooManyError
			switch {
			case errors.As(err, &exists):
				return err
			case errors.As(err, &many):
				// One of them may have died, and gossip not know it yet.
				if crowded.IsZero() {
					crowded = time.Now()
				}
				if time.Since(crowded) >= b.cfg.Settle {
					b.warn(err.Error())
				}
			case err != nil:
				b.warn(err.Error())
			case len(servers) < b.cfg.Expect:
				b.say(fmt.Sprintf("waiting for nodes to begin a cluster with: bootstrap_expect is %d, and %d without state are here (%s)",
					b.cfg.Expect, len(servers), strings.Join(servers, ", ")))
			case b.cfg.Expect == 1 && len(unheard) > 0:
				b.warn(fmt.Sprintf("bootstrap_expect is 1, and nobody has answered yet at %s: a cluster that is there must not get a second beside it. "+
					"If there are no nodes there yet, take them out of retry_join until there are", strings.Join(unheard, ", ")))
			case servers[0] == b.cfg.ID:
				if err := b.initiate(servers); err != nil {
					return err
				}
				continue // with the promise that was made, or came in between
			default:
				b.say(fmt.Sprintf("all of bootstrap_expect are here (%s); waiting for %s to ask for this node's promise",
					strings.Join(servers, ", "), servers[0]))
			}
			if many == nil {
				crowded = time.Time{}
			}
		}
		retry.Reset(pause)
		select {
		case <-peers:
		case <-raft:
		case <-retry.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// say tells what this node waits for: in the log now and then again.
func (b *Bootstrap) say(what string) { b.tell(hclog.Info, what) }

// warn is say for what only an operator can change.
func (b *Bootstrap) warn(what string) { b.tell(hclog.Warn, what) }

func (b *Bootstrap) tell(level hclog.Level, what string) {
	if b.told != what {
		b.told = what
		b.cfg.Say(what)
	}
	if b.pace.Due(what) {
		b.log.Log(level, "no cluster yet", "node", b.cfg.ID, "why", what)
	}
}

// lacking says whose promise is missing, and of those who has come back without
// what it had: it can not promise under an id that it lost.
func (b *Bootstrap) lacking(p Promise, granted []string) string {
	var missing []string
	for _, id := range p.Servers {
		if id != b.cfg.ID && !slices.Contains(granted, id) {
			missing = append(missing, id)
		}
	}
	return fmt.Sprintf("initiated %s; waiting for the promise of %s. If one of them will never come back (its data is gone), %s",
		p, strings.Join(missing, ", "), forgetting(p))
}

// forgetting is how operators get rid of a cluster that cannot come to be.
func forgetting(p Promise) string {
	return fmt.Sprintf("stop all of %s, run 'logd bootstrap forget' on each, and start them again", strings.Join(p.Servers, ", "))
}

// decide returns the candidates, ascending: this node and the others that could
// begin a cluster with it. With exactly expect of them the first is the
// initiator. It errs when only an operator can tell what is meant.
func decide(self string, expect int, peers []Peer) ([]string, error) {
	var stateful []Peer
	for _, p := range peers {
		if p.ID != self && p.HasState {
			stateful = append(stateful, p) // alive or not: it may only be cut off
		}
	}
	if len(stateful) > 0 {
		slices.SortFunc(stateful, func(a, b Peer) int { return strings.Compare(a.ID, b.ID) })
		return nil, &PeerStateError{Peers: stateful}
	}
	candidates := []string{self}
	for _, p := range peers {
		if p.ID == self || !p.Alive || p.Expect == 0 {
			continue
		}
		if p.Expect != expect {
			return nil, &ExpectError{ID: p.ID, Expect: p.Expect, Wanted: expect}
		}
		candidates = append(candidates, p.ID)
	}
	slices.Sort(candidates)
	candidates = slices.Compact(candidates)
	if len(candidates) > expect {
		return nil, &TooManyError{Expect: expect, Candidates: candidates}
	}
	return candidates, nil
}

// initiate promises ourselves to a new cluster, if nothing came in between.
func (b *Bootstrap) initiate(servers []string) error {
	b.granting.Lock()
	defer b.granting.Unlock()
	if _, promised := b.cfg.Store.Promised(); promised || b.cfg.Replica.HasState() || b.cfg.Bound() != "" {
		return nil
	}
	p := Promise{Cluster: b.cfg.NewUUID(), Initiator: b.cfg.ID, Servers: servers}
	if err := b.cfg.Store.Make(p); err != nil {
		return err
	}
	b.log.Info("initiating a cluster", "node", b.cfg.ID, "cluster", p.Cluster, "servers", servers)
	return nil
}

// ask asks at once everybody who has not granted yet, and returns who has.
func (b *Bootstrap) ask(ctx context.Context, p Promise, granted []string) ([]string, error) {
	type answer struct {
		id  string
		err error
	}
	answers := make(chan answer, len(p.Servers)) // one each: no asker waits
	asked := 0
	for _, id := range p.Servers {
		if id == b.cfg.ID || slices.Contains(granted, id) {
			continue
		}
		asked++
		go func() { answers <- answer{id, b.cfg.Asker.Promise(ctx, id, p)} }()
	}
	var refusals []*RefusedError
	for range asked {
		a := <-answers
		var no *RefusedError
		switch {
		case a.err == nil:
			granted = append(granted, a.id)
		case errors.As(a.err, &no):
			refusals = append(refusals, no)
		default:
			b.log.Debug("no answer about the promise yet", "peer", a.id, "err", a.err)
		}
	}
	// In one order, so that the same is said once.
	slices.SortFunc(refusals, func(a, b *RefusedError) int { return strings.Compare(a.Peer, b.Peer) })
	var refused error
	for _, no := range refusals {
		refused = errors.Join(refused, no)
	}
	return granted, refused
}

// carryOut bootstraps: every server has promised.
func (b *Bootstrap) carryOut(ctx context.Context, p Promise) error {
	if err := b.cfg.Replica.Bootstrap(ctx, p.Cluster, p.Servers); err != nil {
		return fmt.Errorf("bootstrap %s: %w", p, err)
	}
	b.log.Info("bootstrapped", "node", b.cfg.ID, "cluster", p.Cluster, "servers", p.Servers)
	return nil
}
